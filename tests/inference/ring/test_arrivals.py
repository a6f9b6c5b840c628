import threading

import pytest

from exo.errors import RingError
from exo.inference.ring.arrivals import Arrivals
from exo.inference.ring.events import RingDown, RingFrame, RingUp
from exo.inference.ring.frames import Frame, Kind


def frame(name: bytes) -> Frame:
    return Frame(Kind.RESULT, name)


def test_frames_come_in_order():
    arrivals = Arrivals()
    arrivals.put(RingUp(1))
    arrivals.put(RingFrame(1, frame(b"a")))
    arrivals.put(RingFrame(1, frame(b"b")))
    assert [arrivals.wait(1).body for _ in range(2)] == [b"a", b"b"]


def test_trouble_before_a_ring_stands_is_not_its_end():
    arrivals = Arrivals()
    for event in (RingDown(1, "not there yet"), RingUp(1), RingFrame(1, frame(b"a"))):
        arrivals.put(event)
    assert arrivals.wait(1).body == b"a"


def test_what_an_earlier_life_left_is_passed_over():
    arrivals = Arrivals()
    for event in (RingUp(1), RingFrame(1, frame(b"old")), RingDown(1, "lost"), RingUp(2)):
        arrivals.put(event)
    arrivals.put(RingFrame(2, frame(b"new")))
    assert arrivals.wait(2).body == b"new"


@pytest.mark.parametrize("end", [RingDown(1, "lost"), RingUp(2)])
def test_the_end_wakes_who_waits(end: RingDown | RingUp):
    arrivals = Arrivals()
    arrivals.put(RingUp(1))
    threading.Timer(0.05, arrivals.put, (end,)).start()
    for _ in range(2):
        with pytest.raises(RingError):
            arrivals.wait(1)
