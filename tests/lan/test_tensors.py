"""One model split by tensors over two hosts: the tokens of one host, and what becomes of it when a
runner is in trouble."""

import json
import os
import signal
from collections.abc import Iterator

import mlx.core as mx
import pytest

from tests.e2e.daemon import DONE, Json, error_of
from tests.models_maker import make_model

from .cluster import Cluster, command, pids
from .conftest import MakeLan

pytestmark = pytest.mark.e2e

MODEL = "wide"
ASKED = [
    {"temperature": 0, "max_tokens": 24},
    {"temperature": 0.9, "seed": 11, "top_p": 0.9, "max_tokens": 24},
]
TENSOR = {"sharding": "tensor", "min_nodes": 2}


@pytest.fixture(scope="module")
def cluster(
    make_shared_lan: MakeLan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / MODEL, layers=3, scale=2, dtype=mx.float32)
    made = Cluster(make_shared_lan(2), models_dir=folder, mlx_links="true")
    made.start()
    made.agree()
    yield made
    made.check_logs(allowed=["The runner", "not answered", "The ring of this model's nodes"])


def split(cluster: Cluster, **wanted: object) -> Json:
    body = {"instance": {"model_id": MODEL, **TENSOR, **wanted}}
    instance = command(cluster.hosts[0], body)
    cluster.ready(instance)
    return instance


def test_two_hosts_give_the_tokens_of_one(cluster: Cluster) -> None:
    first = cluster.hosts[0]
    alone = cluster.create(first, first, MODEL)
    expected = [first.daemon.text(MODEL, **asked) for asked in ASKED]
    first.daemon.delete(alone)
    instance = split(cluster)
    assert (instance["sharding"], instance["instance_meta"]) == ("tensor", "mlx_ring")
    assert [shard["end_layer"] - shard["start_layer"] for shard in instance["shards"]] == [3, 3]
    for host in cluster.hosts:
        assert [host.daemon.text(MODEL, **asked) for asked in ASKED] == expected
    first.daemon.delete(instance)


@pytest.mark.parametrize(
    ("rank", "sign"), [(1, signal.SIGKILL), (0, signal.SIGSTOP)], ids=["dies", "sleeps"]
)
def test_a_group_that_loses_a_runner_ends_its_answers_and_comes_back(
    cluster: Cluster, rank: int, sign: signal.Signals
) -> None:
    instance = split(cluster)
    asked, before = cluster.hosts[0], pids(cluster, instance)
    with asked.daemon.stream(MODEL, max_tokens=1500, logit_bias={"2": -100}) as lines:
        assert next(lines)
        assert next(lines)
        os.kill(before[rank], sign)
        last = list(lines)[-1]
    assert last != DONE
    assert json.loads(last)["error"]["type"] in {"service_unavailable_error", "server_error"}

    def again(state: Json) -> bool:
        found = state["instances"][instance["instance_id"]]
        runners = [shard["runner"]["pid"] for shard in found["shards"]]
        return found["status"] == "ready" and not set(runners) & set(before)

    asked.wait(again)
    assert asked.daemon.chat(MODEL, max_tokens=3)["usage"]["completion_tokens"] <= 3
    asked.daemon.delete(instance)


def test_a_cluster_whose_owner_did_not_allow_such_links_refuses(make_lan: MakeLan) -> None:
    cluster = Cluster(make_lan(2))
    cluster.start()
    cluster.agree()
    host = cluster.hosts[0]
    body = {"instance": {"model_id": "exo-demo", **TENSOR}}
    error = error_of(host.daemon.http.post("/instance", json=body), 400, "placement_impossible")
    assert "--mlx-links" in error["message"]
    rows = host.daemon.get("/instance/previews", model_id="exo-demo")
    assert [row["error"] is None for row in rows] == [True, True, False]
