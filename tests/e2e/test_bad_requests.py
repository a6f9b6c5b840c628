"""What a client may send wrong: each a clear error in OpenAI's shape, and the daemon goes on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .daemon import Daemon, chat_body, error_of

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def _goes_on(shared: Daemon) -> Iterator[None]:
    yield
    assert shared.chat("tiny", max_tokens=1)["choices"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "tiny", "messages": [}',
        b"null",
        b"[]",
        b'"tiny"',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "broken", "null", "list", "string", "bytes", "deep", "digits"],
)
@pytest.mark.parametrize("path", [CHAT, "/bench/chat/completions", "/instance", "/place_instance"])
def test_malformed_json(shared: Daemon, path: str, body: bytes) -> None:
    error = error_of(shared.http.post(path, content=body), 400, "invalid_request")
    assert "JSON" in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 5),
        ("model", None),
        ("model", ""),
        ("messages", "Hello"),
        ("messages", None),
        ("messages", []),
        ("messages", [5]),
        ("messages", [{"role": "wizard", "content": "Hello"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("messages", [{"role": "user", "content": []}]),
        ("messages", [{"role": "assistant"}]),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", "many"),
        ("max_tokens", 1.5),
        ("max_tokens", "5"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "0.5"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.1),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("seed", "dice"),
        ("seed", 2**64),
        ("stop", ""),
        ("stop", ["fine", ""]),
        ("stop", 5),
        ("stream", "yes"),
        ("top_logprobs", 3),
        ("logprobs", 1),
        ("presence_penalty", 3),
        ("logit_bias", {"hello": 1}),
        ("logit_bias", {"100000": 1}),
        ("logit_bias", {"9" * 5000: 1}),
        ("logit_bias", {"5": 101}),
        ("stream_options", {"include_usage": True}),
        ("user", 5),
        ("metadata", {"key": {}}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wrong_value_names_its_field(shared: Daemon, field: str, value: Any) -> None:
    body = {"model": "tiny", "messages": HELLO, field: value}
    error = error_of(shared.http.post(CHAT, json=body), 400, "invalid_request")
    assert field in error["message"]
    assert (error["param"] or field).split(".")[0] == field


@pytest.mark.parametrize("body", [("\ud800", "Hello"), ("tiny", "\ud800")])
def test_half_a_character(shared: Daemon, body: tuple[str, str]) -> None:
    """A lone surrogate, which JSON can spell and UTF-8 cannot."""
    response = shared.http.post(CHAT, content=json.dumps(chat_body(*body)))
    error_of(response, 400, "invalid_request")


@pytest.mark.parametrize("field", ["model", "messages"])
def test_missing_field(shared: Daemon, field: str) -> None:
    body = {"model": "tiny", "messages": HELLO}
    del body[field]
    error = error_of(shared.http.post(CHAT, json=body), 400, "invalid_request")
    assert error["param"] == field


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have(shared: Daemon, number: str) -> None:
    body = json.dumps({"model": "tiny", "messages": HELLO})[:-1] + f', "temperature": {number}}}'
    error_of(shared.http.post(CHAT, content=body), 400, "invalid_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "clock"}]),
        ("modalities", ["text", "audio"]),
        ("store", True),
        ("best_of", 2),
        ("colour", "blue"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(shared: Daemon, field: str, value: Any) -> None:
    body = chat_body("tiny", "Hello", **{field: value})
    error = error_of(shared.http.post(CHAT, json=body), 400, "unsupported_parameter")
    assert error["param"] == field
    assert field in error["message"]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [{"type": "function", "function": {"name": "clock"}}], "tools"),
        ("reasoning_effort", "high", "reasoning_effort"),
        ("enable_thinking", False, "enable_thinking"),
        ("chat_template_kwargs", {"colour": "blue"}, "chat_template_kwargs"),
    ],
)
def test_what_this_model_cannot_do(shared: Daemon, field: str, value: Any, param: str) -> None:
    body = chat_body("tiny", "Hello", **{field: value})
    error = error_of(shared.http.post(CHAT, json=body), 400, "invalid_request")
    assert error["param"] == param


def test_what_asks_for_nothing_is_let_through(shared: Daemon) -> None:
    harmless = {"tools": [], "response_format": {"type": "text"}, "n": None, "store": False}
    assert shared.chat("tiny", max_tokens=1, **harmless)["choices"]


def test_pictures_are_refused(shared: Daemon) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "tiny", "messages": [{"role": "user", "content": [part]}]}
    error = error_of(shared.http.post(CHAT, json=body), 400, "unsupported_parameter")
    assert "image_url" in error["message"]


def test_what_the_chat_template_refuses(shared: Daemon) -> None:
    call = {"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "tool_calls": [call]}
    messages = [*HELLO, asked, {"role": "tool", "content": "4", "tool_call_id": ""}]
    response = shared.http.post(CHAT, json={"model": "tiny", "messages": messages})
    error = error_of(response, 400, "invalid_request")
    assert "a tool message needs its call" in error["message"]
    assert error["param"] == "messages"


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model_gets_the_nearest_names(shared: Daemon, stream: bool) -> None:
    body = chat_body("exo-dmeo", "Hello", stream=stream)
    error = error_of(shared.http.post(CHAT, json=body), 404, "model_not_found")
    assert "exo-demo" in error["message"]
    assert error["param"] == "model"


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "~no-such-user/model", "/" + "a" * 5000, "/tmp/\0", "../tiny", "tiny/.."],  # noqa: S108
    ids=lambda name: repr(name)[:30],
)
def test_names_that_are_no_folder(shared: Daemon, name: str) -> None:
    error_of(shared.http.post(CHAT, json=chat_body(name, "Hello")), 404, "model_not_found")
    response = shared.http.post("/instance", json={"instance": {"model_id": name}})
    error_of(response, 404, "model_not_found")


def test_weights_that_are_not_here(shared: Daemon) -> None:
    response = shared.http.post(CHAT, json=chat_body("llama-3.2-1b", "Hello"))
    error = error_of(response, 404, "model_not_found")
    assert "weights" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_context_that_does_not_fit_comes_with_the_numbers(shared: Daemon, stream: bool) -> None:
    long = chat_body("tiny", "word " * 5000, stream=stream)
    message = error_of(shared.http.post(CHAT, json=long), 400, "context_length_exceeded")["message"]
    assert "2048" in message
    wanted = chat_body("tiny", "Hello", max_tokens=2048, stream=stream)
    response = shared.http.post(CHAT, json=wanted)
    error = error_of(response, 400, "context_length_exceeded")
    prompt = shared.chat("tiny", "Hello", max_tokens=1)["usage"]["prompt_tokens"]
    assert {"2048", str(prompt + 2048), str(prompt)} <= set(_numbers(error["message"]))
    assert shared.chat("tiny", "Hello", max_tokens=2048 - prompt)["usage"]["total_tokens"] <= 2048


def test_tokens_beyond_all_reason(shared: Daemon) -> None:
    body = chat_body("tiny", "Hello", max_tokens=10**30)
    error_of(shared.http.post(CHAT, json=body), 400, "context_length_exceeded")


@pytest.mark.parametrize("path", [CHAT, "/instance", "/place_instance"])
@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit(shared: Daemon, path: str, announced: bool) -> None:
    body = b" " * (2 * 2**20)
    response = shared.http.post(path, content=body if announced else _in_pieces(body))
    assert "1 MiB" in error_of(response, 413, "body_too_large")["message"]


def test_large_body_within_the_limit(shared: Daemon) -> None:
    body = json.dumps(chat_body("tiny", "Hello", max_tokens=1)).ljust(2**20 - 1)
    assert shared.http.post(CHAT, content=body).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example:52415"}, False),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Host": ""}, False),
        ({"Host": "localhost:1234"}, True),
        ({"Host": "[::1]:1234"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:3000"}, True),
        ({"Origin": "http://localhost:3000"}, True),
    ],
)
@pytest.mark.parametrize("path", ["/state", "/healthz", "/openapi.json", "/nothing"])
def test_other_sites_are_refused(
    shared: Daemon, path: str, headers: dict[str, str], allowed: bool
) -> None:
    response = shared.http.get(path, headers=headers)
    if allowed:
        assert response.status_code == (404 if path == "/nothing" else 200)
    else:
        error_of(response, 403, "forbidden")


def test_no_cors_headers(shared: Daemon) -> None:
    response = shared.http.get("/state", headers={"Origin": "http://localhost:3000"})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_unknown_paths_and_methods(shared: Daemon) -> None:
    error_of(shared.http.get("/v2/everything"), 404, "not_found")
    response = shared.http.put("/state", content=b"{}")
    error_of(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET,HEAD" or "GET" in response.headers["Allow"]


@pytest.mark.parametrize("prefix", ["/v1", "/bench"])
def test_a_model_for_text_draws_nothing(shared: Daemon, prefix: str) -> None:
    """It is refused by name, and not loaded for that."""
    placed = shared.get("/instance")["data"]
    fields = {"prompt": "A cat", "model": "tiny"}
    for response in (
        shared.http.post(f"{prefix}/images/generations", json=fields),
        shared.http.post(f"{prefix}/images/edits", data=fields, files={"image": b"x"}),
    ):
        error = error_of(response, 400, "invalid_request")
        assert error["param"] == "model"
        assert "makes no images" in error["message"]
    assert shared.get("/instance")["data"] == placed


def test_requests_for_images_that_are_wrong(shared: Daemon) -> None:
    post = shared.http.post
    unknown = post("/v1/images/generations", json={"prompt": "A cat", "model": "nobody"})
    error_of(unknown, 404, "model_not_found")
    error_of(post("/v1/images/generations", content=b"{"), 400, "invalid_request")
    error_of(post("/v1/images/edits", json={"prompt": "A cat"}), 400, "invalid_request")
    large = {"image": b"x" * 2**21}
    error_of(post("/v1/images/edits", files=large), 413, "body_too_large")
    error_of(shared.http.get("/images/nothing"), 404, "not_found")
    assert shared.get("/images")["data"] == []


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/events", {"since": "soon"}, 400, "invalid_request"),
        ("/events", {"since": "-1"}, 400, "invalid_request"),
        ("/events", {"limit": "0"}, 400, "invalid_request"),
        ("/events", {"until": "5"}, 400, "unsupported_parameter"),
        ("/instance/placement", {}, 400, "invalid_request"),
        ("/instance/placement", {"model_id": "tinyy"}, 404, "model_not_found"),
        ("/instance/placement", {"model_id": "tiny", "sharding": "no"}, 400, "invalid_request"),
        ("/instance/placement", {"model_id": "tiny", "min_nodes": 2}, 400, "placement_impossible"),
        (
            "/instance/placement",
            {"model_id": "tiny", "context_length": 2049},
            400,
            "placement_impossible",
        ),
        ("/instance/previews", {}, 400, "invalid_request"),
        ("/instance/none-such", {}, 404, "instance_not_found"),
        ("/v1/models/tinyy", {}, 404, "model_not_found"),
    ],
)
def test_wrong_queries(
    shared: Daemon, path: str, query: dict[str, Any], status: int, code: str
) -> None:
    error_of(shared.http.get(path, params=query), status, code)


def test_events_from_a_number_beyond_all_reason(shared: Daemon) -> None:
    response = shared.http.get("/events", params={"since": 10**30})
    assert response.status_code in {200, 400}, response.text


def _numbers(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()


def _in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]
