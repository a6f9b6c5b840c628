import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exo.errors import QueueFull, RequestError
from exo.inference.scheduler import Scheduler


def test_admits_in_order_up_to_the_slots():
    scheduler = Scheduler(slots=2, kv_tokens=100, max_queue=10)
    scheduler.submit({1: 10, 2: 10, 3: 10})
    assert scheduler.admit() == [1, 2]
    scheduler.release(1)
    assert scheduler.admit() == [3]


def test_a_long_sequence_at_the_head_is_not_overtaken():
    scheduler = Scheduler(slots=8, kv_tokens=100, max_queue=10)
    scheduler.submit({1: 20})
    scheduler.submit({2: 60})
    scheduler.submit({3: 10})
    assert scheduler.admit() == [1]
    assert scheduler.admit() == []
    scheduler.release(1)
    assert scheduler.admit() == [2]
    scheduler.release(2)
    assert scheduler.admit() == [3]


def test_a_long_sequence_makes_the_whole_batch_as_wide_as_itself():
    scheduler = Scheduler(slots=8, kv_tokens=100, max_queue=10)
    scheduler.submit({1: 40, 2: 10, 3: 10})
    assert scheduler.admit() == [1, 2]
    assert scheduler.reserved == 80
    scheduler.release(1)
    assert scheduler.admit() == [3]


def test_a_sequence_that_never_fits_is_refused_with_the_numbers():
    scheduler = Scheduler(slots=1, kv_tokens=100, max_queue=10)
    with pytest.raises(RequestError, match=r"101 tokens .* 100"):
        scheduler.submit({1: 101})


def test_a_full_queue_refuses_the_whole_request():
    scheduler = Scheduler(slots=1, kv_tokens=100, max_queue=1)
    scheduler.submit({1: 1})
    scheduler.admit()
    with pytest.raises(QueueFull) as caught:
        scheduler.submit({2: 1, 3: 1})
    assert caught.value.retry_after
    assert scheduler.waiting == 0
    scheduler.submit({2: 1})


def test_keys_take_turns_and_interactive_goes_first():
    scheduler = Scheduler(slots=1, kv_tokens=100, max_queue=10)
    scheduler.submit({1: 1, 2: 1, 3: 1}, "one")
    scheduler.submit({4: 1}, "other", batch=True)
    scheduler.submit({5: 1}, "other")
    order: list[int] = []
    while admitted := scheduler.admit():
        order += admitted
        scheduler.release(order[-1])
    assert order == [1, 5, 2, 3, 4]


def test_a_key_that_has_nothing_waiting_finds_room_in_a_full_queue():
    scheduler = Scheduler(slots=1, kv_tokens=100, max_queue=4)
    scheduler.submit(dict.fromkeys(range(5), 1), "loud")
    with pytest.raises(QueueFull):
        scheduler.submit({5: 1}, "loud")
    scheduler.submit({6: 1}, "quiet")
    with pytest.raises(QueueFull):
        scheduler.submit({7: 1}, "quiet")
    with pytest.raises(QueueFull):
        scheduler.submit({8: 1}, "third")


def test_release_tells_whether_the_sequence_was_running():
    scheduler = Scheduler(slots=1, kv_tokens=100, max_queue=9)
    scheduler.submit({1: 1, 2: 1})
    scheduler.admit()
    assert scheduler.release(1) is True
    assert scheduler.release(2) is False


class Machine(RuleBasedStateMachine):
    """Whatever comes and goes: never over the slots, the memory or the queue; nothing lost."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(slots=3, kv_tokens=50, max_queue=4)
        self.next = 0
        self.waiting: list[int] = []
        self.running: list[int] = []

    @rule(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3))
    def submit(self, sizes: list[int]) -> None:
        sequences = {self.next + i: size for i, size in enumerate(sizes)}
        self.next += len(sizes)
        try:
            self.scheduler.submit(sequences)
        except (QueueFull, RequestError):
            return
        self.waiting += sequences

    @rule()
    def admit(self) -> None:
        admitted = self.scheduler.admit()
        assert admitted == self.waiting[: len(admitted)]
        del self.waiting[: len(admitted)]
        self.running += admitted

    @rule(which=st.integers(0, 100))
    def release(self, which: int) -> None:
        everyone = self.waiting + self.running
        if everyone:
            sequence_id = everyone[which % len(everyone)]
            assert self.scheduler.release(sequence_id) == (sequence_id in self.running)
            (self.running if sequence_id in self.running else self.waiting).remove(sequence_id)

    @invariant()
    def within_bounds(self) -> None:
        assert self.scheduler.running == len(self.running) <= 3
        assert self.scheduler.waiting == len(self.waiting) <= 4 + 3
        assert self.scheduler.reserved <= 50


TestScheduler = Machine.TestCase
