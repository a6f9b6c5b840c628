"""Credit: what may be sent, and how much can be held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import ProtocolError
from exo.p2p.flow import FRAME_COST, Inbox, Outbox
from exo.p2p.frames import MAX_PART, FrameType

KIB = 1024


def take_all(outbox: Outbox) -> list[tuple[FrameType, bytes]]:
    found: list[tuple[FrameType, bytes]] = []
    while outbox.ready:
        kind, payload = outbox.take()
        found.append((kind, bytes(payload)))
    return found


def test_nothing_that_costs_leaves_without_credit():
    outbox = Outbox(0)
    outbox.put(FrameType.ITEM, b"x")
    assert not outbox.ready
    outbox.grant(1)
    assert take_all(outbox) == [(FrameType.ITEM, b"x")]
    outbox.put(FrameType.ITEM, b"y")
    assert not outbox.ready
    assert not outbox.has_room


def test_an_end_needs_no_credit_but_keeps_its_place():
    outbox = Outbox(1)
    for kind in (FrameType.ITEM, FrameType.ITEM, FrameType.END):
        outbox.put(kind)
    assert take_all(outbox) == [(FrameType.ITEM, b"")]
    outbox.grant(2 * FRAME_COST)
    assert take_all(outbox) == [(FrameType.ITEM, b""), (FrameType.END, b"")]


def test_a_long_payload_goes_in_parts():
    outbox = Outbox(10 * MAX_PART)
    data = bytes(range(256)) * (2 * MAX_PART // 256) + b"end"
    outbox.put(FrameType.REPLY, data)
    frames = take_all(outbox)
    assert [kind for kind, _ in frames] == [FrameType.PART, FrameType.PART, FrameType.REPLY]
    assert b"".join(payload for _, payload in frames) == data


def test_room_is_made_by_taking_and_told_half_a_window_at_a_time():
    inbox = Inbox(window=64 * KIB, largest=KIB**2)
    costs = [inbox.put_last(memoryview(bytes(10 * KIB)))[1] for _ in range(7)]
    with pytest.raises(ProtocolError, match="more than it may"):
        inbox.put_last(memoryview(b"x"))
    grants: list[int] = []
    for cost in costs:
        inbox.taken(cost)
        grants.append(inbox.grant())
    assert grants == [0, 0, 0, sum(costs[:4]), 0, 0, 0]


def test_a_message_larger_than_the_window_gets_through_if_it_is_waited_for():
    inbox = Inbox(window=4 * KIB, largest=KIB**2)
    granted = 4 * KIB
    for _ in range(100):
        assert granted > 0
        inbox.put(memoryview(bytes(KIB)))
        granted += inbox.grant() - KIB - FRAME_COST
    whole, cost = inbox.put_last(memoryview(b"x"))
    assert len(whole) == 100 * KIB + 1
    assert cost <= 4 * KIB


def test_behind_what_nobody_takes_a_large_message_waits():
    inbox = Inbox(window=4 * KIB, largest=KIB**2)
    _, cost = inbox.put_last(memoryview(bytes(KIB)))
    for _ in range(3):
        inbox.put(memoryview(bytes(KIB)))
        assert inbox.grant() == 0
    with pytest.raises(ProtocolError, match="more than it may"):
        inbox.put(memoryview(b"x"))
    inbox.taken(cost)
    assert inbox.grant() == 4 * (KIB + FRAME_COST)


def test_a_message_has_a_largest_size():
    inbox = Inbox(window=KIB**2, largest=KIB)
    inbox.put(memoryview(bytes(KIB)))
    with pytest.raises(ProtocolError, match="larger than"):
        inbox.put_last(memoryview(b"x"))


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 8000), st.randoms())
def test_whatever_is_sent_arrives_and_what_is_held_is_bounded(sizes, window, rng):
    """An outbox and an inbox, with an application that takes now and then."""
    outbox, inbox = Outbox(window), Inbox(window, KIB**2)
    for size in sizes:
        outbox.put(FrameType.ITEM, bytes(size))
    waiting: list[tuple[int, int]] = []
    arrived: list[int] = []
    while outbox.ready or waiting:
        if outbox.ready and (not waiting or rng.random() < 0.7):
            _, payload = outbox.take()
            whole, cost = inbox.put_last(memoryview(payload))
            waiting.append((len(whole), cost))
            assert sum(cost for _, cost in waiting) <= window + 3000 + FRAME_COST
        else:
            size, cost = waiting.pop(0)
            arrived.append(size)
            inbox.taken(cost)
            outbox.grant(inbox.grant())
    assert arrived == sizes
