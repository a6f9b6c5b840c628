import pytest

from exo.cluster.commands import CreateInstance, DeleteInstance, decide
from exo.cluster.events import InstanceCreated, InstanceDeleted
from exo.cluster.state import ClusterState, Placement, Shard
from exo.errors import InstanceNotFound, PlacementImpossible, RequestError
from tests.cluster.factory import GIB, card, created, fold, placement, resources

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


def test_a_split_is_refused_until_it_can_be_computed():
    halves = (
        Shard(rank=0, node_id="a", start_layer=0, end_layer=2, memory=0),
        Shard(rank=1, node_id="b", start_layer=2, end_layer=4, memory=0),
    )
    asked = placement().model_copy(update={"shards": halves})
    with pytest.raises(PlacementImpossible, match="one node"):
        decide(ClusterState(), create(asked), [resources(), resources(node_id="b")], NOW)


def test_deleting_needs_the_instance():
    delete = DeleteInstance(command_id="d", instance_id="i")
    assert decide(fold(created()), delete, [], NOW) == [
        InstanceDeleted(instance_id="i", command_id="d")
    ]
    with pytest.raises(InstanceNotFound):
        decide(ClusterState(), delete, [], NOW)
