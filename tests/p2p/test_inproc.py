"""The network in memory behaves as the real one does."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from exo.errors import HandshakeError, LinkClosed, PeerUnreachable, PortInUse, ProtocolError
from exo.p2p.inproc import CAPACITY, InprocChannel, InprocNetwork
from exo.p2p.transport import Channel

Ends = tuple[InprocChannel, Channel]


@pytest.fixture
async def ends() -> AsyncGenerator[Ends]:
    """Ann's and Bob's end of a channel."""
    network = InprocNetwork()
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    listener = await network.transport("bob").listen("/memory/0", accepted.put)
    ann = await network.transport("ann").connect(listener.address, "bob")
    bob = await accepted.get()
    yield ann, bob
    ann.abort()
    await listener.close()


async def test_both_sides_know_each_other(ends: Ends):
    ann, bob = ends
    assert (ann.peer_id, bob.peer_id) == ("bob", "ann")
    assert ann.binding == bob.binding
    assert ann.address.startswith("/memory/")
    assert ann.address != bob.address


async def test_frames_arrive_in_order_and_are_copies(ends: Ends):
    ann, bob = ends
    frame = bytearray(b"one")
    await ann.send(frame)
    frame[:] = b"two"
    await ann.send(frame)
    assert [await bob.receive(), await bob.receive()] == [b"one", b"two"]
    await ann.send(b"long")
    with pytest.raises(ProtocolError):
        await bob.receive(limit=3)


async def test_who_sends_waits_for_who_does_not_read(ends: Ends):
    ann, bob = ends
    await ann.send(bytes(CAPACITY))
    sending = asyncio.create_task(ann.send(b"x"))
    await asyncio.sleep(0)
    assert not sending.done()
    await bob.receive()
    await sending
    assert await bob.receive() == b"x"


async def test_after_a_close_what_was_sent_still_arrives(ends: Ends):
    ann, bob = ends
    await ann.send(b"last")
    await ann.close()
    assert await bob.receive() == b"last"
    for attempt in (bob.receive(), bob.send(b"x"), ann.send(b"x"), ann.receive()):
        with pytest.raises(LinkClosed):
            await attempt


async def test_after_an_abort_nothing_does(ends: Ends):
    ann, bob = ends
    waiting = asyncio.create_task(ann.receive())
    await ann.send(b"lost")
    await asyncio.sleep(0)
    ann.abort()
    for attempt in (waiting, bob.receive(), bob.send(b"x")):
        with pytest.raises(LinkClosed):
            await attempt


async def test_who_is_not_there_or_is_another():
    network = InprocNetwork()
    ann = network.transport("ann")
    with pytest.raises(PeerUnreachable) as caught:
        await ann.connect("/memory/1", None)
    assert caught.value.refused
    listener = await network.transport("bob").listen("/memory/1", _nothing)
    with pytest.raises(PortInUse):
        await ann.listen("/memory/1", _nothing)
    with pytest.raises(HandshakeError, match="not eve"):
        await ann.connect(listener.address, "eve")
    await listener.close()
    with pytest.raises(PeerUnreachable):
        await ann.connect("/memory/1", None)


async def _nothing(_: Channel) -> None:
    pass


async def test_a_listener_that_closes_stops_what_it_began():
    network = InprocNetwork()
    stopped = asyncio.Event()

    async def accept(_: Channel) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    listener = await network.transport("bob").listen("/memory/0", accept)
    channel = await network.transport("ann").connect(listener.address, None)
    await asyncio.sleep(0)
    await listener.close()
    assert stopped.is_set()
    channel.abort()
