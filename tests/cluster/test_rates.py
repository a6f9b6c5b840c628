"""How often a key may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.rates import Rates


def test_a_minutes_worth_may_come_at_once_and_then_one_at_a_time():
    rates = Rates()
    assert [rates.take("k", 3, 0.0) for _ in range(3)] == [0, 0, 0]
    assert rates.take("k", 3, 0.0) == pytest.approx(20)
    assert rates.take("k", 3, 19.0) == pytest.approx(1)
    assert rates.take("k", 3, 20.0) == 0
    assert rates.take("k", 3, 20.0) == pytest.approx(20)


def test_a_key_is_not_held_up_by_another():
    rates = Rates()
    rates.take("one", 1, 0.0)
    assert rates.take("one", 1, 0.0) > 0
    assert rates.take("other", 1, 0.0) == 0


@given(
    st.integers(1, 100),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_in_no_minute_are_there_more_than_twice_the_rate_and_after_the_wait_one_is_taken(
    rate: int, gaps: list[float]
):
    rates, now = Rates(), 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        wait = rates.take("k", rate, now)
        if wait:
            assert wait <= 60 / rate + 1e-6
            now += wait + 1e-6
            assert rates.take("k", rate, now) == 0
        taken.append(now)
    for start in taken:
        assert sum(start <= each < start + 60 for each in taken) <= 2 * rate
