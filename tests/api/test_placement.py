"""Where a model would go, as it is asked for and shown over HTTP."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from exo.api.context import CONTEXT
from exo.cluster.commands import CreateInstance, decide
from exo.cluster.events import InstanceCreated
from exo.cluster.placement import NodeResources, Wanted
from exo.cluster.state import Draft, Instance, Placement
from exo.errors import ModelNotFound
from exo.inference.messages import DraftStats, RingStats
from exo.models.card import ModelCard
from tests.cluster.factory import GIB, card, device, instance

from .conftest import Served
from .stub import make_state

MODEL = {"model_id": "m"}


class Placing:
    """The parts of a node that place models: three nodes of 8 GiB, and a model of 12."""

    def __init__(self) -> None:
        self.card = card(n_layers=16, storage_size=12 * GIB, dtype="float32", cuts=None)
        self.small = card("small", n_layers=2, storage_size=GIB, dtype="float32")
        self.nodes = [
            NodeResources(name, f"box-{name}", device("metal"), 8 * GIB) for name in "abc"
        ]


@pytest.fixture
def placing(served: Served) -> Placing:
    placing = Placing()
    context = served.client.app[CONTEXT]

    async def find(name: str) -> ModelCard:
        if name == "unknown":
            raise ModelNotFound("There is no such model.", param="model")
        return placing.card if name != "small" else placing.small

    async def resources(_: ModelCard, __: Draft | None = None) -> Sequence[NodeResources]:
        return placing.nodes

    async def create_instance(
        model: ModelCard,
        wanted: Wanted,
        placement: Placement | None,
        command_id: str,
        *,
        pinned: bool,
    ) -> Instance:
        command = CreateInstance(
            command_id=command_id,
            instance_id="i",
            card=model,
            wanted=wanted,
            placement=placement,
            pinned=pinned,
        )
        (event,) = decide(served.node.state, command, placing.nodes, "now")
        assert isinstance(event, InstanceCreated)
        return event.instance

    context.catalogue = SimpleNamespace(card=find)
    context.node.resources = resources
    context.node.create_instance = create_instance
    return placing


def ranges(placed: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(s["node_id"], s["start_layer"], s["end_layer"]) for s in placed["shards"]]


async def test_what_is_created_is_pinned_unless_it_is_not_to_be(served: Served, placing: Placing):
    for pin, pinned in [({}, True), ({"pin": False}, False)]:
        made = await served.post("/instance", {"instance": {"model_id": "m", **pin}})
        assert made["pinned"] is pinned


async def error_of(served: Served, query: str) -> dict[str, Any]:
    async with served.client.get(f"/instance/placement?model_id=m&{query}") as response:
        assert response.status == 400
        return (await response.json())["error"]


async def test_a_placement_has_the_layers_and_the_memory_of_each_node(
    served: Served, placing: Placing
):
    placed = await served.get("/instance/placement?model_id=m")
    assert (placed["sharding"], placed["instance_meta"]) == ("pipeline", "tcp")
    assert len(placed["shards"]) == 2
    assert set(placed["memory_by_node"]) == {shard["node_id"] for shard in placed["shards"]}
    assert placed["prefill_tps"] > placed["decode_tps"] > 0
    assert await served.post("/place_instance", MODEL) == placed


@pytest.mark.parametrize("given", [True, False])
async def test_a_placement_that_is_sent_is_taken(served: Served, placing: Placing, given: bool):
    placed = await served.get("/instance/placement?model_id=m&min_nodes=3")
    shards = placed["shards"][::-1] if given else []
    body = {**MODEL, "placement": {**placed, "shards": shards}}
    made = await served.post("/instance", {"instance": body})
    if given:  # The ranks say the order, wherever they stand.
        assert ranges(made) == ranges(placed)
        assert made["shards"] == [{**shard, "runner": None} for shard in placed["shards"]]
    else:
        assert len(made["shards"]) == 2


async def test_a_placement_without_meta_gets_what_its_shards_need(served: Served, placing: Placing):
    shards = [
        {"rank": 0, "node_id": "c", "start_layer": 0, "end_layer": 9},
        {"rank": 1, "node_id": "a", "start_layer": 9, "end_layer": 16},
    ]
    body = {**MODEL, "placement": {"shards": shards}, "context_length": 100}
    made = await served.post("/instance", {"instance": body})
    assert ranges(made) == [("c", 0, 9), ("a", 9, 16)]
    assert (made["instance_meta"], made["context_length"]) == ("tcp", 100)


@pytest.mark.parametrize(
    "layers",
    [
        "box-b=0-6,a=7-15",
        " b=0-6 , a=7-15",
        [
            {"node": "b", "start_layer": 0, "end_layer": 7},
            {"node": "box-a", "start_layer": 7, "end_layer": 16},
        ],
    ],
)
async def test_layers_are_given_as_text_or_as_objects(
    served: Served, placing: Placing, layers: object
):
    placed = await served.post("/place_instance", {**MODEL, "layers": layers})
    assert ranges(placed) == [("b", 0, 7), ("a", 7, 16)]
    made = await served.post("/instance", {"instance": {**MODEL, "layers": layers}})
    assert ranges(made) == ranges(placed)
    if isinstance(layers, str):
        query = layers.replace("=", "%3D").replace(" ", "%20")
        assert await served.get(f"/instance/placement?model_id=m&layers={query}") == placed


async def test_a_single_layer_needs_no_range(served: Served, placing: Placing):
    placing.card = card(n_layers=2)
    placed = await served.post("/place_instance", {**MODEL, "layers": "a=0,b=1"})
    assert ranges(placed) == [("a", 0, 1), ("b", 1, 2)]


@pytest.mark.parametrize("nodes", ["box-c,b", ["c", "box-b"]])
async def test_nodes_are_given_as_text_or_as_a_list(
    served: Served, placing: Placing, nodes: object
):
    body = {**MODEL, "nodes": nodes, "objective": "throughput", "max_nodes": 2}
    placed = await served.post("/place_instance", body)
    assert set(placed["memory_by_node"]) == {"b", "c"}


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ("layers=a", "layers", "'a' is no range"),
        ("layers=a=5-", "layers", "'a=5-' is no range"),
        ("layers=a=0-6,,b=7-15", "layers", "'' is no range"),
        ("layers=a=0-6", "layers", "0 to 15"),
        ("layers=", "layers", "at least 1"),
        ("nodes=a,z", "nodes", "'z'"),
        ("nodes=", "nodes", "at least 1"),
        ("max_nodes=0", "max_nodes", "greater"),
        ("objective=best", "objective", "latency"),
        ("min_nodes=4", "min_nodes", "4 nodes are asked for"),
        ("sharding=tensor", "sharding", "tensors"),
    ],
)
async def test_what_cannot_be_read_or_done_is_named(
    served: Served, placing: Placing, query: str, param: str, told: str
):
    error = await error_of(served, query)
    assert error["param"] == param
    assert told in error["message"]


async def test_previews_have_a_row_for_each_way(served: Served, placing: Placing):
    one, two, three, tensor = await served.get("/instance/previews?model_id=m")
    assert [row["min_nodes"] for row in (one, two, three, tensor)] == [1, 2, 3, 2]
    assert one["instance"] is one["memory_delta_by_node"] is None
    assert "GiB" in one["error"]
    for row in (two, three):
        assert row["error"] is None
        assert len(row["instance"]["shards"]) == row["min_nodes"]
        assert row["memory_delta_by_node"] == row["instance"]["memory_by_node"]
        assert row["instance"]["decode_tps"] > 0
    assert (tensor["sharding"], tensor["instance_meta"]) == ("tensor", "mlx_ring")
    assert "tensors" in tensor["error"]
    found = await served.get("/instance/previews?model_id=m&context_length=64&concurrency=2")
    assert (found[1]["instance"]["context_length"], found[1]["instance"]["concurrency"]) == (64, 2)


async def test_an_instance_says_how_its_ring_works(served: Served):
    stats = RingStats(seconds=(0.002, 0.003), busy=(0.5, 0.9), hop=0.0004, rows=2, groups=2)
    made = instance()
    served.node.state = make_state(instances={made.instance_id: made})
    served.node.rings = {made.instance_id: stats}
    shown = (await served.get("/state"))["instances"][made.instance_id]["ring"]
    assert shown == (await served.get(f"/instance/{made.instance_id}"))["ring"]
    assert shown["busy"] == [0.5, 0.9]
    assert shown["waiting"] == 0
    served.node.rings = {}
    assert (await served.get(f"/instance/{made.instance_id}"))["ring"] is None


async def test_what_drafts_and_how_often_it_is_right_is_shown(served: Served, placing: Placing):
    placing.card = placing.card.model_copy(update={"head_dim": 64})
    body = {"instance": {"model_id": "m", "min_nodes": 2, "draft": "small", "kv_bits": 8}}
    async with served.client.post("/instance", json=body) as response:
        made = await response.json()
    assert (made["draft"], made["kv_bits"], made["drafts"]) == ("small", 8, None)
    plain = await served.get("/instance/placement?model_id=m&min_nodes=2")
    drafting = await served.get("/instance/placement?model_id=m&min_nodes=2&draft=small")
    by_rank = [[shard["memory"] for shard in one["shards"]] for one in (plain, drafting)]
    assert by_rank[1][0] - by_rank[0][0] > GIB * 0.9 or ranges(plain) != ranges(drafting)
    one = instance().model_copy(update={"draft": Draft(name="ngram")})
    served.node.state = make_state(instances={one.instance_id: one})
    served.node.drafts = {one.instance_id: DraftStats(guessed=8, accepted=6)}
    shown = await served.get(f"/instance/{one.instance_id}")
    assert shown["draft"] == "ngram"
    assert shown["drafts"] == {"guessed": 8, "accepted": 6, "acceptance": 0.75, "off": None}


async def test_a_draft_model_that_is_not_there_is_refused(served: Served, placing: Placing):
    path = "/instance/placement?model_id=m&draft=unknown"
    async with served.client.get(path) as response:
        assert response.status == 404
    placing.nodes = [replace(node, has_draft=False) for node in placing.nodes]
    error = await error_of(served, "draft=small&min_nodes=2")
    assert error["param"] == "draft"
    assert "draft model small are not on" in error["message"]
    error = await error_of(served, "kv_bits=3")
    assert error["param"] == "kv_bits"
