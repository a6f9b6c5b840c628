"""Reading a link whose other side says nothing for a while."""

from math import inf
from typing import Any, cast

import pytest

from exo.inference.ring.frames import Frame, Kind
from exo.inference.ring.links import Link


class Slow:
    """A connection whose reader waits in vain so often, in the middle of a frame."""

    def __init__(self, frame: Frame, silences: int) -> None:
        self._data = b"".join(bytes(part) for part in frame.parts())
        self._silences = silences

    def recv_into(self, buffer: memoryview) -> int:
        if self._silences and len(self._data) < 10:
            self._silences -= 1
            raise TimeoutError("timed out")
        size = min(len(buffer), 7, len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


def link(silences: int) -> Link:
    frame = Frame(Kind.STEP, b"a step of rank 0")
    return Link(cast("Any", Slow(frame, silences)))


def test_silence_ends_a_link():
    with pytest.raises(TimeoutError):
        link(silences=1).read()


def test_silence_that_was_expected_does_not():
    quiet = link(silences=3)
    quiet.silent_until = inf
    assert quiet.read().body == b"a step of rank 0"
