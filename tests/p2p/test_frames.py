"""The codec, and that what it writes never changes by accident."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import ProtocolError
from exo.p2p.frames import FrameType, decode, encode, pack, unpack, unpack_fields
from exo.p2p.mux import Mux
from exo.p2p.transport import MAX_FRAME

GOLDEN = Path(__file__).parents[1] / "transcripts" / "frames.txt"

bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def drain(mux: Mux) -> list[bytes]:
    frames: list[bytes] = []
    while found := mux.next_frame():
        frames.append(found.data)
    return frames


def written() -> list[tuple[str, bytes]]:
    """Every kind of frame, as one side of a link writes it."""
    ann, bob = Mux(dialer=True), Mux(dialer=False)
    lines: list[tuple[str, bytes]] = []

    def say(name: str, mux: Mux) -> list[bytes]:
        frames = drain(mux)
        lines.extend((name, frame) for frame in frames)
        return frames

    def hear(mux: Mux, frames: list[bytes]) -> None:
        for frame in frames:
            mux.receive(frame)

    asked, opened = ann.request("sum", [1, 2]), ann.open("count", {"to": 3})
    hear(bob, say("request sum [1, 2]; open count {to: 3}", ann))
    bob.reply(asked, 3)
    bob.item(opened, "one")
    bob.item(opened, b"\x00\xff")
    hear(ann, say("reply 3; item 'one'; item 00ff", bob))
    ann.taken(opened, 2**20)
    hear(bob, say("credit", ann))
    bob.end(opened)
    hear(ann, say("end", bob))
    failing = ann.request("fail", None)
    hear(bob, drain(ann))
    bob.fail(failing, ProtocolError("No.", hint="Do not.", retry_after=1.5))
    hear(ann, say("error", bob))
    waiting = ann.open("wait", None)
    say("open wait; cancel", ann)
    ann.cancel(waiting)
    say("open wait; cancel", ann)
    ann.notify("core", ["ping", {"n": 1}])
    ann.ping(7)
    hear(bob, say("notice core [ping, {n: 1}]; ping 7", ann))
    say("pong 7", bob)
    bob.goodbye("the node stops")
    say("goodbye", bob)
    others = [kind for kind in FrameType if kind < FrameType.REQUEST]
    for kind in (*others, FrameType.PART, FrameType.BODY):
        name = f"{kind.name.lower()} about stream 258, payload 'x'"
        lines += [(name, encode(kind, 258, b"x"))]
    return lines


def test_the_wire_format_has_not_changed():
    """A change here breaks links with the nodes that are out there: it needs a new protocol number
    in `admission.PROTOCOLS`, and the old one served beside it."""
    text = "".join(f"{frame.hex()}  {name}\n" for name, frame in written())
    assert text == GOLDEN.read_text("utf-8")


@given(st.sampled_from(FrameType), st.integers(0, 2**64 - 1), st.binary(max_size=100))
def test_what_is_encoded_is_decoded(kind: FrameType, stream: int, payload: bytes):
    frame = decode(encode(kind, stream, payload))
    assert (frame.type, frame.stream, bytes(frame.payload)) == (kind, stream, payload)


@pytest.mark.parametrize("size", [0, 8, MAX_FRAME + 1])
def test_a_frame_of_an_impossible_size_is_none(size: int):
    with pytest.raises(ProtocolError):
        decode(bytes(size))


@given(bodies)
def test_what_is_packed_is_unpacked(body: Any):
    assert unpack(pack(body)) == body


@pytest.mark.parametrize("body", [object(), 2**64, {1, 2}, "\ud800", [{"a": 1j}]])
def test_what_msgpack_cannot_carry_is_said_at_once(body: object):
    with pytest.raises(ProtocolError, match="cannot be"):
        pack(body)


def nested(depth: int) -> Any:
    body: Any = None
    for _ in range(depth):
        body = [body]
    return body


def test_what_nests_too_deeply_is_refused_on_both_sides():
    with pytest.raises(ProtocolError):
        pack(nested(2000))
    with pytest.raises(ProtocolError):
        unpack(b"\x91" * 2000 + b"\xc0")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xd4\x01\x00",  # an extension type
        b"\xd6\xff\x00\x00\x00\x01",  # a timestamp, which is one
        b"\x81\x01\x02",  # a number as a key
        b"\x81\x90\x02",  # a list as a key
        b"\xa1\xff",  # no UTF-8
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements, announced
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
)
def test_what_is_no_body_is_refused(payload: bytes):
    with pytest.raises(ProtocolError):
        unpack(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_refused(payload: bytes):
    with suppress(ProtocolError):
        unpack(payload)


def test_fields_are_of_their_types_and_more_may_follow():
    assert unpack_fields(pack(["a", 1, None]), str, int) == ["a", 1, None]
    for wrong in (["a"], [1, "a"], ["a", True], "ab", {"a": 1}):
        with pytest.raises(ProtocolError):
            unpack_fields(pack(wrong), str, int)
