from hypothesis import given
from hypothesis import strategies as st

from exo.p2p.options import CoreOptions
from exo.p2p.timeouts import Arrivals

OPTIONS = CoreOptions()


def after(gaps: list[float]) -> float:
    arrivals = Arrivals(OPTIONS)
    for gap in gaps:
        arrivals.observe(gap, OPTIONS)
    return arrivals.timeout(OPTIONS)


def test_a_regular_peer_has_the_shortest_timeout():
    assert after([OPTIONS.period] * 50) == OPTIONS.timeout_min


def test_an_irregular_peer_has_more_time():
    assert after([0.1, 0.9] * 20) > 1.5


def test_a_long_absence_is_forgotten_again():
    assert after([OPTIONS.period] * 10 + [3600.0]) > OPTIONS.timeout_min
    assert after([OPTIONS.period] * 10 + [3600.0] + [OPTIONS.period] * 40) == OPTIONS.timeout_min


@given(st.lists(st.floats(0, 1e6)))
def test_the_timeout_is_bounded(gaps: list[float]):
    assert OPTIONS.timeout_min <= after(gaps) <= OPTIONS.timeout_max
