"""Who may use which route, with what key."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from exo.api.access import Access, Doors
from exo.api.app import ROUTES, make_app
from exo.api.context import Context
from exo.api.image_store import ImageStore
from exo.api.meters import Meters
from exo.api.response_archive import ResponseArchive
from exo.api.response_store import ResponseStore
from exo.api.routes import Route
from exo.cluster.commands import Command, decide
from exo.cluster.keys import make_key
from exo.cluster.remote import Report
from exo.cluster.state import ClusterState, Scope
from exo.cluster.tracing import Tracing
from exo.models.card import ModelCard, Task
from tests.cluster.factory import card, fold

from .stub import StubNode, StubSecurity

NOW = "2026-01-01T00:00:00+00:00"
LOCAL = "sk-exo-local-abc"
REQUIRED = Doors(keys_required=True, local_key=LOCAL, beyond_loopback=True)
OPEN = Doors(local_key=LOCAL)


class KeyNode(StubNode):
    """Carries out what is asked of the master, and remembers what was observed."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[Report] = []

    async def submit(self, command: Command) -> ClusterState:
        for event in decide(self.state, command, (), NOW):
            self.state = fold(event, state=self.state)
        return self.state

    def observe(self, report: Report) -> None:
        self.reports.append(report)


class Cards:
    """A catalogue and what serves, of two models: nothing of them can be placed."""

    cards = (card("tiny"), card("large", aliases=("big",)))

    async def here(self) -> list[ModelCard]:
        return list(self.cards)

    async def card(self, name: str) -> ModelCard:
        return next(each for each in self.cards if each.is_called(name))

    async def card_for(self, name: str, _: Task) -> ModelCard:
        return await self.card(name)


@dataclass
class Door:
    """The API, and a key of each kind."""

    client: TestClient[Any, Any]
    node: KeyNode
    admin: str
    user: str

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: object = None
    ) -> tuple[int, Any]:
        async with self.client.request(method, path, headers=headers, json=body) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else None

    async def status(self, route: Route, headers: Mapping[str, str]) -> int:
        return (await self.ask(route.method, path_of(route), headers))[0]


@asynccontextmanager
async def door(folder: Path, doors: Doors) -> AsyncIterator[Door]:
    node = KeyNode()
    texts: list[str] = []
    for scope in (Scope.ADMIN, Scope.INFERENCE):
        made = make_key(scope.value, scope, NOW)
        node.state = node.state.model_copy(
            update={"keys": {**node.state.keys, made.key.key_id: made.key}}
        )
        texts.append(made.text)
    meters = Meters()
    context = Context(
        node=cast("Any", node),
        catalogue=cast("Any", Cards()),
        serving=cast("Any", Cards()),
        security=cast("Any", StubSecurity()),
        images=ImageStore(folder / "images", 2**20),
        responses=ResponseArchive(cast("Any", node), ResponseStore(folder / "responses", 2**20)),
        tracing=Tracing(cast("Any", node.network), meters),
        meters=meters,
        doors=doors,
    )
    app = make_app(context, host="127.0.0.1", max_body=2**20)
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        yield Door(client, node, *texts)


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Door]:
    async with door(tmp_path, REQUIRED) as made:
        yield made


@pytest.fixture
async def free(tmp_path: Path) -> AsyncIterator[Door]:
    async with door(tmp_path, OPEN) as made:
        yield made


