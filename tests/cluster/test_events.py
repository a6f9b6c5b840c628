import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.events import (
    COMMANDS_KEPT,
    Entry,
    Event,
    InstanceDeleted,
    LinksMeasured,
    MasterElected,
    NodeDraining,
    NodeJoined,
    NodeLost,
    NodeMeasured,
    RunnerChanged,
    apply,
)
from exo.cluster.state import ClusterState, RunnerStatus
from exo.p2p.term import Term
from tests.cluster.factory import (
    JOINED_B,
    TERM,
    created,
    device,
    entry,
    fold,
    instance,
    link,
    node,
    runner,
)


def test_an_entry_must_be_the_next_one():
    state = fold(MasterElected(term=TERM))
    late = entry(ClusterState(), MasterElected(term=TERM))
    with pytest.raises(ValueError, match="entry 1 does not follow 1"):
        apply(state, late)


def test_an_instance_is_as_ready_as_its_runner():
    state = fold(created())
    assert state.status(instance()) == "loading"
    for status, expected in [
        (RunnerStatus.LOADING, "loading"),
        (RunnerStatus.WARMING, "warming"),
        (RunnerStatus.READY, "ready"),
        (RunnerStatus.FAILED, "failed"),
    ]:
        state = fold(RunnerChanged(runner=runner(status=status)), state=state)
        assert state.status(instance()) == expected


def test_a_failed_instance_says_why():
    failed = runner(status=RunnerStatus.FAILED, error="The file is cut short.")
    state = fold(created(), RunnerChanged(runner=failed))
    assert state.reason(instance()) == "The file is cut short."


def test_deleting_an_instance_deletes_its_runners():
    deleted = InstanceDeleted(instance_id="i", command_id="d")
    state = fold(created(), RunnerChanged(runner=runner()), deleted)
    assert (state.instances, state.runners) == ({}, {})


def test_news_of_a_deleted_instances_runner_is_ignored():
    deleted = InstanceDeleted(instance_id="i", command_id="d")
    assert fold(created(), deleted, RunnerChanged(runner=runner())).runners == {}


def test_a_node_that_starts_again_has_lost_its_runners_and_kept_its_measurement():
    state = fold(
        NodeJoined(node=node()),
        NodeMeasured(node_id="a", device=device()),
        created(),
        RunnerChanged(runner=runner()),
        NodeJoined(node=node(name="renamed", boot="2")),
    )
    assert state.runners == {}
    assert state.status(instance()) == "loading"
    assert state.nodes["a"].device == device()
    assert state.nodes["a"].name == "renamed"


def test_a_node_that_starts_again_does_not_touch_the_runners_of_others():
    state = fold(
        created("i", "c1", node_id="a"),
        created("j", "c2", node_id="b"),
        RunnerChanged(runner=runner("i")),
        RunnerChanged(runner=runner("j")),
        NodeJoined(node=node("a", boot="2")),
    )
    assert list(state.runners) == ["j/0"]


def test_commands_are_remembered_and_bounded():
    state = ClusterState()
    for number in range(COMMANDS_KEPT + 10):
        state = fold(created(f"i{number}", f"c{number}"), state=state)
    assert len(state.commands) == COMMANDS_KEPT
    last = state.commands[f"c{COMMANDS_KEPT + 9}"]
    assert (last.kind, last.instance_id) == ("created", f"i{COMMANDS_KEPT + 9}")


ids = st.sampled_from(["i", "j", "k"])
events = st.one_of(
    st.builds(created, ids, ids),
    st.builds(lambda i: InstanceDeleted(instance_id=i, command_id=i), ids),
    st.builds(lambda i, s: RunnerChanged(runner=runner(i, s)), ids, st.sampled_from(RunnerStatus)),
    st.builds(lambda n: NodeJoined(node=node(n)), st.sampled_from(["a", "b"])),
    st.builds(lambda n: MasterElected(term=Term(number=n, master_id="a")), st.integers(1, 9)),
)


@given(st.lists(events, max_size=30))
def test_any_log_folds_the_same_through_json_and_keeps_no_orphans(log: list[Event]):
    direct = through_json = ClusterState()
    for event in log:
        made = entry(direct, event)
        direct = apply(direct, made)
        through_json = apply(through_json, Entry.model_validate_json(made.model_dump_json()))
    assert direct == through_json
    assert ClusterState.model_validate_json(direct.model_dump_json()) == direct
    assert {r.instance_id for r in direct.runners.values()} <= set(direct.instances)


def test_a_node_that_comes_back_without_a_restart_has_its_runners():
    state = fold(
        created(),
        RunnerChanged(runner=runner()),
        NodeLost(node_id="a", left=False),
        NodeJoined(node=node()),
    )
    assert state.status(instance()) == "ready"


def test_an_instance_on_a_lost_node_has_failed_and_says_which_node():
    state = fold(created(), RunnerChanged(runner=runner()), NodeLost(node_id="a", left=False))
    assert state.status(instance()) == "failed"
    assert "a cannot be reached" in (state.reason(instance()) or "")


def test_a_lost_node_is_remembered_only_for_what_is_placed_on_it():
    state = fold(NodeJoined(node=node("b")), NodeLost(node_id="b", left=True))
    assert set(state.nodes) == {"a"}
    state = fold(created(node_id="b"), NodeLost(node_id="b", left=True), state=fold(JOINED_B))
    assert not state.nodes["b"].online
    state = fold(InstanceDeleted(instance_id="i", command_id="d"), state=state)
    assert set(state.nodes) == {"a"}


def test_links_are_of_nodes_that_are_there():
    links = (link("a", "b"), link("a", "x"))
    state = fold(JOINED_B, LinksMeasured(links=links))
    assert list(state.links) == ["a/b"]
    assert fold(NodeLost(node_id="b", left=True), state=state).links == {}


def test_what_was_deleted_is_remembered():
    state = fold(created(), InstanceDeleted(instance_id="i", command_id="d"))
    assert state.deleted == ("i",)


def test_a_draining_node_is_still_draining_when_it_comes_back():
    state = fold(NodeDraining(node_id="a", draining=True), NodeJoined(node=node(boot="2")))
    assert state.nodes["a"].draining
