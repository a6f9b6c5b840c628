from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exo.cluster.events import InstanceDeleted
from exo.cluster.plan import Slot, StartRunner, StopRunner, WakeAt, plan, restart_pause
from exo.cluster.state import ClusterState
from tests.cluster.factory import created, fold

ALIVE = Slot(alive=True)


def starts(state: ClusterState, slots: dict[str, Slot], now: float = 0.0) -> list[str]:
    actions = plan(state, "a", slots, now)
    return [a.instance.instance_id for a in actions if isinstance(a, StartRunner)]


def test_a_wanted_shard_is_started_once():
    state = fold(created())
    assert starts(state, {}) == ["i"]
    assert plan(state, "a", {"i/0": ALIVE}, 0.0) == []


def test_shards_of_other_nodes_are_not_ours():
    assert plan(fold(created(node_id="b")), "a", {}, 0.0) == []


def test_a_deleted_instance_is_stopped():
    assert plan(ClusterState(), "a", {"i/0": ALIVE}, 0.0) == [StopRunner("i/0")]


def test_the_first_restart_is_at_once_the_next_ones_later_and_later():
    state = fold(created())
    assert starts(state, {"i/0": Slot(False, failures=1, failed_at=10.0)}, 10.0) == ["i"]
    again = Slot(False, failures=3, failed_at=10.0)
    assert plan(state, "a", {"i/0": again}, 10.5) == [WakeAt(10.0 + restart_pause(3))]
    assert starts(state, {"i/0": again}, 10.0 + restart_pause(3)) == ["i"]
    pauses = [restart_pause(n) for n in range(1, 20)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0


def test_an_invalid_model_is_not_tried_again():
    broken = Slot(False, failures=1, failed_at=0.0, permanent=True)
    assert plan(fold(created()), "a", {"i/0": broken}, 1e9) == []


class Machine(RuleBasedStateMachine):
    """Whatever is created, deleted or dies: carrying out the plan gives what is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ClusterState()
        self.slots: dict[str, Slot] = {}
        self.now = 0.0
        self.made = 0

    @rule()
    def create(self) -> None:
        self.made += 1
        self.state = fold(created(f"i{self.made}", f"c{self.made}"), state=self.state)

    @precondition(lambda self: self.state.instances)
    @rule(which=st.integers(0, 99))
    def delete(self, which: int) -> None:
        ids = list(self.state.instances)
        gone = InstanceDeleted(instance_id=ids[which % len(ids)], command_id="d")
        self.state = fold(gone, state=self.state)

    @rule(which=st.integers(0, 99))
    def die(self, which: int) -> None:
        alive = [key for key, slot in self.slots.items() if slot.alive]
        if alive:
            key = alive[which % len(alive)]
            self.slots[key] = Slot(False, self.slots[key].failures + 1, self.now)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def carry_out(self) -> None:
        for action in plan(self.state, "a", self.slots, self.now):
            match action:
                case StartRunner(instance=instance, shard=shard):
                    key = f"{instance.instance_id}/{shard.rank}"
                    assert not self.slots.get(key, Slot(False)).alive
                    failures = self.slots.get(key, Slot(False)).failures
                    self.slots[key] = Slot(True, failures, self.now)
                case StopRunner(key=key):
                    del self.slots[key]
                case WakeAt(time=time):
                    assert time > self.now

    @invariant()
    def in_time_everything_wanted_runs_and_nothing_else(self) -> None:
        slots = dict(self.slots)
        for action in plan(self.state, "a", slots, self.now + 1000):
            if isinstance(action, StartRunner):
                slots[f"{action.instance.instance_id}/{action.shard.rank}"] = ALIVE
            elif isinstance(action, StopRunner):
                del slots[action.key]
        assert {key for key, slot in slots.items() if slot.alive} == {
            f"{instance_id}/0" for instance_id in self.state.instances
        }


Machine.TestCase.settings = settings(max_examples=50)
TestPlan = Machine.TestCase