def path_of(route: Route) -> str:
    return re.sub(r"\{[^}]*(\{[^}]*\})?[^}]*\}", "x", route.path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_what_needs_no_key_is_named_here():
    found = {(route.method, route.path) for route in ROUTES if route.access is Access.OPEN}
    assert found == {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/images/{image_id}")}


def test_what_an_inference_key_is_good_for_is_named_here():
    found = {route.path for route in ROUTES if route.access is Access.INFERENCE}
    rooms = ("/v1/", "/api/", "/bench/", "/tokenize", "/detokenize", "/models")
    assert all(path.startswith(rooms) for path in found), found
    assert {"/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/images/edits"} <= found


@pytest.mark.parametrize("wrong", [None, "none", "sk-exo-aaaaaaaa-bbbb"])
async def test_every_route_takes_a_key(locked: Door, wrong: str | None):
    headers = bearer(wrong) if wrong else {}
    for route in ROUTES:
        status = await locked.status(route, headers)
        assert (status == 401) is (route.access is not Access.OPEN), (route.path, status)


async def test_every_route_of_the_cluster_takes_an_admin_key(locked: Door):
    for route in ROUTES:
        if route.access is Access.ADMIN:
            assert await locked.status(route, bearer(locked.user)) == 403, route.path


async def test_what_is_no_route_is_not_told_without_a_key(locked: Door):
    for method, path in [("GET", "/nothing"), ("PUT", "/v1/models"), ("GET", "/openapi.json")]:
        assert (await locked.ask(method, path, {}))[0] == 401
    assert (await locked.ask("GET", "/nothing", bearer(locked.user)))[0] == 404
    assert (await locked.ask("PUT", "/v1/models", bearer(locked.user)))[0] == 405
    assert (await locked.ask("GET", "/openapi.json", bearer(locked.user)))[0] == 200


async def test_a_key_may_come_as_each_client_sends_it(locked: Door):
    for headers in [
        bearer(locked.user),
        {"Authorization": f"bearer  {locked.user}"},
        {"x-api-key": locked.user},
    ]:
        assert (await locked.ask("GET", "/v1/models", headers))[0] == 200
    for headers in [
        {"Authorization": locked.user},
        {"Authorization": f"Basic {locked.user}"},
        {"Authorization": "Bearer "},
    ]:
        assert (await locked.ask("GET", "/v1/models", headers))[0] == 401


async def test_a_refusal_has_the_shape_of_the_api_that_was_asked(locked: Door):
    async with locked.client.post("/v1/chat/completions", json={}) as response:
        error = (await response.json())["error"]
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")

    _, anthropic = await locked.ask("POST", "/v1/messages", {}, {})
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "authentication_error"

    _, ollama = await locked.ask("POST", "/api/chat", {}, {})
    assert ollama["error"].startswith("This API takes a key.")


async def test_this_devices_command_line_may_do_everything(locked: Door):
    assert (await locked.ask("GET", "/state", bearer(LOCAL)))[0] == 200
    assert (await locked.ask("GET", "/state", bearer(LOCAL[:-1])))[0] == 401


async def test_an_open_api_passes_over_words_that_are_no_keys(free: Door):
    for headers in [{}, bearer("none"), {"x-api-key": "sk-proj-1"}]:
        assert (await free.ask("GET", "/state", headers))[0] == 200


async def test_a_key_is_taken_at_its_word_on_an_open_api_too(free: Door):
    assert (await free.ask("GET", "/state", bearer(free.user)))[0] == 403
    assert (await free.ask("GET", "/v1/models", bearer(f"{free.user}a")))[0] == 401


async def test_the_life_of_a_key(locked: Door):
    asked = {"name": "app", "models": ["tiny"], "rate": 60}
    status, made = await locked.ask("POST", "/keys", bearer(locked.admin), asked)
    assert status == 200
    key = bearer(made["key"])
    assert (await locked.ask("GET", "/v1/models", key))[0] == 200

    _, listed = await locked.ask("GET", "/keys", bearer(locked.admin))
    [mine] = [each for each in listed["data"] if each["name"] == "app"]
    assert mine == {name: value for name, value in made.items() if name != "key"}
    assert (mine["scope"], mine["models"], mine["rate"]) == ("inference", ["tiny"], 60)

    assert (await locked.ask("DELETE", "/keys/app", bearer(locked.admin)))[0] == 200
    assert (await locked.ask("GET", "/v1/models", key))[0] == 401
    assert (await locked.ask("DELETE", "/keys/app", bearer(locked.admin)))[0] == 404


async def test_a_new_key_is_kept_by_no_cache(locked: Door):
    headers = bearer(locked.admin)
    async with locked.client.post("/keys", json={}, headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rate": 0}, "rate"),
        ({"scope": "root"}, "scope"),
        ({"name": "a\nb"}, "name"),
        ({"scope": "admin", "models": ["tiny"]}, "models"),
        ({"name": "admin"}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_key_that_cannot_be(locked: Door, body: object, param: str):
    status, answer = await locked.ask("POST", "/keys", bearer(locked.admin), body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_the_state_and_its_json_show_no_hashes(locked: Door):
    _, state = await locked.ask("GET", "/state", bearer(locked.admin))
    assert state["access"] == {"keys_required": True, "keys": 2, "note": None}
    text = str(state)
    for key in locked.node.state.keys.values():
        assert key.hashed_secret not in text


async def test_who_uses_a_key_is_told_to_the_cluster_once(locked: Door):
    for _ in range(3):
        await locked.ask("GET", "/v1/models", bearer(locked.user))
    [report] = locked.node.reports
    assert list(report.keys_used) == [locked.user.split("-")[2]]


async def test_a_key_for_some_models_sees_and_uses_no_others(locked: Door):
    asked = {"name": "app", "models": ["big"]}
    key = bearer((await locked.ask("POST", "/keys", bearer(locked.admin), asked))[1]["key"])

    for path, many in [("/v1/models", "data"), ("/models", "data"), ("/api/tags", "models")]:
        _, found = await locked.ask("GET", path, key)
        assert [each.get("id") or each["name"] for each in found[many]] == ["large"], path
    assert (await locked.ask("GET", "/v1/models/large", key))[0] == 200
    for method, path, body in [
        ("GET", "/v1/models/tiny", None),
        ("POST", "/api/show", {"model": "tiny"}),
        ("POST", "/v1/completions", {"model": "tiny", "prompt": "a"}),
        ("POST", "/api/generate", {"model": "tiny", "prompt": "a"}),
        ("POST", "/tokenize", {"model": "tiny", "prompt": "a"}),
        (
            "POST",
            "/v1/chat/completions",
            {"model": "tiny", "messages": [{"role": "user", "content": "a"}]},
        ),
        (
            "POST",
            "/v1/messages",
            {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]},
        ),
        ("POST", "/v1/images/generations", {"model": "tiny", "prompt": "a"}),
    ]:
        status, answer = await locked.ask(method, path, key, body)
        assert status == 403, (path, answer)
        assert "is not for tiny" in str(answer), path


async def test_a_folder_is_named_by_an_admin_only(locked: Door):
    for name in ["/models/tiny", "~/tiny", "./tiny", "../tiny"]:
        body = {"model": name, "prompt": "a"}
        status, answer = await locked.ask("POST", "/v1/completions", bearer(locked.user), body)
        assert (status, answer["error"]["code"]) == (403, "model_not_allowed")
    assert (await locked.ask("GET", "/v1/models/%2Fetc", bearer(locked.user)))[0] == 403


async def test_a_rate_is_kept_and_the_answer_says_when_to_come_back(locked: Door):
    made = (await locked.ask("POST", "/keys", bearer(locked.admin), {"rate": 2}))[1]
    key = bearer(made["key"])
    for _ in range(2):
        assert (await locked.ask("POST", "/v1/completions", key, {}))[0] == 400
    async with locked.client.post("/v1/completions", json={}, headers=key) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) in range(1, 31)
        error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "2 times a minute" in error["message"]
    assert (await locked.ask("GET", "/v1/models", key))[0] == 200, "looking is free"
    path = "/v1/requests/x/cancel"
    locked.node.state = locked.node.state.model_copy(update={"nodes": {}})
    assert (await locked.ask("POST", path, key))[0] == 404, "and so is cancelling"
    assert (await locked.ask("POST", "/v1/completions", bearer(locked.user), {}))[0] == 400


async def test_an_open_api_gives_keys_to_its_own_device_only(
    free: Door, monkeypatch: pytest.MonkeyPatch
):
    assert (await free.ask("POST", "/keys", {}, {}))[0] == 200
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "10.0.0.9")
    for method, path in [("POST", "/keys"), ("GET", "/keys"), ("DELETE", "/keys/admin")]:
        assert (await free.ask(method, path, {}, {}))[0] == 403
        assert (await free.ask(method, path, bearer(free.admin), {}))[0] == 200


def test_a_local_key_is_not_shown():
    assert LOCAL not in repr(REQUIRED)
