"""How the stages of a pipeline are kept at work."""

import pytest

from exo.inference.meter import Meter


def test_the_share_of_the_time_that_each_stage_computed():
    meter = Meter(2)
    for at in range(4):
        meter.landed((0.1, 0.05), at * 0.1, decode=True)
    assert meter.busy(0.5, going_on=False) == pytest.approx((0.8, 0.4))
    assert meter.seconds == pytest.approx((0.1, 0.05))


def test_time_in_which_nobody_asked_for_anything_does_not_count():
    meter = Meter(1)
    meter.landed((0.1,), 0.0, decode=True)
    meter.busy(0.1, going_on=False)
    assert meter.busy(9.0, going_on=False) == (0.0,)
    meter.landed((0.1,), 20.0, decode=True)
    assert meter.busy(20.2, going_on=False) == pytest.approx((0.5,))


def test_a_stage_that_always_works_does_so_all_of_the_time_however_long_steps_are_on_their_way():
    meter = Meter(1)
    shares = []
    for at in range(1, 30):
        # Three steps are in flight: each began two before the one that it follows had ended.
        meter.landed((0.15,), (at - 3) * 0.15, decode=True)
        if at % 7 == 0:
            shares.append(meter.busy(at * 0.15, going_on=True)[0])
    assert shares[1:] == pytest.approx([1.0, 1.0, 1.0])
