"""Instances: placed by exo or as asked, placed at first use or not, kept over restarts."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import StartDaemon

from .daemon import Daemon, Json, chat_body, error_of, run_exo

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _clean(shared: Daemon) -> Iterator[None]:
    """No instance but the test's own."""
    _delete_all(shared)
    yield
    _delete_all(shared)


def _delete_all(daemon: Daemon) -> None:
    for instance in daemon.get("/instance")["data"]:
        daemon.delete(instance)


def placement_of(instance: Json) -> list[tuple[int, str, int, int, int]]:
    names = ("rank", "node_id", "start_layer", "end_layer", "memory")
    return [tuple(shard[name] for name in names) for shard in instance["shards"]]


def test_placement_is_the_same_whoever_asks_and_can_be_used(shared: Daemon) -> None:
    asked = {"model_id": "tiny", "context_length": 1024, "concurrency": 3}
    index = shared.get("/state")["index"]
    placement = shared.get("/instance/placement", **asked)
    assert shared.post("/place_instance", asked) == placement
    previews = shared.get("/instance/previews", model_id="tiny")
    possible = [preview for preview in previews if preview["error"] is None]
    assert possible
    assert all(preview["error"] for preview in previews if preview["instance"] is None)
    assert shared.get("/state")["index"] == index, "asking changes nothing"

    node_id = shared.status["node_id"]
    assert placement["shards"][0]["node_id"] == node_id
    assert placement["memory_by_node"] == {node_id: placement["shards"][0]["memory"]}
    body = {"instance": {"model_id": "tiny", "placement": placement}}
    instance = shared.post("/instance", body)
    assert placement_of(instance) == placement_of(placement)
    assert (instance["context_length"], instance["concurrency"]) == (1024, 3)
    shared.wait_ready(instance["instance_id"])
    long = chat_body("tiny", "Hello", max_tokens=1024)
    response = shared.http.post("/v1/chat/completions", json=long)
    error_of(response, 400, "context_length_exceeded")


def test_every_preview_that_is_possible_can_be_used(shared: Daemon) -> None:
    for preview in shared.get("/instance/previews", model_id="tiny"):
        body = {"instance": {"model_id": "tiny", "placement": preview["instance"] or {}}}
        if preview["instance"]:
            shared.delete(shared.post("/instance", body))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"node_id": "nobody"}, "nobody"),
        ({"start_layer": 1}, "layers 0 to 2"),
        ({"end_layer": 2}, "layers 0 to 2"),
        ({"end_layer": 4}, "layers 0 to 2"),
    ],
)
def test_placement_that_is_none(shared: Daemon, change: Json, told: str) -> None:
    placement = shared.get("/instance/placement", model_id="tiny")
    placement["shards"][0] |= change
    body = {"instance": {"model_id": "tiny", "placement": placement}}
    error = error_of(shared.http.post("/instance", json=body), 400, "placement_impossible")
    assert told in error["message"]


def test_model_larger_than_the_memory(start: StartDaemon) -> None:
    daemon = start(memory_fraction=1e-6)
    response = daemon.http.post("/instance", json={"instance": {"model_id": "tiny"}})
    error = error_of(response, 400, "placement_impossible")
    assert "GiB" in error["message"]
    assert daemon.get("/instance/previews", model_id="tiny")[0]["error"]


def test_created_instance_is_complete(shared: Daemon) -> None:
    created = shared.post("/instance", {"instance": {"model_id": "tiny"}})
    assert {"message", "command_id", "model_card"} <= set(created)
    assert created["model_card"]["id"] == "tiny"
    ready = shared.wait_ready(created["instance_id"])
    assert ready["status"] == "ready"
    [shard] = ready["shards"]
    assert (shard["start_layer"], shard["end_layer"]) == (0, 3)
    assert (shard["runner"]["done"], shard["runner"]["total"]) == (3, 3)
    assert shared.get("/instance")["data"] == [ready]
    assert shared.get("/state")["instances"] == {ready["instance_id"]: ready}


def test_deleted_instance_is_gone_with_its_runner(shared: Daemon) -> None:
    instance = shared.create("tiny")
    with shared.stream("tiny", max_tokens=2000, n=8) as lines:
        assert next(lines)
        shared.delete(instance)
        last = json.loads(list(lines)[-1])
    assert last["error"]["code"] == "runner_died"
    assert "deleted" in last["error"]["message"]
    response = shared.http.delete(f"/instance/{instance['instance_id']}")
    error_of(response, 404, "instance_not_found")


def test_same_command_twice_makes_one_instance(shared: Daemon) -> None:
    body, key = {"instance": {"model_id": "tiny"}}, {"Idempotency-Key": "create-once"}
    first = shared.http.post("/instance", json=body, headers=key).json()
    second = shared.http.post("/instance", json=body, headers=key).json()
    assert first["instance_id"] == second["instance_id"]
    assert len(shared.get("/instance")["data"]) == 1


