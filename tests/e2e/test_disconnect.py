"""A client that goes away frees its slot: on an instance with one slot, the next one is served.

The answers are endless, so a slot that is not freed is held until the test's time is up.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from socket import create_connection

import httpx
import pytest

from .daemon import Daemon, Json, chat_body, content_of
from .endless import FIELDS, MODEL

pytestmark = pytest.mark.e2e


@pytest.fixture
def one_slot(shared: Daemon) -> Iterator[Json]:
    instance = shared.create(MODEL, concurrency=1)
    yield instance
    shared.delete(instance)


def assert_free(daemon: Daemon) -> None:
    assert daemon.chat(MODEL, max_tokens=3, **FIELDS)["usage"]["completion_tokens"] == 3


@pytest.mark.usefixtures("one_slot")
def test_stream(shared: Daemon) -> None:
    with shared.stream(MODEL, **FIELDS) as lines:
        assert next(lines)
        assert content_of(next(lines))
    assert_free(shared)


@pytest.mark.usefixtures("one_slot")
def test_cancelled_by_its_id(shared: Daemon) -> None:
    body = chat_body(MODEL, "Hello", stream=True, **FIELDS)
    with shared.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))
        shared.post(f"/v1/requests/{first['id']}/cancel", None)
        [*_, last] = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_cancelled"
    assert_free(shared)


@pytest.mark.usefixtures("one_slot")
def test_stream_of_many_answers(shared: Daemon) -> None:
    with shared.stream(MODEL, n=5, **FIELDS) as lines:
        assert next(lines)
    assert_free(shared)


@pytest.mark.usefixtures("one_slot")
def test_while_waiting_for_a_slot(shared: Daemon) -> None:
    """The one in the queue goes before its turn; the one in the slot is not touched."""
    with shared.stream(MODEL, **FIELDS) as first:
        assert next(first)
        with shared.stream(MODEL, **FIELDS) as waiting:
            assert next(waiting), "the opening chunk says that the request is accepted"
        assert "".join(content_of(next(first)) for _ in range(5))
    assert_free(shared)


@pytest.mark.usefixtures("one_slot")
def test_without_streaming(shared: Daemon) -> None:
    """The connection is closed while the whole answer is awaited."""
    request = shared.http.build_request(
        "POST", "/v1/chat/completions", json=chat_body(MODEL, "Hello", **FIELDS)
    )
    where = (request.url.host, request.url.port)
    with shared.stream(MODEL, **FIELDS) as occupied, closing(create_connection(where)) as client:
        # Sent while the slot is taken, so that it is certain to be unanswered when it is closed.
        assert next(occupied)
        client.sendall(_raw(request))
    assert_free(shared)


@pytest.mark.usefixtures("one_slot")
def test_reader_that_stops_reading(shared: Daemon) -> None:
    """Its stream fills every buffer on the way; others are served all the while."""
    second = shared.create(MODEL, concurrency=1)
    request = shared.http.build_request(
        "POST", "/v1/chat/completions", json=chat_body(MODEL, "Hello", stream=True, **FIELDS)
    )
    with closing(create_connection((request.url.host, request.url.port))) as client:
        client.sendall(_raw(request))
        assert client.recv(1)
        for _ in range(3):
            assert_free(shared)
    shared.delete(second)
    assert_free(shared)


def _raw(request: httpx.Request) -> bytes:
    head = [f"{request.method} {request.url.path} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + request.content
