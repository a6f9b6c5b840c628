"""The log of events: read in parts, followed, and the same after a restart."""

import json
from typing import Any

import pytest

from tests.conftest import StartDaemon

from .daemon import Daemon, Json, sse_data

pytestmark = pytest.mark.e2e


@pytest.fixture
def history(shared: Daemon) -> list[Json]:
    """A log with several instances in it."""
    for _ in range(2):
        shared.delete(shared.create("tiny"))
    return shared.events()


def test_every_event_says_when_and_in_which_term(shared: Daemon, history: list[Json]) -> None:
    assert [event["index"] for event in history] == list(range(1, len(history) + 1))
    assert {event["term"]["master_id"] for event in history} == {shared.status["node_id"]}
    times = [event["time"] for event in history]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)
    assert history[-1]["index"] == shared.get("/state")["index"]


def test_the_life_of_an_instance(shared: Daemon) -> None:
    index = shared.get("/state")["index"]
    instance = shared.create("tiny")
    shared.delete(instance)
    mine: list[Json] = []
    statuses: list[str] = []
    for event in shared.events(since=index):
        runner = event.get("runner") or {}
        if runner.get("instance_id") == instance["instance_id"]:
            statuses.append(runner["status"])
        else:
            mine.append(event)
    assert [event["type"] for event in mine] == ["InstanceCreated", "InstanceDeleted"]
    assert mine[0]["instance"]["instance_id"] == instance["instance_id"]
    assert mine[0]["command_id"]
    assert mine[1]["instance_id"] == instance["instance_id"]
    order = ["starting", "loading", "warming", "ready"]
    assert sorted(set(statuses), key=order.index) == order
    assert statuses == sorted(statuses, key=order.index)


@pytest.mark.usefixtures("history")
def test_since_and_limit(shared: Daemon) -> None:
    everything = shared.events()
    assert shared.events(since=2) == everything[2:]
    assert shared.events(limit=3) == everything[:3]
    assert shared.events(since=1, limit=2) == everything[1:3]
    assert shared.events(since=everything[-1]["index"]) == []
    assert shared.events(since=10**9) == []


def follow(daemon: Daemon, count: int, **query: Any) -> list[str]:
    """The first lines of a followed log, of `count` events."""
    lines: list[str] = []
    with daemon.http.stream("GET", "/events", params={"follow": "true", **query}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            lines.append(line)
            count -= line == ""
            if not count:
                break
    return lines


def test_follow_replays_with_ids(shared: Daemon, history: list[Json]) -> None:
    lines = follow(shared, len(history))
    ids = [line for line in lines if line.startswith("id: ")]
    assert ids == [f"id: {event['index']}" for event in history]
    assert [json.loads(data) for data in sse_data(lines)] == history


def test_follow_from_the_middle(shared: Daemon, history: list[Json]) -> None:
    lines = follow(shared, 2, since=3)
    assert [json.loads(data) for data in sse_data(lines)] == history[3:5]


def test_follow_goes_on_with_what_happens(shared: Daemon) -> None:
    since = shared.get("/state")["index"]
    with shared.http.stream("GET", "/events", params={"follow": "true", "since": since}) as stream:
        created = shared.post("/instance", {"instance": {"model_id": "tiny"}})
        event = json.loads(next(sse_data(stream.iter_lines())))
    assert event["index"] == since + 1
    assert event["type"] == "InstanceCreated"
    assert event["command_id"] == created["command_id"]
    shared.delete(created)


def test_the_log_goes_on_after_a_restart(start: StartDaemon) -> None:
    daemon = start()
    daemon.create("tiny")
    before, term = daemon.events(), daemon.status["term"]
    daemon.stop()
    daemon = start()
    after = daemon.events()
    assert after[: len(before)] == before
    assert [event["type"] for event in after[len(before) :]][:2] == ["MasterElected", "NodeJoined"]
    assert daemon.status["term"] == {**term, "number": term["number"] + 1}


def test_no_prompt_and_no_answer_is_kept(start: StartDaemon) -> None:
    """Neither in the log of events nor in the log file nor in the state on disk."""
    daemon = start(log_level="debug")
    secret = "xylophone-4711"
    answer = daemon.text("exo-demo", f"Repeat this word: {secret}", max_tokens=20)
    with daemon.stream("exo-demo", secret, max_tokens=20) as lines:
        assert list(lines)
    assert secret not in json.dumps(daemon.events())
    daemon.stop()
    for file in [path for path in daemon.home.rglob("*") if path.is_file()]:
        content = file.read_bytes()
        assert secret.encode() not in content, file
        assert len(answer) < 8 or answer.encode() not in content, file
