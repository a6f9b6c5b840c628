"""Two multiplexers, joined by nothing but frames."""

import random
import tracemalloc
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.errors import BodyTooLarge, ModelNotFound, ProtocolError, QueueFull
from exo.p2p.frames import MAX_PAYLOAD, FrameType, encode, pack, unpack
from exo.p2p.mux import FIRST_PART, MAX_BODY, Mux, MuxLimits
from exo.p2p.mux_events import (
    Called,
    Cancelled,
    Credited,
    Ended,
    Event,
    Failed,
    Item,
    Noticed,
    Opened,
    Ponged,
    Replied,
    SaidGoodbye,
)
from exo.p2p.outgoing import MAX_NOTICES, MAX_PONGS

MIB = 2**20


class Pair:
    """Ann has dialled Bob. `ann_heard` and `bob_heard` are the events of each."""

    def __init__(self, limits: MuxLimits | None = None) -> None:
        self.ann = Mux(dialer=True, limits=limits)
        self.bob = Mux(dialer=False, limits=limits)
        self.ann_heard: list[Event] = []
        self.bob_heard: list[Event] = []

    def to_bob(self) -> bool:
        """Bring one frame of Ann's over."""
        found = self.ann.next_frame()
        if found:
            self.bob_heard += self.bob.receive(found.data)
        return found is not None

    def to_ann(self) -> bool:
        found = self.bob.next_frame()
        if found:
            self.ann_heard += self.ann.receive(found.data)
        return found is not None

    def settle(self) -> None:
        """Bring over all there is."""
        while self.to_bob() | self.to_ann():
            pass


def frame(kind: FrameType, stream: int = 0, *fields: Any) -> bytes:
    return encode(kind, stream, pack(list(fields)))


def request(stream: int, *, whole: bool = True, body: bytes = b"\xc0") -> bytes:
    return frame(FrameType.REQUEST, stream, "m", MIB, whole, body)


