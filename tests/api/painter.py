"""The image API over a node that draws at once: it keeps what it is asked for."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from aiohttp.test_utils import TestClient, TestServer

from exo.api.app import make_app
from exo.api.context import Context
from exo.api.image_store import ImageStore
from exo.api.meters import Meters
from exo.cluster.serving import Serving, ServingOptions
from exo.cluster.state import ClusterState, Instance, Runner, RunnerStatus
from exo.cluster.tracing import Tracing
from exo.errors import ModelNotFound
from exo.inference.image.types import (
    DrawFinished,
    Drawing,
    Drawn,
    DrawRequest,
    DrawStats,
    Preview,
)
from exo.inference.messages import Accepted
from exo.models.card import ModelCard, Task
from exo.models.image_traits import ImageTraits, Qualities
from tests.cluster.factory import card, instance, node

from .pictures import png
from .stub import StubNetwork

QUALITIES = Qualities(low=2, medium=4, high=8)
BODY_LIMIT = 2**20
PROMPT_TOKENS = 5


def traits(**fields: Any) -> ImageTraits:
    base = {"steps": 4, "qualities": QUALITIES, "size": 64, "max_side": 256, "max_pixels": 36_864}
    return ImageTraits.model_validate({**base, **fields})


def image_card(model_id: str, **fields: Any) -> ModelCard:
    return card(model_id, tasks=(Task.IMAGE,), image=traits(**fields))


CAN_ALL = {
    "edits": 3,
    "mask": True,
    "strength": True,
    "negative_prompt": True,
    "empty_prompt": True,
    "guidance": (1.0, 10.0),
}
CARDS = [
    image_card("can-all", **CAN_ALL),
    image_card("can-little", min_steps=2),
    image_card("can-edit", edits=1, draws=False, guidance=(1.0, 5.0)),
    card("says"),
]


@dataclass
class Painter:
    """Picture i is all of one colour, (i, step, 0) at that step. `error` ends it midway."""

    asked: list[DrawRequest] = field(default_factory=list[DrawRequest])
    refusal: Exception | None = None
    error: Exception | None = None
    hangs: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def draw(self, _: Sequence[Instance], request: DrawRequest) -> AsyncGenerator[Any]:
        self.asked.append(request)
        self.begun.set()
        try:
            if self.refusal:
                raise self.refusal
            yield Accepted(request_id=request.request_id, prompt_tokens=PROMPT_TOKENS)
            for index in range(request.n):
                for output in self._one(request, index):
                    yield output
            if self.hangs:
                await asyncio.Event().wait()
            yield DrawFinished(request_id=request.request_id, stats=stats(request))
        finally:
            self.closed.set()

    def _one(self, request: DrawRequest, index: int) -> Sequence[Any]:
        given: list[Any] = []
        known = {"request_id": request.request_id, "index": index}
        for step in range(1, request.steps + 1):
            given.append(Drawing(**known, step=step, steps=request.steps))
            if step <= request.partial_images:
                given.append(Preview(**known, number=step - 1, png=colour(request, index, step)))
            if self.error:
                raise self.error
        given.append(Drawn(**known, png=colour(request, index, request.steps)))
        return given


def colour(request: DrawRequest, index: int, step: int) -> bytes:
    return png((request.width, request.height), (index, step, 0))


def stats(request: DrawRequest) -> DrawStats:
    return DrawStats(
        images=request.n,
        steps=request.steps,
        width=request.width,
        height=request.height,
        queue_time=0.5,
        seconds_per_step=0.25,
        total_time=2.0,
        peak_memory_usage=1000,
        approximate=request.patches is not None,
    )


class StubResponses:
    """None."""

    async def close(self) -> None:
        pass


class StubCatalogue:
    async def here(self) -> list[ModelCard]:
        return CARDS

    async def card(self, name: str) -> ModelCard:
        found = [one for one in CARDS if one.model_id == name]
        if not found:
            raise ModelNotFound(f"There is no model '{name}'.", param="model")
        return found[0]


@dataclass
class Studio:
    """The served API. What a request needs and does not give is filled in."""

    client: TestClient[Any, Any]
    painter: Painter
    images: ImageStore
    folder: Path
    context: Context

    @property
    def url(self) -> str:
        return str(self.client.make_url("/"))

    @property
    def last(self) -> DrawRequest:
        return self.painter.asked[-1]

    async def generate(self, status: int = 200, path: str = "/v1", **fields: Any) -> Any:
        body = {"model": "can-all", "prompt": "a cat", **fields}
        async with self.client.post(f"{path}/images/generations", json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def refused(self, param: str | None, status: int = 400, **fields: Any) -> str:
        """The message of the error, which must be in OpenAI's shape and name the field."""
        return message(await self.generate(status, **fields), param)

    async def edit(self, form: Any, status: int = 200, path: str = "/v1", **options: Any) -> Any:
        request = self.client.post(f"{path}/images/edits", data=form, **options)
        async with request as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def get(self, path: str, status: int = 200) -> tuple[bytes, str]:
        """The body and its type."""
        async with self.client.get(path) as response:
            assert response.status == status, await response.text()
            return await response.read(), response.content_type


def message(answer: Any, param: str | None) -> str:
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    return error["message"]


@asynccontextmanager
async def studio(folder: Path, max_bytes: int = 2**20) -> Any:
    made = [instance(f"i-{one.model_id}").model_copy(update={"card": one}) for one in CARDS]
    state = ClusterState(
        nodes={"a": node()},
        instances={each.instance_id: each for each in made},
        runners={f"{each.instance_id}/0": _ready(each) for each in made},
    )

    async def wait_for(_: object) -> ClusterState:
        return state

    painter = Painter()
    stub = SimpleNamespace(
        state=state,
        wait_for=wait_for,
        load=lambda _: 0,
        reaches=lambda _: True,
        draw=painter.draw,
    )
    catalogue = cast("Any", StubCatalogue())
    images = ImageStore(folder, max_bytes)
    meters = Meters()
    context = Context(
        node=cast("Any", stub),
        catalogue=catalogue,
        serving=Serving(cast("Any", stub), catalogue, ServingOptions(auto_place=False, wait=10)),
        security=cast("Any", None),
        images=images,
        responses=cast("Any", StubResponses()),
        tracing=Tracing(cast("Any", StubNetwork()), meters),
        meters=meters,
    )
    app = make_app(context, host="127.0.0.1", max_body=BODY_LIMIT)
    server = TestServer(app, host="127.0.0.1")
    async with TestClient(server) as client:
        yield Studio(client, painter, images, folder, context)


def _ready(made: Instance) -> Runner:
    return Runner(runner_id="r", instance_id=made.instance_id, rank=0, status=RunnerStatus.READY)
