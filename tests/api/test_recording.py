"""Names, traces and counts of requests, over the stub of a node."""

import logging
from typing import Any

import pytest

from exo.api.meters import Meters
from exo.cluster.tracing import TRACE, Tracing

from .conftest import Served
from .stub import StubNetwork, peer_link

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("header", ["x-request-id", "X-Client-Request-Id"])
async def test_a_request_is_called_what_its_client_calls_it(served: Served, header: str):
    async with served.client.get("/healthz", headers={header: "mine-1.2:3"}) as response:
        assert response.headers["x-request-id"] == "mine-1.2:3"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "-first", "a\tb", "ö", '"'])
async def test_a_name_that_does_not_belong_into_a_log_is_not_taken_over(served: Served, given: str):
    async with served.client.get("/healthz", headers={"x-request-id": given}) as response:
        name = response.headers["x-request-id"]
    assert name.startswith("req_")
    assert len(name) == 28


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("POST", CHAT, 400),
        ("PATCH", "/v1/requests/x/trace", 405),
        ("GET", "/v1/requests/x/trace", 404),
    ],
)
async def test_every_answer_names_its_request(served: Served, method: str, path: str, status: int):
    async with served.client.request(method, path) as response:
        assert response.status == status
        assert response.headers["x-request-id"].startswith("req_")
        assert "request-id" not in response.headers


async def test_anthropics_clients_look_elsewhere(served: Served):
    async with served.client.post("/v1/messages", json={}) as response:
        assert response.status == 400
        assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_a_host_that_is_refused_is_told_the_name_too(served: Served):
    async with served.client.get("/healthz", headers={"Host": "evil.example"}) as response:
        assert response.status == 403
        assert response.headers["x-request-id"]


async def test_a_request_that_failed_has_a_trace(served: Served):
    await named(served, "POST", CHAT, "one")
    trace = await served.get("/v1/requests/one/trace")
    assert (trace["id"], trace["method"], trace["route"]) == ("one", "POST", CHAT)
    assert (trace["status"], trace["node_id"], trace["generations"]) == (400, "a", [])
    assert trace["seconds"] > 0


async def test_what_only_reads_leaves_no_trace(served: Served):
    await named(served, "GET", "/state", "one")
    async with served.client.get("/v1/requests/one/trace") as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert (error["code"], error["param"]) == ("not_found", "request_id")


async def test_a_trace_is_found_on_the_node_that_the_request_came_in_at(served: Served):
    other = Tracing(_network("b"), Meters())
    other.keep(other.begin("far", "POST", CHAT))
    served.node.network.up = [peer_link("gone"), peer_link("b")]

    async def asked(method: str, body: Any) -> Any:
        assert method == TRACE
        return await other._network.services.requests[TRACE]("a", body)

    served.node.network.known["b"] = asked
    assert (await served.get("/v1/requests/far/trace"))["node_id"] == "b"
    async with served.client.get("/v1/requests/farther/trace") as response:
        assert response.status == 404


async def test_lines_of_the_log_name_the_request_and_no_path_of_a_client(
    served: Served, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    await named(served, "POST", CHAT, "one")
    await named(served, "POST", "/v1/secret-words", "two")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("exo")]
    assert any(line.startswith(f"POST {CHAT}: 400 in ") for line in lines)
    assert any(line.startswith("POST none: 404 in ") for line in lines)
    assert not any("secret-words" in line for line in lines)


async def test_an_error_that_nobody_foresaw_is_answered_and_logged(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def bug() -> None:
        raise ValueError("secret words")

    monkeypatch.setattr(served.node, "memory_of", lambda _: bug())
    async with served.client.get("/state", headers={"x-request-id": "one"}) as response:
        assert response.status == 500
        assert "secret words" not in await response.text()
        assert response.headers["x-request-id"] == "one"
    assert any(record.exc_info for record in caplog.records)


def _network(peer_id: str) -> Any:
    return StubNetwork(peer_id=peer_id)


async def named(served: Served, method: str, path: str, name: str) -> None:
    headers = {"x-request-id": name}
    async with served.client.request(method, path, headers=headers) as response:
        assert response.headers["x-request-id"] == name
        assert isinstance(response.status, int)