def items(heard: list[Event]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for event in heard:
        if isinstance(event, Item):
            found[event.stream].append(unpack(event.data))
    return found


def test_a_request_is_replied_to():
    pair = Pair()
    stream = pair.ann.request("sum", [1, 2])
    pair.settle()
    assert pair.bob_heard == [Called(stream, "sum", [1, 2])]
    pair.bob.reply(stream, 3)
    pair.settle()
    assert pair.ann_heard == [Replied(stream, 3)]


def test_an_error_crosses_as_what_it_is():
    pair = Pair()
    stream = pair.bob.request("load", None)
    pair.settle()
    pair.ann.fail(stream, ModelNotFound("No such model.", hint="Pull it.", retry_after=2))
    pair.settle()
    (event,) = pair.bob_heard
    assert isinstance(event, Failed)
    assert isinstance(event.error, ModelNotFound)
    assert (event.error.message, event.error.hint) == ("No such model.", "Pull it.")
    assert event.error.retry_after == 2


@pytest.mark.parametrize("wire", [{}, {"code": 1, "hint": [1], "retry_after": "soon"}])
def test_an_error_of_any_shape_is_an_error(wire: dict[str, Any]):
    pair = Pair()
    stream = pair.ann.request("m", None)
    pair.settle()
    (event,) = pair.ann.receive(encode(FrameType.ERROR, stream, pack(wire)))
    assert isinstance(event, Failed)
    assert event.error.message == "The other side failed."
    assert event.error.hint is None
    assert event.error.retry_after is None


def test_a_stream_has_items_and_an_end():
    pair = Pair()
    stream = pair.ann.open("count", 3)
    pair.settle()
    assert pair.bob_heard == [Opened(stream, "count", 3)]
    for number in range(3):
        pair.bob.item(stream, number)
    pair.bob.end(stream)
    pair.settle()
    assert items(pair.ann_heard) == {stream: [0, 1, 2]}
    assert pair.ann_heard[-1] == Ended(stream)


def test_after_a_cancel_nothing_comes_and_nothing_is_sent():
    pair = Pair()
    stream = pair.ann.open("count", None)
    pair.settle()
    pair.bob.item(stream, 1)
    pair.ann.cancel(stream)
    assert pair.to_bob()
    assert pair.bob_heard[-1] == Cancelled(stream)
    pair.bob.item(stream, 2)
    pair.bob.end(stream)
    pair.settle()
    assert pair.ann_heard == []


def test_what_was_on_its_way_at_a_cancel_is_ignored():
    pair = Pair()
    stream = pair.ann.open("count", None)
    pair.settle()
    pair.bob.item(stream, 1)
    pair.ann.cancel(stream)
    pair.settle()
    assert pair.ann_heard == []


def test_a_stream_that_nobody_takes_does_not_hold_up_others():
    pair = Pair()
    slow, quick = pair.ann.open("slow", None), pair.ann.open("quick", None)
    pair.settle()
    sent = 0
    while pair.bob.has_room(slow):
        pair.bob.item(slow, bytes(2**16))
        sent += 2**16
        pair.settle()
    assert MIB <= sent < 1.5 * MIB
    for number in range(100):
        assert pair.bob.has_room(quick)
        pair.bob.item(quick, number)
        pair.settle()
        pair.ann.taken(quick, pair.ann_heard[-1].cost)  # type: ignore[union-attr]
    assert items(pair.ann_heard)[quick] == list(range(100))


def test_taking_makes_room_again():
    pair = Pair()
    stream = pair.ann.open("count", None)
    pair.settle()
    while pair.bob.has_room(stream):
        pair.bob.item(stream, bytes(2**16))
        pair.settle()
    for event in pair.ann_heard:
        pair.ann.taken(stream, event.cost)  # type: ignore[union-attr]
    pair.settle()
    assert Credited(stream) in pair.bob_heard
    assert pair.bob.has_room(stream)


def test_streams_take_turns():
    pair = Pair()
    one, other = pair.ann.open("a", None), pair.ann.open("b", None)
    pair.settle()
    for _ in range(3):
        pair.bob.item(one, None)
        pair.bob.item(other, None)
    pair.settle()
    order = [event.stream for event in pair.ann_heard if isinstance(event, Item)]
    assert order == [one, other] * 3


def test_what_is_urgent_overtakes_what_is_large():
    pair = Pair()
    stream = pair.ann.request("blob", None)
    pair.settle()
    pair.bob.reply(stream, bytes(5 * MIB))
    assert pair.to_ann()
    pair.bob.ping(7)
    pair.bob.notify("core", "now")
    assert pair.to_ann()
    assert pair.to_ann()
    assert pair.ann_heard == [Noticed("core", "now")]
    assert pair.to_bob()
    assert pair.bob_heard[-1] == Ponged(7)


@pytest.mark.parametrize("size", [FIRST_PART - 1, FIRST_PART + 1, MIB, MAX_BODY - 16])
def test_a_large_request_and_its_large_reply_arrive_whole(size: int):
    pair = Pair()
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    stream = pair.ann.request("blob", body)
    pair.settle()
    assert pair.bob_heard == [Called(stream, "blob", body)]
    pair.bob.reply(stream, body)
    pair.settle()
    assert pair.ann_heard == [Replied(stream, body)]


def test_a_large_item_arrives_whole_and_behind_it_the_next():
    pair = Pair()
    stream = pair.ann.open("blobs", None)
    pair.settle()
    for size in (10, 5 * MIB, 3 * MIB, 1):
        pair.bob.item(stream, bytes(size))
    pair.bob.end(stream)
    sizes: list[int] = []
    while Ended(stream) not in pair.ann_heard:
        pair.settle()
        for event in pair.ann_heard:
            if isinstance(event, Item):
                sizes.append(len(unpack(event.data)))
                pair.ann.taken(stream, event.cost)
        pair.ann_heard = [event for event in pair.ann_heard if isinstance(event, Ended)]
    assert sizes == [10, 5 * MIB, 3 * MIB, 1]


def test_a_body_beyond_the_largest_is_refused_by_its_sender():
    pair = Pair()
    with pytest.raises(BodyTooLarge, match="too many for one message") as caught:
        pair.ann.request("blob", bytes(MAX_BODY))
    assert "stream" in (caught.value.hint or "")
    with pytest.raises(BodyTooLarge):
        pair.ann.notify("blob", bytes(MAX_PAYLOAD))
    pair.settle()
    assert pair.bob_heard == []


def test_few_large_requests_are_put_together_at_once_and_all_in_the_end():
    pair = Pair(MuxLimits(assemblies=2))
    body = bytes(MIB)
    streams = [pair.ann.request("blob", body) for _ in range(6)]
    for _ in streams:
        pair.to_bob()
    granted = 0
    while found := pair.bob.next_frame():
        granted += 1
        pair.ann.receive(found.data)
    assert granted == 2
    pair.settle()
    assert [event.stream for event in pair.bob_heard if isinstance(event, Called)] == streams


def test_a_large_request_that_is_given_up_makes_room_for_the_next():
    pair = Pair(MuxLimits(assemblies=1))
    given_up, wanted = pair.ann.request("a", bytes(MIB)), pair.ann.request("b", bytes(MIB))
    pair.to_bob()
    pair.to_bob()
    pair.ann.cancel(given_up)
    pair.settle()
    assert [event.stream for event in pair.bob_heard if isinstance(event, Called)] == [wanted]
    assert not any(isinstance(event, Cancelled) for event in pair.bob_heard)


def test_more_streams_than_the_limit_are_not_opened_until_others_end():
    pair = Pair(MuxLimits(streams=2))
    first = pair.ann.request("m", None)
    pair.ann.open("m", None)
    with pytest.raises(QueueFull, match="2 requests"):
        pair.ann.request("m", None)
    pair.settle()
    pair.bob.reply(first, None)
    pair.settle()
    pair.ann.request("m", None)
    pair.settle()


def test_a_reply_counts_until_it_has_been_sent():
    """Or a peer that never reads could make this node hold replies without end."""
    pair = Pair(MuxLimits(streams=2))
    for stream in (1, 3):
        pair.bob.receive(request(stream))
        pair.bob.reply(stream, None)
    with pytest.raises(ProtocolError, match="more streams"):
        pair.bob.receive(request(5))


def test_large_replies_that_nobody_reads_are_refused():
    mux = Mux(dialer=False)
    for stream in range(1, 13, 2):
        mux.receive(request(stream))
    for stream in (1, 3, 5):
        mux.reply(stream, bytes(MAX_BODY - 16))
    mux.reply(7, bytes(2**20))
    with pytest.raises(QueueFull, match="wait to be read"):
        mux.reply(9, bytes(MAX_BODY - 16))
    mux.receive(encode(FrameType.CANCEL, 1))
    mux.reply(9, bytes(MAX_BODY - 16))


def test_a_request_that_is_given_up_before_it_was_sent_never_was():
    mux = Mux(dialer=True)
    kept = mux.request("m", None)
    for _ in range(10):
        mux.cancel(mux.request("m", bytes(2 * FIRST_PART)))
    sent = mux.next_frame()
    assert sent
    assert sent.data == request(kept)
    assert mux.next_frame() is None
    mux.cancel(kept)
    sent = mux.next_frame()
    assert sent
    assert sent.data == encode(FrameType.CANCEL, kept)


def test_notices_beyond_the_limit_are_dropped():
    mux = Mux(dialer=True)
    told = [mux.notify("m", None) for _ in range(MAX_NOTICES + 5)]
    assert told.count(True) == MAX_NOTICES
    assert mux.next_frame()
    assert mux.notify("m", None)


def test_notices_arrive_in_order_with_their_bodies():
    pair = Pair()
    for number in range(10):
        pair.ann.notify("core", {"n": number})
    pair.settle()
    assert pair.bob_heard == [Noticed("core", {"n": number}) for number in range(10)]


def test_a_goodbye_comes_after_notices_and_ends_all_else():
    pair = Pair()
    stream = pair.ann.request("m", None)
    pair.settle()
    pair.bob.reply(stream, None)
    pair.bob.notify("core", "leaving")
    pair.bob.goodbye("the node stops")
    pair.settle()
    assert pair.ann_heard == [Noticed("core", "leaving"), SaidGoodbye("the node stops")]
    assert pair.bob.next_frame() is None


def test_frames_of_a_newer_version_are_ignored():
    mux = Mux(dialer=False)
    assert mux.receive(bytes([200]) + bytes(8) + b"whatever") == []


BROKEN = {
    "nothing": b"",
    "an introduction": encode(FrameType.HELLO),
    "of this side's numbers": request(2),
    "stream zero": request(0),
    "a beginning too long": request(1, body=bytes(FIRST_PART + 1)),
    "a body that is none": request(1, body=b"\xc1"),
    "a negative window": frame(FrameType.OPEN, 1, "m", -1, True, b""),
    "a name too long": frame(FrameType.OPEN, 1, "m" * 300, 1, True, b"\xc0"),
    "fields of wrong types": frame(FrameType.REQUEST, 1, 1, 2, 3, 4),
    "a reply to nothing": encode(FrameType.REPLY, 2, b"\xc0"),
    "an item of nothing": encode(FrameType.ITEM, 1, b"\xc0"),
    "credit for nothing": encode(FrameType.CREDIT, 2, pack(1)),
    "a notice without a name": encode(FrameType.NOTICE, 0, pack([])),
    "a goodbye that is none": encode(FrameType.GOODBYE, 0, b"\xc1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_breaks_the_link(name: str):
    with pytest.raises(ProtocolError):
        Mux(dialer=False).receive(BROKEN[name])


AFTER_REQUEST = {
    "the same again": request(1),
    "an older one": request(1),
    "a body that was whole": encode(FrameType.BODY, 1, b"x"),
    "a reply from who asked": encode(FrameType.REPLY, 1, b"\xc0"),
    "an end from who asked": encode(FrameType.END, 1),
    "credit of nothing": encode(FrameType.CREDIT, 1, pack(0)),
    "credit that is a word": encode(FrameType.CREDIT, 1, pack("much")),
    "credit beyond measure": encode(FrameType.CREDIT, 1, pack(2**60)),
}


@pytest.mark.parametrize("name", AFTER_REQUEST)
def test_what_cannot_be_after_a_request_breaks_the_link(name: str):
    mux = Mux(dialer=False)
    mux.receive(request(1))
    with pytest.raises(ProtocolError):
        mux.receive(AFTER_REQUEST[name])


def test_what_cannot_be_an_answer_breaks_the_link():
    pair = Pair()
    asked, opened = pair.ann.request("m", None), pair.ann.open("m", None)
    for kind, stream in (
        (FrameType.ITEM, asked),
        (FrameType.END, asked),
        (FrameType.REPLY, opened),
        (FrameType.BODY, opened),
    ):
        with pytest.raises(ProtocolError, match="no answer"):
            pair.ann.receive(encode(kind, stream, b"\xc0"))


def test_more_than_the_credit_breaks_the_link():
    pair = Pair()
    stream = pair.ann.open("m", None)
    for _ in range(16):
        pair.ann.receive(encode(FrameType.ITEM, stream, bytes(2**16)))
    with pytest.raises(ProtocolError, match="more than it may"):
        pair.ann.receive(encode(FrameType.ITEM, stream))


def test_a_part_without_room_breaks_the_link():
    mux = Mux(dialer=False, limits=MuxLimits(assemblies=0))
    mux.receive(request(1, whole=False))
    with pytest.raises(ProtocolError, match="more than it may"):
        mux.receive(encode(FrameType.PART, 1, b"x"))


def test_pings_without_reading_the_answers_break_the_link():
    mux = Mux(dialer=False)
    for nonce in range(MAX_PONGS):
        mux.receive(encode(FrameType.PING, nonce))
    with pytest.raises(ProtocolError, match="pings"):
        mux.receive(encode(FrameType.PING, MAX_PONGS))


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*FrameType, 99]),
            st.integers(0, 6),
            st.one_of(
                st.binary(max_size=40),
                st.builds(
                    lambda *fields: pack(list(fields)),
                    st.text(max_size=3),
                    st.integers(-1, 2**41),
                    st.booleans(),
                    st.binary(max_size=3),
                ),
                st.integers(0, 2**20).map(pack),
            ),
        ),
        max_size=30,
    )
)
def test_whatever_frames_come_there_is_no_other_error(frames):
    mux = Mux(dialer=True)
    mux.request("m", bytes(2 * FIRST_PART))
    mux.open("m", None)
    with suppress(ProtocolError):
        for kind, stream, payload in frames:
            mux.receive(bytes([kind]) + stream.to_bytes(8) + payload)
            mux.next_frame()


