"""What every handler can reach."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from exo.api.access import ASKER, Doors
from exo.api.calls import CALL, OpenCalls
from exo.api.image_store import ImageStore
from exo.api.meters import Meters
from exo.api.sse import EventStream
from exo.cluster.cancelling import Cancelling
from exo.cluster.catalogue import Catalogue
from exo.cluster.key_ring import KeyRing
from exo.cluster.node import Node
from exo.cluster.requests import Output
from exo.cluster.security import Security
from exo.cluster.serving import Serving
from exo.cluster.state import Instance
from exo.cluster.tracing import Tracing
from exo.errors import Unavailable
from exo.inference.image.types import DrawRequest
from exo.inference.types import EmbedRequest, GenerateRequest
from exo.models.card import ModelCard, Task

if TYPE_CHECKING:  # What it holds are views, some of which are made from a context.
    from exo.api.response_archive import ResponseArchive

T = TypeVar("T", GenerateRequest, EmbedRequest, DrawRequest)


@dataclass
class Context:
    """The node behind the API. While `draining`, no new answers are begun."""

    node: Node
    catalogue: Catalogue
    serving: Serving
    security: Security
    images: ImageStore
    responses: "ResponseArchive"
    tracing: Tracing
    meters: Meters
    doors: Doors = field(default_factory=Doors)
    draining: bool = False

    def __post_init__(self) -> None:
        self.keys = KeyRing(self.node)
        self.calls = OpenCalls()
        self.cancelling = Cancelling(self.node, self.calls.cancel)

    async def able_card(self, model: str, task: Task) -> ModelCard:
        """The model for a new answer, before anything is placed for it. See `Serving.card_for`.

        Raises:
            Unavailable: this node is about to stop.
            ModelForbidden: the API key is not for this model.
        """
        if self.draining:
            raise Unavailable("This node is stopping.", hint="Try another node.", retry_after=5)
        ASKER.get().require_name(model)
        card = await self.serving.card_for(model, task)
        ASKER.get().require(card)
        return card

    async def begin(
        self, model: str, task: Task = Task.TEXT, stream: EventStream | None = None
    ) -> Instance:
        """The instance for a new answer. See `begin_all`."""
        return (await self.begin_all(model, task, stream))[0]

    async def begin_all(
        self, model: str, task: Task = Task.TEXT, stream: EventStream | None = None
    ) -> list[Instance]:
        """The instances for a new answer, the best first. The client waits for them; a stream is
        told meanwhile how far they are. See `able_card` and `Serving.instances_for`.

        Raises:
            Unavailable, ModelForbidden: as `able_card` says.
        """
        await self.able_card(model, task)
        tell = stream.waits_for if stream else None
        return await self.serving.instances_for(model, task, tell)

    def generate(self, instance: Instance, asked: GenerateRequest) -> AsyncGenerator[Output]:
        """Have an instance answer, for who asks. See `Node.generate`."""
        return self.node.generate(instance, _stamped(asked))

    def embed(self, instance: Instance, asked: EmbedRequest) -> AsyncGenerator[Output]:
        """Have an instance make vectors, for who asks. See `Node.generate`."""
        return self.node.generate(instance, _stamped(asked))

    def draw(self, instances: Sequence[Instance], asked: DrawRequest) -> AsyncGenerator[Output]:
        """Have instances draw, for who asks. See `Node.draw`."""
        return self.node.draw(instances, _stamped(asked))

    async def card(self, name: str) -> ModelCard:
        """See `Catalogue.card`.

        Raises:
            ModelForbidden: the API key is not for this model.
        """
        ASKER.get().require_name(name)
        card = await self.catalogue.card(name)
        ASKER.get().require(card)
        return card

    async def cards(self) -> list[ModelCard]:
        """Every known model that the API key is for. See `Catalogue.here`."""
        asker = ASKER.get()
        return [card for card in await self.catalogue.here() if asker.may_use(card)]


def _stamped(asked: T) -> T:
    """The request with what the HTTP request says of it, which it can be ended by as well."""
    call = CALL.get()
    if call is None:
        return asked
    call.names.add(asked.request_id)
    return asked.model_copy(update={"lane": call.lane, "batch": call.batch})


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]
