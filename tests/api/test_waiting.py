"""What a client is told while its model is on its way."""

import json
from typing import Any, cast

import pytest

from exo.cluster.state import Instance
from exo.errors import Unavailable

from .painter import Studio

PATH = "/v1/images/generations"
BODY = {"model": "can-all", "prompt": "a cat"}


class Slow:
    """Serves as `inner` does, after telling how far the model is."""

    def __init__(self, inner: Any, error: Exception | None = None) -> None:
        self._inner = inner
        self._error = error
        self.card_for = inner.card_for

    async def instances_for(self, name: str, task: Any, tell: Any = None) -> list[Instance]:
        for text in ("starting", "loading 50%") if tell else ():
            await tell(text)
        if self._error:
            raise self._error
        return await self._inner.instances_for(name, task)


def be_slow(paint: Studio, error: Exception | None = None) -> None:
    paint.context.serving = cast("Any", Slow(paint.context.serving, error))


async def test_a_stream_is_told_how_far_its_model_is(paint: Studio):
    be_slow(paint)
    async with paint.client.post(PATH, json={**BODY, "stream": True}) as response:
        assert response.status == 200
        lines = (await response.text()).split("\n\n")
    assert lines[:2] == [": starting", ": loading 50%"]
    assert any("image_generation.completed" in line for line in lines)


async def test_a_failure_after_that_is_an_event(paint: Studio):
    be_slow(paint, Unavailable("It could not be loaded."))
    async with paint.client.post(PATH, json={**BODY, "stream": True}) as response:
        assert response.status == 200
        assert response.headers["x-request-id"]
        *_, last, end = (await response.text()).split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"
    assert end == ""


async def test_what_no_one_foresaw_after_that_is_an_event_too(
    paint: Studio, caplog: pytest.LogCaptureFixture
):
    be_slow(paint, RuntimeError("a bug"))
    async with paint.client.post(PATH, json={**BODY, "stream": True}) as response:
        *_, last, _ = (await response.text()).split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "a bug" in caplog.text


async def test_a_plain_request_gets_a_status_and_when_to_come_back(paint: Studio):
    error = Unavailable("can-all is not ready yet (loading 50%).", retry_after=5)
    be_slow(paint, error)
    async with paint.client.post(PATH, json=BODY) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        assert "loading 50%" in (await response.json())["error"]["message"]
