"""Channels through TLS on this machine's loopback, between well-behaved nodes."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from exo.errors import (
    ConfigError,
    HandshakeError,
    LinkClosed,
    PeerTimeout,
    PeerUnreachable,
    PortInUse,
    ProtocolError,
)
from exo.p2p.addresses import parse
from exo.p2p.link import Body
from exo.p2p.link_events import DialFailed, LinkDown
from exo.p2p.strangers import StrangerLimits
from exo.p2p.tls import TlsTransport
from exo.p2p.tls_context import has_aes
from exo.p2p.transport import Channel
from tests.p2p.nodes import LOOPBACK, lab
from tests.p2p.people import ANN, BOB, EVE


class Joined:
    """Ann's and Bob's ends of a channel."""

    def __init__(self) -> None:
        self._accepted: asyncio.Queue[Channel] = asyncio.Queue()

    async def open(self) -> "Joined":
        self.listener = await TlsTransport(BOB).listen(LOOPBACK, self._accepted.put)
        self.ann = await TlsTransport(ANN).connect(self.listener.address, BOB.peer_id)
        self.bob = await self._accepted.get()
        return self

    async def close(self) -> None:
        self.ann.abort()
        self.bob.abort()
        await self.listener.close()


@pytest.fixture
async def joined() -> AsyncGenerator[Joined]:
    found = await Joined().open()
    yield found
    await found.close()


async def test_both_sides_know_each_other_and_share_a_binding(joined: Joined):
    assert (joined.ann.peer_id, joined.bob.peer_id) == (BOB.peer_id, ANN.peer_id)
    assert joined.ann.binding == joined.bob.binding
    assert len(joined.ann.binding) == 32
    assert parse(joined.bob.address).host == "127.0.0.1"


async def test_each_channel_has_a_binding_of_its_own(joined: Joined):
    other = await Joined().open()
    assert other.ann.binding != joined.ann.binding
    await other.close()


async def test_no_session_can_be_resumed(joined: Joined):
    """What is said early could be replayed."""
    await joined.bob.send(b"x")
    await joined.ann.receive()
    session = joined.ann._connection.get_session()
    assert session is not None
    again = await TlsTransport(ANN).connect(joined.listener.address, None)
    assert again._connection.get_protocol_version_name() == "TLSv1.3"
    again.abort()
    (await joined._accepted.get()).abort()
    context = joined.ann._connection.get_context()
    assert context.get_session_cache_mode() == 0


@pytest.mark.parametrize("size", [0, 1, 2**14 - 4, 2**14 - 3, 2**14, 2**16 + 7, 2**20])
async def test_frames_of_any_size_arrive_whole_and_in_order(joined: Joined, size: int):
    frames = [bytes([number]) * size for number in range(5)] + [b"end"]

    async def send() -> None:
        for frame in frames:
            await joined.ann.send(frame)

    sending = asyncio.create_task(send())
    assert [await joined.bob.receive() for _ in frames] == frames
    await sending


async def test_bytes_that_come_one_by_one_make_the_same_frames(joined: Joined):
    for byte in b"\x00\x00\x00\x05hello\x00\x00\x00\x00\x00\x00\x00\x01!":
        joined.ann._connection.send(bytes([byte]))
    assert [await joined.bob.receive() for _ in range(3)] == [b"hello", b"", b"!"]


async def test_a_frame_that_is_too_long_is_refused_before_it_has_come(joined: Joined):
    joined.ann._connection.send((2**32 - 1).to_bytes(4))
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        await joined.bob.receive()
    await joined.bob.send(bytes(101))
    with pytest.raises(ProtocolError, match="101 bytes"):
        await joined.ann.receive(limit=100)


async def test_who_sends_waits_for_who_does_not_read(joined: Joined):
    async def flood() -> None:
        while True:
            await joined.ann.send(bytes(2**20))

    flooding = asyncio.create_task(flood())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not flooding.done()
    for _ in range(20):
        assert await joined.bob.receive() == bytes(2**20)
    flooding.cancel()
    await asyncio.wait([flooding])


async def test_a_close_waits_until_what_was_sent_has_been_read(joined: Joined):
    for _ in range(10):
        await joined.bob.send(b"unread by Ann")
        await joined.ann.send(bytes(1000))
    await joined.ann.send(b"goodbye")
    closing = asyncio.create_task(joined.ann.close())
    got = [await joined.bob.receive() for _ in range(11)]
    assert got[-1] == b"goodbye"
    with pytest.raises(LinkClosed):
        await joined.bob.receive()
    joined.bob.abort()
    await closing
    await joined.ann.close()


async def test_a_close_does_not_wait_for_ever(joined: Joined, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("exo.p2p.tls_channel._LINGER", 0.01)
    await joined.ann.close()


async def test_an_abort_wakes_who_waits(joined: Joined):
    async def flood() -> None:
        while True:
            await joined.ann.send(bytes(2**20))

    waiting = [asyncio.create_task(joined.ann.receive()), asyncio.create_task(flood())]
    for _ in range(100):
        await asyncio.sleep(0)
    joined.ann.abort()
    joined.ann.abort()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, LinkClosed)
    with pytest.raises(LinkClosed):
        await joined.ann.send(b"x")
    with suppress(LinkClosed):
        while await joined.bob.receive():
            pass  # what had been sent before


async def test_a_receive_that_is_given_up_leaves_the_channel_as_it_was(joined: Joined):
    first = asyncio.create_task(joined.ann.receive())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    await joined.bob.send(b"x")
    assert await joined.ann.receive() == b"x"


async def test_one_broken_connection_does_not_disturb_another(joined: Joined):
    """OpenSSL keeps errors by thread, and all connections share one."""
    other = await Joined().open()
    other.ann._socket.close()
    other.bob.abort()
    other.ann._readiness.close()
    with pytest.raises(LinkClosed):
        await other.ann.receive()
    broken = await Joined().open()
    broken.ann._socket.send(b"\x17\x03\x03\x00\x05junk!")
    with pytest.raises(LinkClosed):
        await broken.bob.receive()
    await joined.ann.send(b"x")
    assert await joined.bob.receive() == b"x"
    await broken.close()
    await other.close()


async def test_a_name_is_resolved():
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    listener = await TlsTransport(BOB).listen(LOOPBACK, accepted.put)
    port = parse(listener.address).port
    channel = await TlsTransport(ANN).connect(f"/dns4/localhost/tcp/{port}", BOB.peer_id)
    channel.abort()
    (await accepted.get()).abort()
    await listener.close()


async def test_everywhere_means_both_families():
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    listener = await TlsTransport(BOB).listen("/ip6/::/tcp/0", accepted.put)
    here = parse(listener.address)
    hosts = ["ip4/127.0.0.1"] + ["ip6/::1"] * (here.kind == "ip6")
    for host in hosts:
        channel = await TlsTransport(ANN).connect(f"/{host}/tcp/{here.port}", BOB.peer_id)
        there = await accepted.get()
        assert str(parse(there.address)).startswith(f"/{host}/")
        channel.abort()
        there.abort()
    await listener.close()


async def test_a_port_that_is_taken():
    listener = await TlsTransport(BOB).listen(LOOPBACK, lambda _: asyncio.sleep(0))
    with pytest.raises(PortInUse, match="cannot listen"):
        await TlsTransport(ANN).listen(listener.address, lambda _: asyncio.sleep(0))
    await listener.close()


async def test_what_cannot_be_listened_on():
    with pytest.raises(ConfigError, match="no address to listen on"):
        await TlsTransport(BOB).listen("/dns/localhost/tcp/0", lambda _: asyncio.sleep(0))


async def test_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(PeerUnreachable) as caught:
        await TlsTransport(ANN).connect(f"/ip4/127.0.0.1/tcp/{port}", None)
    assert caught.value.refused


@pytest.mark.parametrize("address", ["/dns/a.invalid/tcp/1", "/ip6zone/no0/ip6/fe80::1/tcp/1"])
async def test_where_nobody_can_be(address: str):
    with pytest.raises(PeerUnreachable) as caught:
        await TlsTransport(ANN).connect(address, None)
    assert not caught.value.refused


async def test_memory_addresses_are_of_another_world():
    with pytest.raises(PeerUnreachable, match="not on this network"):
        await TlsTransport(ANN).connect("/memory/1", None)


async def test_who_does_not_answer():
    """The connection is made by the kernel, and nobody takes it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"
        with pytest.raises(PeerTimeout):
            await TlsTransport(ANN, StrangerLimits(patience=0.01)).connect(address, None)


