"""Which instances go because nobody uses them."""

import pytest

from exo.cluster.commands import PinInstance, decide, is_done
from exo.cluster.events import RunnerChanged
from exo.cluster.idle import FIRST_USE_SECONDS, IdlePlan, Use, plan_idle
from exo.cluster.state import ClusterState, RunnerStatus
from exo.errors import InstanceNotFound
from tests.cluster.factory import created, fold, runner

NOW = "2026-01-01T00:00:00+00:00"
NOTHING = IdlePlan((), None)


def state_with(status: RunnerStatus = RunnerStatus.READY, *, pinned: bool = False) -> ClusterState:
    event = created("i")
    instance = event.instance.model_copy(update={"pinned": pinned})
    event = event.model_copy(update={"instance": instance})
    return fold(event, RunnerChanged(runner=runner("i", status)))


def planned(use: Use, keep_alive: float = 60, now: float = 100, **state: object) -> IdlePlan:
    return plan_idle(state_with(**state), {"i": use}, keep_alive, now)


def test_what_was_not_used_for_long_enough_is_unloaded():
    assert planned(Use(40, used=True)) == IdlePlan(("i",), None)
    assert planned(Use(41, used=True)) == IdlePlan((), 101)


def test_what_a_request_wanted_goes_before_the_setting():
    assert planned(Use(100, used=True, keep_alive=0)) == IdlePlan(("i",), None)
    assert planned(Use(0, used=True, keep_alive=300)) == IdlePlan((), 300)
    assert planned(Use(0, used=True, keep_alive=-1)) == NOTHING


def test_below_zero_nothing_is_unloaded():
    assert planned(Use(0, used=True), keep_alive=-1) == NOTHING


@pytest.mark.parametrize(
    ("use", "state"),
    [
        (Use(0, open=1, used=True), {}),
        (Use(0, used=True, leaving=True), {}),
        (Use(0, used=True), {"pinned": True}),
        (Use(0, used=True), {"status": RunnerStatus.LOADING}),
        (Use(0, used=True), {"status": RunnerStatus.WARMING}),
    ],
)
def test_what_is_used_pinned_or_on_its_way_stays(use: Use, state: dict[str, object]):
    assert planned(use, **state) == NOTHING


def test_what_failed_goes_as_well():
    assert planned(Use(0, used=True), status=RunnerStatus.FAILED).unload == ("i",)


def test_the_request_that_it_was_placed_for_may_begin():
    assert planned(Use(100), keep_alive=0) == IdlePlan((), 100 + FIRST_USE_SECONDS)
    assert planned(Use(0), keep_alive=0).unload == ("i",)


def test_what_is_no_longer_there_is_nothing():
    assert plan_idle(ClusterState(), {"i": Use(0, used=True)}, 0, 100) == NOTHING


def test_pinning():
    state = state_with(pinned=False)
    command = PinInstance(command_id="p", instance_id="i", pinned=True)
    assert not is_done(state, command)
    [event] = decide(state, command, (), NOW)
    state = fold(event, state=state)
    assert state.instances["i"].pinned
    assert is_done(state, command)
    assert decide(state, command, (), NOW) == []
    with pytest.raises(InstanceNotFound):
        decide(ClusterState(), command, (), NOW)
