"""What waits, and what of it is next."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.fair import BATCH_AFTER, FairQueue


def queue(*items: tuple[str, str, float], batch: bool = False) -> FairQueue[str]:
    """Of (name, key, cost)."""
    made: FairQueue[str] = FairQueue()
    for name, lane, cost in items:
        made.push(name, cost, lane, batch=batch)
    return made


def drained(waiting: FairQueue[str]) -> list[str]:
    found: list[str] = []
    while len(waiting):
        assert waiting.head() not in {None, *found}
        found.append(waiting.pop())
    return found


def test_one_key_waits_in_the_order_of_arrival():
    assert drained(queue(("1", "k", 9), ("2", "k", 1), ("3", "k", 5))) == ["1", "2", "3"]


def test_keys_take_turns():
    items = [(f"a{i}", "a", 1.0) for i in range(3)] + [(f"b{i}", "b", 1.0) for i in range(3)]
    assert drained(queue(*items)) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_key_that_asks_for_much_gets_fewer_turns():
    items = [(f"a{i}", "a", 3.0) for i in range(2)] + [(f"b{i}", "b", 1.0) for i in range(6)]
    assert drained(queue(*items)) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5"]


def test_a_key_that_was_away_has_saved_nothing_up():
    waiting = queue(*[(f"a{i}", "a", 1.0) for i in range(8)])
    for _ in range(4):
        waiting.pop()
    for i in range(4):
        waiting.push(f"b{i}", 1.0, "b")
    assert drained(waiting)[:4] in (["b0", "a4", "b1", "a5"], ["a4", "b0", "a5", "b1"])


def test_interactive_goes_before_batch_which_is_not_starved():
    waiting = queue(*[(f"b{i}", "k", 1.0) for i in range(3)], batch=True)
    for i in range(20):
        waiting.push(f"i{i}", 1.0, "k")
    order = drained(waiting)
    assert [order.index(f"b{i}") for i in range(2)] == [BATCH_AFTER, 2 * BATCH_AFTER + 1]
    assert [name for name in order if name[0] == "i"] == [f"i{i}" for i in range(20)]


def test_batch_runs_when_nothing_else_waits():
    assert drained(queue(("1", "k", 1), ("2", "k", 1), batch=True)) == ["1", "2"]


def test_what_is_removed_is_gone():
    waiting = queue(("1", "k", 1), ("2", "k", 1), ("3", "other", 1))
    assert waiting.waiting("k") == 2
    assert waiting.remove("2")
    assert not waiting.remove("2")
    assert waiting.waiting("k") == 1
    assert drained(waiting) == ["1", "3"]
    assert waiting.head() is None
    with pytest.raises(IndexError):
        waiting.pop()


_arrival = st.tuples(st.sampled_from("abc"), st.integers(1, 20), st.booleans())


@given(st.lists(st.one_of(_arrival, st.none()), max_size=80))
def test_nothing_is_lost_and_a_key_is_first_come_first_served(steps: list):
    """A step is an arrival, or (None) that something is taken."""
    waiting: FairQueue[int] = FairQueue()
    arrived: list[tuple[int, str, bool]] = []
    taken: list[int] = []
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            lane, cost, batch = step
            waiting.push(len(arrived), cost, lane, batch=batch)
            arrived.append((len(arrived), lane, batch))
        elif len(waiting):
            head = waiting.head()
            assert waiting.pop() == head
            taken.append(head)
    assert sorted(taken) == list(range(len(arrived)))
    for lane in "abc":
        for batch in (True, False):
            mine = [n for n, of, is_batch in arrived if (of, is_batch) == (lane, batch)]
            assert [n for n in taken if n in mine] == mine


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20)), min_size=60, max_size=120),
    st.integers(0, 20),
)
def test_keys_that_wait_all_the_time_are_given_alike(items: list[tuple[str, int]], first: int):
    """At no moment, since all of them wait, has one been given more than another by more than one
    request of each."""
    most = 20
    waiting: FairQueue[int] = FairQueue()
    for _ in range(first):  # What happened before makes no difference.
        waiting.push(-1, 5, "a")
        waiting.pop()
    for number, (lane, cost) in enumerate(items):
        waiting.push(number, cost, lane)
    given_to: Counter[str] = Counter()
    while all(waiting.waiting(lane) for lane in "abc"):
        lane, cost = items[waiting.pop()]
        given_to[lane] += cost
        assert max(given_to[k] for k in "abc") - min(given_to[k] for k in "abc") <= 2 * most


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 20)), max_size=60))
def test_no_key_starves_whatever_the_others_go_on_asking(crowd: list[tuple[str, int]]):
    """One request waits while others come without end: it is next within a bound."""
    waiting: FairQueue[str] = FairQueue()
    for number, (lane, cost) in enumerate(crowd):
        waiting.push(f"{lane}{number}", cost, lane)
    waiting.push("mine", 1000, "mine")
    for turn in range(len(crowd) + 5):
        if waiting.pop() == "mine":
            return
        waiting.push(f"more{turn}", 1, "abcd"[turn % 4])
    raise AssertionError("it starves")


@given(st.integers(1, 5))
def test_batch_of_any_key_is_taken_however_much_is_interactive(keys: int):
    waiting: FairQueue[str] = FairQueue()
    for key in range(keys):
        waiting.push(f"batch{key}", 1, f"k{key}", batch=True)
    seen: list[str] = []
    for turn in range((BATCH_AFTER + 1) * keys):
        waiting.push(f"now{turn}", 1, "loud")
        seen.append(waiting.pop())
    assert {f"batch{key}" for key in range(keys)} <= set(seen)
