"""One model over three hosts: the same tokens as on one, whichever host is asked, and what becomes
of it when a host is in trouble."""

import json
import os
import signal
from collections.abc import Iterator

import mlx.core as mx
import pytest

from tests.e2e.daemon import DONE, Json
from tests.models_maker import make_model

from .cluster import Cluster, command, pids
from .conftest import MakeLan

pytestmark = pytest.mark.e2e

MODEL = "deep"
LAYERS = 16
ASKED = [
    {"temperature": 0, "max_tokens": 40},
    {"temperature": 0.9, "seed": 11, "top_p": 0.9, "max_tokens": 40},
]


@pytest.fixture(scope="module")
def cluster(
    make_shared_lan: MakeLan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / MODEL, layers=LAYERS, dtype=mx.float32)
    made = Cluster(make_shared_lan(3), models_dir=folder)
    made.start()
    made.agree()
    yield made
    made.check_logs(allowed=["The runner", "not answered", "There is no network"])


def split(cluster: Cluster, model: str, **wanted: object) -> Json:
    """An instance over all hosts, when it is ready."""
    body = {"instance": {"model_id": model, "min_nodes": len(cluster.hosts), **wanted}}
    instance = command(cluster.hosts[0], body)
    cluster.ready(instance)
    return instance


@pytest.mark.parametrize("model", ["exo-demo", MODEL])
def test_three_hosts_give_the_tokens_of_one(cluster: Cluster, model: str) -> None:
    first = cluster.hosts[0]
    question = "Count from 2 to 8"
    alone = cluster.create(first, first, model)
    expected = [first.daemon.text(model, question, **asked) for asked in ASKED]
    first.daemon.delete(alone)
    instance = split(cluster, model)
    assert {shard["node_id"] for shard in instance["shards"]} == {h.node_id for h in cluster.hosts}
    for host in cluster.hosts:
        assert [host.daemon.text(model, question, **asked) for asked in ASKED] == expected
    first.daemon.delete(instance)


def test_a_ring_that_loses_a_runner_comes_back_with_the_layers_that_stayed(
    cluster: Cluster,
) -> None:
    instance = split(cluster, MODEL)
    asked, before = cluster.hosts[0], pids(cluster, instance)
    with asked.daemon.stream(MODEL, max_tokens=1500, logit_bias={"2": -100}) as lines:
        assert next(lines)
        assert next(lines)
        os.kill(before[1], signal.SIGKILL)
        last = list(lines)[-1]
    assert last != DONE
    assert json.loads(last)["error"]["type"] == "service_unavailable_error"

    def again(state: Json) -> bool:
        found = state["instances"][instance["instance_id"]]
        return found["status"] == "ready" and found["shards"][1]["runner"]["pid"] != before[1]

    asked.wait(again)
    after = pids(cluster, instance)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert asked.daemon.chat(MODEL, max_tokens=3)["usage"]["completion_tokens"] <= 3
    asked.daemon.delete(instance)


def test_a_host_that_is_cut_off_ends_the_answer_and_the_ring_is_whole_again_after(
    cluster: Cluster,
) -> None:
    instance = split(cluster, MODEL)
    shards = instance["shards"]
    by_id = {host.node_id: host for host in cluster.hosts}
    head, tail = by_id[shards[0]["node_id"]], by_id[shards[2]["node_id"]]
    before = pids(cluster, instance)
    with head.daemon.stream(MODEL, max_tokens=1500, logit_bias={"2": -100}) as lines:
        assert next(lines)
        assert next(lines)
        cluster.lan.unplug(tail.number)
        last = list(lines)[-1]
    assert json.loads(last)["error"]["code"] == "ring_broken"
    cluster.lan.plug(tail.number)
    cluster.agree()
    cluster.ready(instance)
    assert pids(cluster, instance) == before
    head.daemon.delete(instance)


def test_what_crosses_the_ring_cannot_be_overheard(cluster: Cluster) -> None:
    instance = split(cluster, "exo-demo")
    host = cluster.hosts[0]
    with cluster.lan.capture() as capture:
        answer = host.daemon.text("exo-demo", "What is exo?", max_tokens=30, temperature=0)
    assert capture.dropped == 0
    heard = b"\n".join(capture.frames())
    assert b"exoR" not in heard
    assert answer.encode() not in heard
    host.daemon.delete(instance)