def test_a_key_that_created_does_not_pretend_to_delete(shared: Daemon) -> None:
    body, key = {"instance": {"model_id": "tiny"}}, {"Idempotency-Key": "create-then-delete"}
    instance = shared.http.post("/instance", json=body, headers=key).json()
    path = f"/instance/{instance['instance_id']}"
    answer = shared.http.delete(path, headers=key)
    still_there = shared.http.get(path).status_code == 200
    assert (answer.status_code == 200) is not still_there


def test_first_use_places_the_model_once(shared: Daemon) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: shared.text("tiny", temperature=0), range(4)))
    assert len(set(answers)) == 1
    assert [i["model_id"] for i in shared.get("/instance")["data"]] == ["tiny"]


def test_without_auto_place(start: StartDaemon) -> None:
    daemon = start("--no-auto-place")
    response = daemon.http.post("/v1/chat/completions", json=chat_body("tiny", "Hello"))
    error = error_of(response, 404, "model_not_found")
    assert "exo instance create tiny" in error["message"]
    assert daemon.get("/instance")["data"] == []
    done = run_exo(daemon.home, "instance", "create", "tiny", "--json")
    assert json.loads(done.stdout)["status"] == "ready"
    assert daemon.chat("tiny", max_tokens=1)["choices"]


def test_names_of_one_model(shared: Daemon, models: Path) -> None:
    """An instance is found by each of its names, and loaded once."""
    for name in ("tiny", str(models / "tiny")):
        assert shared.chat(name, max_tokens=1)["model"] == "tiny"
    assert len(shared.get("/instance")["data"]) == 1


def test_two_instances_of_one_model_share_the_work(shared: Daemon) -> None:
    first, second = shared.create("tiny", concurrency=1), shared.create("tiny", concurrency=1)
    with shared.stream("tiny", max_tokens=2000) as one, shared.stream("tiny", max_tokens=3) as two:
        assert next(one)
        assert list(two)[-1] == "[DONE]"
    shared.delete(first)
    assert shared.chat("tiny", max_tokens=1)["choices"]
    shared.delete(second)


def test_queue_is_bounded(start: StartDaemon) -> None:
    daemon = start(max_queue=1)
    daemon.create("tiny-endless", concurrency=1)
    endless = {"logit_bias": {"2": -100}}
    with (
        daemon.stream("tiny-endless", **endless) as running,
        daemon.stream("tiny-endless", max_tokens=3) as waiting,
    ):
        assert next(running)
        assert next(waiting)
        response = daemon.http.post(
            "/v1/chat/completions", json=chat_body("tiny-endless", "Hello", max_tokens=3)
        )
        error = error_of(response, 429, "queue_full")
        assert error["type"] == "rate_limit_error"
        assert int(response.headers["Retry-After"]) > 0


def test_instances_survive_a_restart(start: StartDaemon) -> None:
    daemon = start()
    kept = [daemon.create("tiny", concurrency=2), daemon.create("tiny-4bit", context_length=600)]
    gone = daemon.create("tiny-indexed")
    answer = daemon.text("tiny", temperature=0, max_tokens=16)
    daemon.delete(gone)
    daemon.stop()
    daemon = start("--no-auto-place")
    same = ("instance_id", "model_id", "created_at", "concurrency", "context_length")
    for instance in kept:
        back = daemon.wait_ready(instance["instance_id"], since=daemon.status["index"])
        assert [back[name] for name in same] == [instance[name] for name in same]
    assert len(daemon.get("/instance")["data"]) == len(kept)
    assert daemon.text("tiny", temperature=0, max_tokens=16) == answer


def test_state_and_status(shared: Daemon) -> None:
    state = shared.get("/state")
    [node] = state["topology"]["nodes"]
    assert state["master_id"] == node["node_id"] == shared.get("/node_id")["node_id"]
    assert state["term"] == {"number": state["term"]["number"], "master_id": node["node_id"]}
    assert node["role"] == "master"
    assert f"http://{node['address']}" == shared.base_url
    assert 0 < node["memory"]["available"] <= node["memory"]["total"]
    assert min(node["device"]["flops"].values()) > 0
    assert node["device"]["memory_bandwidth"] > 0
    alone = {"name": "exo", "locked": False, "nodes": 1, "refused": {}, "warning": None}
    assert state["cluster"] == alone
    shown = json.loads(run_exo(shared.home, "status", "--json").stdout)
    mine = (shown["node_id"], shown["pid"], shown["api"])
    assert mine == (node["node_id"], shared.pid, shared.base_url)
