"""What becomes of two states when their clusters meet."""

from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.events import Event, InstanceDeleted, RunnerChanged, StateMerged
from exo.cluster.merge import merge
from exo.cluster.state import ClusterState, RunnerStatus
from tests.cluster.factory import created, fold, runner


def merged(state: ClusterState, offered: ClusterState) -> ClusterState:
    event = merge(state, offered)
    return fold(event, state=state) if event else state


def test_instances_of_both_halves_stay():
    one, other = fold(created("i", "c1")), fold(created("j", "c2"))
    assert set(merged(one, other).instances) == {"i", "j"}


def test_what_one_half_deleted_is_deleted():
    before = fold(created("i", "c1"))
    after = fold(InstanceDeleted(instance_id="i", command_id="d"), state=before)
    assert merged(after, before).instances == {}
    assert merged(before, after).instances == {}


def test_nothing_new_is_no_event():
    state = fold(created("i", "c1"))
    assert merge(state, state) is None
    assert merge(state, ClusterState()) is None


def test_a_command_that_was_carried_out_twice_leaves_the_masters_instance():
    one, other = fold(created("i", "same")), fold(created("j", "same"))
    state = merged(one, other)
    assert set(state.instances) == {"i"}
    assert "j" in state.deleted, "its runner, if there is one, stops"


def test_a_twin_that_serves_already_stays_as_a_replica():
    one = fold(created("i", "same"))
    other = fold(created("j", "same"), RunnerChanged(runner=runner("j", RunnerStatus.READY)))
    assert set(merged(one, other).instances) == {"i", "j"}


def test_a_command_of_the_other_half_is_known_afterwards():
    one, other = fold(created("i", "c1")), fold(created("j", "c2"))
    assert merged(one, other).commands["c2"].instance_id == "j"


def test_a_twin_of_two_replicas_is_not_judged_again():
    one = fold(created("i", "same"))
    other = fold(created("j", "same"), RunnerChanged(runner=runner("j", RunnerStatus.READY)))
    state = merged(one, other)
    assert merge(state, other) is None


_names = st.sampled_from(["i1", "i2", "i3", "i4"])
_histories = st.lists(st.tuples(st.booleans(), _names), max_size=8)


def _history(steps: list[tuple[bool, str]], half: str, start: ClusterState) -> ClusterState:
    """A half's history: instances made (named by the half, ids are never used twice) and
    deleted, as a master does it: only what is there can be deleted."""
    state = start
    for number, (create, name) in enumerate(steps):
        event: Event
        if create:
            event = created(f"{half}{name}{number}", f"{half}-c{number}")
        elif state.instances:
            gone = sorted(state.instances)[number % len(state.instances)]
            event = InstanceDeleted(instance_id=gone, command_id=f"{half}-d{number}")
        else:
            continue
        state = fold(event, state=state)
    return state


@given(_histories, _histories, _histories)
def test_both_ways_of_merging_have_the_same_instances(
    common: list[tuple[bool, str]],
    left: list[tuple[bool, str]],
    right: list[tuple[bool, str]],
):
    start = _history(common, "x", fold())
    one, other = _history(left, "l", start), _history(right, "r", start)
    assert set(merged(one, other).instances) == set(merged(other, one).instances)
    gone = {*one.deleted, *other.deleted}
    assert set(merged(one, other).instances) == {*one.instances, *other.instances} - gone


@given(_histories, _histories)
def test_merging_again_changes_nothing(left: list[tuple[bool, str]], right: list[tuple[bool, str]]):
    one, other = _history(left, "l", fold()), _history(right, "r", fold())
    state = merged(one, other)
    assert merge(state, other) is None
    assert isinstance(merge(other, state), StateMerged | None)
