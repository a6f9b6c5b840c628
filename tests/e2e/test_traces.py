"""Names, traces and metrics of requests to the real daemon, and logs that have no prompts."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartDaemon

from .daemon import DONE, Daemon, Json, chat_body
from .endless import FIELDS, MODEL

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
SECRET = "xylophone-4711"


@pytest.fixture(scope="module")
def instance(shared: Daemon) -> Iterator[Json]:
    made = shared.create("tiny")
    yield made
    shared.delete(made)


def trace_of(daemon: Daemon, name: str) -> Json:
    return daemon.get(f"/v1/requests/{name}/trace")


def sample(daemon: Daemon, name: str, **labels: str) -> float:
    text = daemon.http.get("/metrics").text
    return sum(
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    )


def test_a_trace_of_an_answer(shared: Daemon, instance: Json) -> None:
    body = chat_body("tiny", "Hello", max_tokens=4, **FIELDS)
    response = shared.http.post(CHAT, json=body, headers={"x-request-id": "trace-1"})
    assert response.headers["x-request-id"] == "trace-1"
    answer = response.json()
    trace = trace_of(shared, "trace-1")
    assert (trace["status"], trace["route"]) == (200, CHAT)
    (found,) = trace["generations"]
    assert found["generation_id"] == answer["id"]
    # Other tests may have had the model placed as well.
    assert found["instance_id"] in shared.get("/state")["instances"]
    assert found["node_id"] == trace["node_id"] == shared.status["node_id"]
    assert found["outcome"] == "finished"
    assert found["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert found["generated_tokens"] == 4
    times = [found[name] for name in ("sent", "accepted", "first_token", "ended")]
    assert times == sorted(times)
    assert times[-1] <= trace["seconds"]
    (stage,) = found["stages"]
    assert stage["end_layer"] == instance["shards"][0]["end_layer"]
    assert stage["decode"] > 0
    assert 0 <= stage["prefill"] <= found["prefill"]
    assert trace_of(shared, answer["id"]) == trace


def test_a_stream_has_a_name_and_a_trace_while_it_goes_on(shared: Daemon) -> None:
    endless = shared.create(MODEL)
    body = chat_body(MODEL, "Hello", stream=True, **FIELDS)
    with shared.http.stream("POST", CHAT, json=body) as response:
        name = response.headers["x-request-id"]
        lines = response.iter_lines()
        while "content" not in (line := next(lines)) or '"content":""' in line:
            pass
        trace = trace_of(shared, name)
        (found,) = trace["generations"]
        assert (trace["status"], found["outcome"], found["ended"]) == (None, "open", None)
        assert found["first_token"] > 0
        assert sample(shared, "exo_http_requests_in_progress") == 2
    shared.delete(endless)  # The slot is free when the daemon has seen the client go.
    shared.text("tiny", max_tokens=1)
    (found,) = trace_of(shared, name)["generations"]
    assert found["outcome"] == "cancelled"


def test_pieces_of_a_stream_are_counted(shared: Daemon, instance: Json) -> None:
    before = sample(shared, "exo_generated_tokens_total", model="tiny")
    gaps = sample(shared, "exo_inter_token_seconds_count", model="tiny")
    with shared.stream("tiny", max_tokens=5, **FIELDS) as lines:
        assert list(lines)[-1] == DONE
    assert sample(shared, "exo_generated_tokens_total", model="tiny") == before + 5
    assert sample(shared, "exo_inter_token_seconds_count", model="tiny") == gaps + 4
    assert sample(shared, "exo_time_to_first_token_seconds_count", model="tiny") > 0
    assert sample(shared, "exo_http_requests_total", route=CHAT, status="200") > 0
    assert sample(shared, "exo_kv_cache_capacity_bytes", model="tiny") > 0
    assert sample(shared, "exo_instances", status="ready") > 0
    assert sample(shared, "exo_sequences_running", model="tiny") == 0


def test_a_refused_request_has_a_trace_without_a_generation(shared: Daemon) -> None:
    response = shared.http.post(CHAT, json=chat_body("tiny", "Hello", max_tokens=0))
    assert response.status_code == 400
    trace = trace_of(shared, response.headers["x-request-id"])
    assert (trace["status"], trace["generations"]) == (400, [])


def test_tokenizing_is_no_generation(shared: Daemon, instance: Json) -> None:
    response = shared.http.post("/tokenize", json={"model": "tiny", "prompt": "Hello"})
    assert response.status_code == 200
    assert trace_of(shared, response.headers["x-request-id"])["generations"] == []


def ask_every_way(http: httpx.Client, text: str) -> list[httpx.Response]:
    """The same through every API of text, whole and streamed."""
    message = [{"role": "user", "content": text}]
    given: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"messages": message}),
        ("/v1/completions", {"prompt": text}),
        ("/v1/messages", {"messages": message}),
        ("/api/chat", {"messages": message, "options": {"num_predict": 4}}),
        ("/api/generate", {"prompt": text, "options": {"num_predict": 4}}),
    ]
    found: list[httpx.Response] = []
    for path, body in given:
        limit = {} if path.startswith("/api") else {"max_tokens": 4}
        for stream in (False, True):
            fields = {"model": "tiny", "stream": stream, **limit, **body}
            found.append(http.post(path, json=fields))
    return found


@pytest.fixture
def blabbing(start: StartDaemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Its runners quote prompts wherever they can, and everything is logged."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return start(engine="tests.fakes.blabber:Blabber", log_level="debug", spare_runners=1)


def test_no_log_has_a_prompt_whatever_fails(blabbing: Daemon) -> None:
    http = blabbing.http
    instance = blabbing.create("tiny")
    for response in ask_every_way(http, f"{SECRET} end"):
        assert response.status_code == 200, response.text
    named = {"x-request-id": "named"}
    spoilt = [
        http.post(CHAT, json={"model": "tiny", "messages": SECRET}),
        http.post(CHAT, json={"model": "tiny", SECRET: 1, "messages": []}),
        http.post(CHAT, content=f'{{"model": "tiny", "messages": [{SECRET}]}}'),
        http.post(f"/v1/{SECRET}", json={}),
        http.get(f"/v1/requests/{SECRET}/trace"),
        http.post(CHAT, json=chat_body("tiny", f"tokeniser {SECRET}"), headers=named),
        *ask_every_way(http, f"tokeniser {SECRET}"),
    ]
    assert all(response.is_error for response in spoilt)
    ends = chat_body("tiny", f"{SECRET} fail", max_tokens=9)
    assert http.post(CHAT, json=ends).status_code == 500
    blabbing.delete(instance)
    blabbing.create("tiny")
    crashes = chat_body("tiny", f"{SECRET} bug", max_tokens=9)
    assert http.post(CHAT, json=crashes).status_code == 500
    assert SECRET not in json.dumps([blabbing.events(), blabbing.get("/state")])
    blabbing.stop()
    logs = [path for path in blabbing.home.rglob("*.log*") if path.is_file()]
    text = "\n".join(path.read_text("utf-8") for path in logs)
    text += (blabbing.home.parent / f"{blabbing.home.name}.out").read_text("utf-8")
    assert SECRET not in text
    assert "[named]: Messages could not be tokenised." in text
    assert "[named]: POST /v1/chat/completions: 500 in " in text
    for kind in ("KeyError", "RuntimeError", "ZeroDivisionError"):
        assert kind in text, f"{kind} was not logged at all"
