"""Reading a link: frames that come in pieces, and another side that says nothing for a while."""

from math import inf
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


class Pieces:
    """A connection over which bytes come in pieces of these sizes, then whatever fits."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = memoryview(data)
        self._sizes = sizes

    def recv_into(self, buffer: memoryview) -> int:
        most = self._sizes.pop(0) if self._sizes else len(self._data)
        size = min(len(buffer), most, len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


FRAMES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40_000)), min_size=1, max_size=5)


@given(FRAMES, st.lists(st.integers(1, 40_000), max_size=30))
def test_frames_come_whole_in_whatever_pieces(sizes: list[tuple[int, int]], pieces: list[int]):
    sent = [
        Frame(Kind.STEP, bytes([at]) * body, [memoryview(bytes([at + 100]) * tensors)])
        for at, (body, tensors) in enumerate(sizes)
    ]
    data = b"".join(bytes(part) for frame in sent for part in frame.parts())
    link = Link(cast("Any", Pieces(data, pieces)))
    for frame in sent:
        found = link.read()
        assert found.body == frame.body
        assert b"".join(found.tensors) == b"".join(frame.tensors)
    with pytest.raises(ConnectionResetError):
        link.read()
