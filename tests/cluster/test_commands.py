import pytest

from exo.cluster.commands import CreateInstance, DeleteInstance, decide
from exo.cluster.events import InstanceCreated, InstanceDeleted
from exo.cluster.state import ClusterState, InstanceMeta, Placement, Shard
from exo.errors import InstanceNotFound, PlacementImpossible, RequestError
from tests.cluster.factory import GIB, card, created, fold, link, placement, resources

NOW = "2026-01-01T00:00:00+00:00"


def create(asked: Placement | None = None, command_id: str = "c") -> CreateInstance:
    return CreateInstance(command_id=command_id, instance_id="i", card=card(), placement=asked)


def test_creating_places_the_model():
    (event,) = decide(ClusterState(), create(), [resources()], NOW)
    assert isinstance(event, InstanceCreated)
    assert event.instance.placement.shards[0].end_layer == 4
    assert event.instance.created_at == NOW


def test_a_command_that_is_sent_again_does_nothing_again():
    state = fold(created(command_id="c"))
    assert decide(state, create(command_id="c"), [resources()], NOW) == []


def test_a_command_id_of_another_command_is_refused():
    state = fold(created("i", "c"), InstanceDeleted(instance_id="i", command_id="d"))
    with pytest.raises(RequestError, match="another command"):
        decide(state, DeleteInstance(command_id="c", instance_id="i"), [], NOW)
    with pytest.raises(RequestError, match="another command"):
        decide(state, DeleteInstance(command_id="d", instance_id="other"), [], NOW)
    with pytest.raises(RequestError, match="another command"):
        decide(state, create(command_id="d"), [resources()], NOW)
    assert decide(state, DeleteInstance(command_id="d", instance_id="i"), [], NOW) == []


def test_a_given_placement_is_taken_with_its_memory_computed_anew():
    asked = placement()
    (event,) = decide(ClusterState(), create(asked), [resources()], NOW)
    assert isinstance(event, InstanceCreated)
    made = event.instance.placement
    assert made.context_length == asked.context_length
    assert made.shards[0].memory > asked.shards[0].memory


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_id": "other"}, "for other, not for m"),
        ({"shards": placement("b").shards}, "no node 'b'"),
        ({"shards": placement(layers=3).shards}, "cover layers 0 to 3"),
        ({"shards": placement().shards * 2}, "cover layers 0 to 3"),
    ],
)
def test_a_given_placement_must_be_one(changes: dict, match: str):
    asked = placement().model_copy(update=changes)
    with pytest.raises(PlacementImpossible, match=match):
        decide(ClusterState(), create(asked), [resources()], NOW)


def test_a_given_placement_may_not_be_over_memory():
    with pytest.raises(PlacementImpossible, match="GiB"):
        decide(ClusterState(), create(placement()), [resources(GIB // 100)], NOW)


def halves(*nodes: str) -> Placement:
    """Two layers for each of two nodes."""
    shards = tuple(
        Shard(rank=rank, node_id=node_id, start_layer=2 * rank, end_layer=2 * rank + 2, memory=0)
        for rank, node_id in enumerate(nodes)
    )
    return placement().model_copy(update={"shards": shards, "instance_meta": InstanceMeta.TCP})


def test_a_given_split_is_taken_as_it_is():
    """Also where another one would be faster."""
    nodes = [resources(), resources(node_id="b")]
    (event,) = decide(ClusterState(), create(halves("b", "a")), nodes, NOW)
    assert isinstance(event, InstanceCreated)
    made = event.instance.placement
    assert [(s.node_id, s.start_layer, s.end_layer) for s in made.shards] == [
        ("b", 0, 2),
        ("a", 2, 4),
    ]
    assert all(shard.memory for shard in made.shards)


def test_a_given_split_needs_its_nodes_and_a_place_to_cut():
    nodes = [resources(), resources(node_id="b")]
    with pytest.raises(PlacementImpossible, match="no node 'z'"):
        decide(ClusterState(), create(halves("a", "z")), nodes, NOW)
    whole = CreateInstance(
        command_id="c", instance_id="i", card=card(cuts=(1,)), placement=halves("a", "b")
    )
    with pytest.raises(PlacementImpossible, match="cannot be cut before layer 2"):
        decide(ClusterState(), whole, nodes, NOW)


def test_the_links_of_the_state_are_used():
    nodes = [resources(2 * GIB, "metal"), resources(2 * GIB, "metal", "b")]
    large = CreateInstance(
        command_id="c", instance_id="i", card=card(storage_size=3 * GIB, dtype="float32")
    )
    speeds: list[float] = []
    for latency in (0.0001, 1.0):
        state = ClusterState(links={"a/b": link("a", "b", latency)})
        (event,) = decide(state, large, nodes, NOW)
        assert isinstance(event, InstanceCreated)
        speeds.append(event.instance.placement.decode_tps or 0.0)
    assert speeds[0] > 1 > speeds[1]


def test_deleting_needs_the_instance():
    delete = DeleteInstance(command_id="d", instance_id="i")
    assert decide(fold(created()), delete, [], NOW) == [
        InstanceDeleted(instance_id="i", command_id="d")
    ]
    with pytest.raises(InstanceNotFound):
        decide(ClusterState(), delete, [], NOW)