async def test_another_node_than_expected():
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    transport = TlsTransport(BOB)
    listener = await transport.listen(LOOPBACK, accepted.put)
    with pytest.raises(HandshakeError, match=f"not {EVE.peer_id}"):
        await TlsTransport(ANN).connect(listener.address, EVE.peer_id)
    await listener.close()


async def test_links_over_tls_from_first_to_last():
    async def blobs(_: str, body: Body) -> AsyncGenerator[Body]:
        assert isinstance(body, int)
        for number in range(body):
            yield {"number": number, "blob": bytes(2**18)}

    async with lab() as found:
        ann, bob = await found.tls_peer(ANN), await found.tls_peer(BOB)
        bob.services.streams["blobs"] = blobs
        ann.dial(bob)
        bob.dial(ann)
        await asyncio.gather(ann.events.get(), bob.events.get())
        link = ann.link_to(bob)
        async with aclosing(link.stream("blobs", 40)) as items:
            numbers = [item["number"] async for item in items]  # type: ignore[index,call-overload]
        assert numbers == list(range(40))
        assert 0 < await link.ping() < 60
        assert await link.bandwidth() > 0
        await bob.links.close()
        assert await ann.next(LinkDown) == LinkDown(BOB.peer_id, clean=True)
        ann.dial(bob)
        assert await ann.next(DialFailed) == DialFailed(BOB.peer_id, (bob.address,), refused=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor: 0\nflags\t\t: fpu aes avx\n", True),
        ("Features\t: fp asimd aes pmull\n", True),
        ("Features\t: fp asimd crc32\n", False),
        ("", False),
    ],
)
def test_what_the_processor_can(tmp_path: Path, text: str, found: bool):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert has_aes(path) == found
    assert has_aes(tmp_path / "none")
