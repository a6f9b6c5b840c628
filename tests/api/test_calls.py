"""How long a request may take, whom it goes before, and its end by its id."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from exo.api.calls import PRIORITY, TIMEOUT, Call, OpenCalls, read_call

from .painter import Studio

PATH = "/v1/images/generations"
BODY = {"model": "can-all", "prompt": "a cat"}
STREAM = {**BODY, "stream": True}


async def cancelled(paint: Studio, name: str, status: int = 200) -> Any:
    """The answer to a request to cancel, on a node that is alone."""
    cast("Any", paint.context.node).options = SimpleNamespace(node_id="a")
    async with paint.client.post(f"/v1/requests/{name}/cancel") as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_a_request_is_cancelled_by_the_id_that_its_client_chose(paint: Studio):
    paint.painter.hangs = True
    asked = asyncio.create_task(
        cast("Any", paint.client.post(PATH, json=BODY, headers={"X-Client-Request-Id": "mine"}))
    )
    await paint.painter.begun.wait()

    answer = await cancelled(paint, "mine")

    assert answer == {"id": "mine", "object": "request.cancelled", "cancelled": True}
    response = await asked
    assert response.status == 499
    assert (await response.json())["error"]["code"] == "request_cancelled"
    assert paint.painter.closed.is_set()
    assert len(paint.context.calls) == 0


async def test_a_stream_is_cancelled_by_the_id_in_its_headers(paint: Studio):
    paint.painter.hangs = True
    async with paint.client.post(PATH, json=STREAM) as response:
        assert response.status == 200
        await cancelled(paint, response.headers["x-request-id"])
        lines = (await response.text()).strip().split("\n\n")
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["error"]["code"] == "request_cancelled"
    assert paint.painter.closed.is_set()


async def test_a_request_is_cancelled_by_the_id_that_the_runner_knows_it_by(paint: Studio):
    paint.painter.hangs = True
    async with paint.client.post(PATH, json=STREAM) as response:
        await cancelled(paint, paint.last.request_id)
        assert "request_cancelled" in await response.text()


async def test_a_request_that_is_not_open_cannot_be_cancelled(paint: Studio):
    async with paint.client.post(PATH, json=BODY) as response:
        name = response.headers["x-request-id"]
    answer = await cancelled(paint, name, 404)
    assert answer["error"]["code"] == "request_not_found"


async def test_a_request_that_takes_too_long_ends(paint: Studio):
    paint.painter.hangs = True
    async with paint.client.post(PATH, json=BODY, headers={TIMEOUT: "0.1"}) as response:
        assert response.status == 504
        error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("timeout_error", "request_timed_out")
    assert "0.1 s" in error["message"]
    assert paint.painter.closed.is_set()


async def test_a_stream_that_takes_too_long_ends_with_an_error(paint: Studio):
    paint.painter.hangs = True
    async with paint.client.post(PATH, json=STREAM, headers={TIMEOUT: "0.1"}) as response:
        assert response.status == 200
        assert "request_timed_out" in (await response.text()).split("\n\n")[-2]
    assert paint.painter.closed.is_set()


async def test_batch_is_told_to_the_runner(paint: Studio):
    async with paint.client.post(PATH, json=BODY, headers={PRIORITY: "Batch"}):
        assert paint.last.batch
    async with paint.client.post(PATH, json=BODY):
        assert not paint.last.batch


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (PRIORITY, "urgent"),
        (TIMEOUT, "0"),
        (TIMEOUT, "-1"),
        (TIMEOUT, "soon"),
        (TIMEOUT, "inf"),
        (TIMEOUT, "nan"),
    ],
)
async def test_a_header_that_is_wrong_is_refused(paint: Studio, header: str, value: str):
    async with paint.client.post(PATH, json=BODY, headers={header: value}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == header
    assert paint.painter.asked == []


@pytest.mark.parametrize(
    ("asked", "longest", "seconds"),
    [(None, 60, 60), (None, 0, None), ("5", 60, 5), ("90", 60, 60), ("90", 0, 90)],
)
def test_a_request_may_ask_for_less_time_than_there_is(
    asked: str | None, longest: float, seconds: float | None
):
    headers = {TIMEOUT: asked} if asked else {}
    assert read_call(headers, "id", "", longest).seconds == seconds


def test_a_key_cancels_its_own_requests_only():
    calls = OpenCalls()
    mine, other = Call({"a"}, "mine"), Call({"a", "b"}, "other")
    calls.add(mine)
    calls.add(other)

    assert not calls.cancel("b", "mine")
    assert calls.cancel("a", "mine")
    assert (mine.cancelled, other.cancelled) == (True, False)
    assert calls.cancel("b", None)
    assert other.cancelled