@given(st.binary(max_size=100))
def test_whatever_bytes_come_there_is_no_other_error(data: bytes):
    with suppress(ProtocolError):
        Mux(dialer=False).receive(data)


def test_a_peer_that_begins_without_end_does_not_make_memory_grow():
    """It asks, sends half, gives up and asks again, and never reads."""
    mux = Mux(dialer=False, limits=MuxLimits(streams=16))
    stream = 1
    sizes: list[int] = []
    tracemalloc.start()
    for _ in range(20):
        for _ in range(16):
            mux.receive(request(stream, whole=False, body=bytes(2**10)))
            mux.receive(encode(FrameType.CREDIT, stream, pack(1)))
            stream += 2
        for number in range(stream - 32, stream, 2):
            mux.receive(encode(FrameType.CANCEL, number))
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[4] < 2**12


@settings(max_examples=60)
@given(st.data())
def test_any_interleaving_delivers_every_item_once_and_in_order(data: st.DataObject):
    """Streams in both directions, with items of all sizes, cancels, and takers as slow as they
    like."""
    pair = Pair(MuxLimits(window=data.draw(st.sampled_from([1, 1000, 2**20]))))
    count = data.draw(st.integers(1, 4))
    opened = {
        pair.ann: [pair.ann.open("m", None) for _ in range(count)],
        pair.bob: [pair.bob.open("m", None) for _ in range(count)],
    }
    pair.settle()
    todo = {
        (mux, stream): data.draw(st.lists(st.integers(0, 3000), max_size=6))
        for mux, streams in opened.items()
        for stream in streams
    }
    todo[pair.ann, opened[pair.ann][0]].append(2 * 2**20)
    expected = {key: list(sizes) for key, sizes in todo.items()}
    got: dict[tuple[Mux, int], list[int]] = defaultdict(list)
    ended: set[tuple[Mux, int]] = set()
    rng = random.Random(data.draw(st.integers(0, 2**32)))  # noqa: S311  to be repeated
    sides = {pair.ann: (pair.ann_heard, pair.bob), pair.bob: (pair.bob_heard, pair.ann)}
    while len(ended) < len(expected):
        for key in rng.sample(list(todo), k=len(todo)):
            mux, stream = key
            server = sides[mux][1]
            if rng.random() < 0.5 and server.has_room(stream):
                if todo[key]:
                    server.item(stream, bytes(todo[key].pop(0)))
                else:
                    server.end(stream)
                    del todo[key]
        for move in rng.sample([pair.to_bob, pair.to_ann], k=rng.randint(0, 2)):
            move()
        for mux, (heard, _) in sides.items():
            while heard and (rng.random() < 0.7 or not todo):
                event = heard.pop(0)
                if isinstance(event, Item):
                    got[mux, event.stream].append(len(unpack(event.data)))
                    mux.taken(event.stream, event.cost)
                elif isinstance(event, Ended):
                    ended.add((mux, event.stream))
    assert {key: got[key] for key in expected} == expected
