"""Strangers of every kind, over real sockets. Each must be cut and counted, and an honest peer must
get its link while they try."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from exo.errors import HandshakeError, LinkClosed, PeerUnreachable
from exo.p2p.addresses import parse
from exo.p2p.admission import NONCE_BYTES, Handshake, Hello, Send
from exo.p2p.certificate import Certificate, make_certificate
from exo.p2p.frames import FrameType, decode, encode, pack
from exo.p2p.link_events import DialFailed, LinkDown, LinkUp
from exo.p2p.strangers import StrangerLimits
from exo.p2p.tls import TlsTransport
from exo.p2p.tls_channel import TlsChannel
from exo.p2p.tls_context import ALPN, make_context
from exo.p2p.transport import Channel
from tests.p2p.nodes import LOOPBACK, Lab, Peer, lab
from tests.p2p.people import ANN, BOB, EVE
from tests.p2p.test_certificate import build, extension_of

SECRET = b"s" * 32
# For what is to be cut because it is slow. An honest peer may need several tries then.
HASTY = StrangerLimits(patience=0.1)


@dataclass
class Attack:
    """A connection of a stranger's to Bob."""

    sock: socket.socket

    @classmethod
    async def on(cls, bob: Peer) -> "Attack":
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target(bob))
        return cls(sock)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def until_cut(self) -> bytes:
        """What Bob says before he hangs up."""
        said = b""
        with self.sock, suppress(ConnectionError):
            while data := await asyncio.get_running_loop().sock_recv(self.sock, 2**16):
                said += data
        return said


def target(peer: Peer) -> tuple[str, int]:
    address = parse(peer.address)
    return address.host, address.port


async def an_honest_peer_is_served(found: Lab, bob: Peer) -> None:
    ann = await found.tls_peer(ANN, secret=bob.admission.secret)
    event: object = None
    while not isinstance(event, LinkUp):
        ann.dial(bob)
        event = await ann.events.get()


GARBAGE = {
    "zeroes": bytes(1000),
    "noise": bytes(range(256)) * 10,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.0\r\n",
    "half a record": bytes.fromhex("160301ffff") + bytes(100),
    "a hello of nothing": bytes.fromhex("16030100040100000000"),
    "an alert": bytes.fromhex("15030300020228"),
    "a frame without tls": b"\x00\x00\x00\x09" + encode(FrameType.GREETING),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_cut(name: str):
    async with lab() as found:
        bob = await found.tls_peer(BOB, HASTY)
        attack = await Attack.on(bob)
        await attack.send(GARBAGE[name])
        await attack.until_cut()
        assert bob.links.refused.total() == 1
        await an_honest_peer_is_served(found, bob)


@pytest.mark.parametrize("start", [b"", b"\x16", bytes.fromhex("1603010200010001fc0303")])
async def test_who_says_nothing_or_only_a_beginning_is_cut(start: bytes):
    async with lab() as found:
        bob = await found.tls_peer(BOB, HASTY)
        attack = await Attack.on(bob)
        await attack.send(start)
        assert await attack.until_cut() == b""
        assert bob.links.refused == {"too_slow": 1}


async def test_who_hangs_up_is_forgotten():
    async with lab() as found:
        bob = await found.tls_peer(BOB, HASTY)
        (await Attack.on(bob)).sock.close()
        await an_honest_peer_is_served(found, bob)
        assert set(bob.links.refused) <= {"hung_up", "too_slow"}


def plain_tls(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.set_alpn_protocols([ALPN.decode()])
    return context


async def test_tls_without_a_certificate_is_cut():
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await speak_tls(bob, plain_tls())
        assert bob.links.refused == {"bad_handshake": 1}
        await an_honest_peer_is_served(found, bob)


async def test_an_older_tls_is_cut():
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await speak_tls(bob, plain_tls(ssl.TLSVersion.TLSv1_2))
        assert bob.links.refused == {"bad_handshake": 1}


async def speak_tls(bob: Peer, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(*target(bob), ssl=context)
    try:
        writer.write(b"\x00\x00\x00\x09" + encode(FrameType.GREETING))
        if not await reader.read():
            raise ConnectionResetError
    finally:
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


def transport_with(certificate: Certificate, alpn: bytes = ALPN) -> TlsTransport:
    """One that shows this certificate, whatever that is."""
    transport = TlsTransport(EVE)
    transport._context = make_context(certificate)
    transport._context.set_alpn_protos([alpn])
    transport._context.set_alpn_select_callback(lambda *_: alpn)
    return transport


KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
IMPOSTORS = {
    "whose key the identity did not sign": build(KEY, extension_of(ANN, OTHER_KEY)),
    "that names nobody": build(KEY, None),
    "that is damaged": build(KEY, b"nonsense"),
    "with a copied signature": build(KEY, extension_of(ANN, KEY)[:-1] + b"x"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
async def test_a_certificate_is_cut(name: str):
    """Shown by who dials, and by who is dialled."""
    eve = transport_with(Certificate(KEY, IMPOSTORS[name]))
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        channel = await eve.connect(bob.address, BOB.peer_id)
        with pytest.raises(LinkClosed):
            await channel.receive()
        channel.abort()
        assert bob.links.refused == {"bad_handshake": 1}
        listener = await eve.listen(LOOPBACK, _keep)
        with pytest.raises(HandshakeError):
            await TlsTransport(BOB).connect(listener.address, ANN.peer_id)
        bob.links.dial(ANN.peer_id, [listener.address])
        assert await bob.next(DialFailed) == DialFailed(ANN.peer_id, (listener.address,), False)
        await listener.close()
        await an_honest_peer_is_served(found, bob)


async def _keep(_: Channel) -> None:
    await asyncio.Event().wait()


async def test_another_application_is_no_node():
    made = make_certificate(EVE)
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        with pytest.raises((HandshakeError, PeerUnreachable)):
            await transport_with(made, b"h2").connect(bob.address, None)
        listener = await transport_with(made, b"h2").listen(LOOPBACK, _keep)
        with pytest.raises((HandshakeError, PeerUnreachable)):
            await TlsTransport(BOB).connect(listener.address, None)
        await listener.close()


@pytest.mark.parametrize("say", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", bytes(100)])
async def test_a_host_that_answers_something_else(say: bytes):
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(say)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises((HandshakeError, PeerUnreachable)) as caught:
        await TlsTransport(ANN).connect(f"/ip4/127.0.0.1/tcp/{port}", None)
    assert not getattr(caught.value, "refused", False)
    server.close()
    await server.wait_closed()


class Wire:
    """Stands between two nodes, passes on what they send, and keeps it."""

    def __init__(self, bob: Peer) -> None:
        self._bob = bob
        self._done: list[asyncio.Task[None]] = []
        self.from_dialer = b""

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"/ip4/127.0.0.1/tcp/{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._done)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*target(self._bob))
        self._done += [
            asyncio.create_task(self._pass(reader, there_writer, keep=True)),
            asyncio.create_task(self._pass(there_reader, writer, keep=False)),
        ]

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                self.from_dialer += data * keep
                writer.write(data)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_handshake_that_was_overheard_cannot_be_replayed():
    async with lab() as found:
        ann, bob = await found.tls_peer(ANN), await found.tls_peer(BOB)
        async with Wire(bob) as wire:
            ann.links.dial(BOB.peer_id, [wire.address])
            await ann.next(LinkUp)
            await bob.next(LinkUp)
            ann.links.drop(BOB.peer_id, "done")
            await bob.events.get()
        attack = await Attack.on(bob)
        await attack.send(wire.from_dialer)
        await attack.until_cut()
        assert bob.links.refused.total() == 1
        assert not bob.links.all()


class Eve:
    """Speaks TLS as a node does, with an identity of her own, and has no secret."""

    def __init__(self) -> None:
        self.transport = TlsTransport(EVE)
        self.hello = Hello(peer_id=EVE.peer_id, name="eve", cluster="exo", version="0", boot="e")

    async def connect(self, bob: Peer) -> TlsChannel:
        return await self.transport.connect(bob.address, BOB.peer_id)


async def read_all(channel: Channel) -> list[FrameType]:
    """The types of what comes until the channel is closed."""
    found: list[FrameType] = []
    with suppress(LinkClosed):
        while True:
            found.append(FrameType(decode(await channel.receive()).type))
    channel.abort()
    return found


CLAIMS: dict[str, tuple[list[object], str]] = {
    "another cluster": (["lab", [1], True], "other_cluster"),
    "a newer protocol only": (["exo", [7], True], "older_than_peer"),
    "no protocol": (["exo", [], True], "newer_than_peer"),
    "no secret": (["exo", [1], False], "peer_open"),
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_a_stranger_hears_a_greeting_and_no_more(name: str):
    claim, reason = CLAIMS[name]
    async with lab() as found:
        bob = await found.tls_peer(BOB, secret=SECRET)
        channel = await Eve().connect(bob)
        await channel.send(encode(FrameType.GREETING, 0, pack([*claim, bytes(NONCE_BYTES)])))
        assert await read_all(channel) == [FrameType.GREETING]
        assert bob.links.refused == {reason: 1}


async def test_a_wrong_proof_is_refused_and_a_replayed_one_too():
    """Eve has a member's proof of another session: what she sends, she has seen to be right."""
    async with lab() as found:
        bob = await found.tls_peer(BOB, secret=SECRET)
        eve = Eve()
        first = await eve.connect(bob)
        handshake = Handshake(
            bob.admission,
            eve.hello,
            peer_id=BOB.peer_id,
            binding=first.binding,
            outgoing=True,
            nonce=bytes(NONCE_BYTES),
        )
        (greeting,) = handshake.start()
        assert isinstance(greeting, Send)
        await first.send(greeting.frame)
        (proof,) = handshake.receive(await first.receive())
        assert isinstance(proof, Send)
        await first.send(proof.frame)
        assert decode(await first.receive()).type == FrameType.PROOF, "it was right there"
        first.abort()
        for frame in (proof.frame, encode(FrameType.PROOF, 0, bytes(32))):
            channel = await eve.connect(bob)
            await channel.send(greeting.frame)
            await channel.send(frame)
            assert await read_all(channel) == [FrameType.GREETING, FrameType.REFUSE]
        assert bob.links.refused["wrong_secret"] == 2


async def test_who_passes_on_what_members_say_gets_nothing():
    """Eve is in the middle: Ann dialled her for Bob, not knowing Bob's id, and she dials Bob."""
    async with lab() as found:
        ann = await found.tls_peer(ANN, secret=SECRET)
        bob = await found.tls_peer(BOB, secret=SECRET)
        eve = Eve()
        seen: list[FrameType] = []

        async def pass_on(one: Channel, other: Channel) -> None:
            with suppress(LinkClosed):
                while True:
                    frame = await one.receive()
                    seen.append(FrameType(decode(frame).type))
                    await other.send(frame)
            other.abort()

        async def serve(from_ann: Channel) -> None:
            to_bob = await eve.connect(bob)
            await asyncio.gather(pass_on(from_ann, to_bob), pass_on(to_bob, from_ann))

        listener = await eve.transport.listen(LOOPBACK, serve)
        ann.links.dial(None, [listener.address])
        await ann.next(DialFailed)
        await listener.close()
        assert FrameType.HELLO not in seen
        assert ann.links.refused == bob.links.refused == {"wrong_secret": 1}


WORSE: dict[str, Callable[[Channel], Awaitable[None]]] = {
    "nothing": lambda _: asyncio.sleep(0),
    "a request": lambda channel: channel.send(
        encode(FrameType.REQUEST, 1, pack(["core", 1, True, b"\xc0"]))
    ),
    "a frame too long for a stranger": lambda channel: channel.send(bytes(2**17)),
    "no frame": lambda channel: channel.send(b""),
}


@pytest.mark.parametrize("name", WORSE)
async def test_before_an_introduction_nothing_is_heard(name: str):
    async with lab() as found:
        bob = await found.tls_peer(BOB, HASTY)
        channel = await Eve().connect(bob)
        await WORSE[name](channel)
        assert await read_all(channel) == [FrameType.GREETING]
        assert bob.links.refused.total() == 1
        assert not bob.links.all()


@pytest.mark.parametrize(
    "frame", [encode(FrameType.ITEM, 1, bytes(2**19)), bytes(2**20 + 1), b"", b"\x10"]
)
async def test_a_member_that_breaks_the_rules_is_cut_with_a_reason(frame: bytes):
    async with lab() as found:
        ann, bob = await found.tls_peer(ANN), await found.tls_peer(BOB)
        link = await ann.link(bob)
        with suppress(LinkClosed):
            await link._channel.send(frame)
        assert "said goodbye: " in (await link.wait_closed()).message
        await ann.next(LinkDown)
        await bob.next(LinkDown)
        await ann.link(bob)


async def test_a_thousand_half_open_connections_do_not_keep_an_honest_peer_out():
    """For no longer than a handshake may take; and they hold no more than their few places."""
    places = StrangerLimits.per_host
    async with lab() as found:
        bob = await found.tls_peer(BOB, StrangerLimits(patience=0.5))
        waiting: set[asyncio.Task[bytes]] = set()
        for _ in range(20):
            attacks = await asyncio.gather(*(Attack.on(bob) for _ in range(50)))
            waiting |= {asyncio.create_task(attack.until_cut()) for attack in attacks}
            while len(waiting) > places:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(bob.links._listeners[0]._tasks) <= places
        await an_honest_peer_is_served(found, bob)
        assert bob.links.refused["too_many_of_host"] > 900
        await asyncio.gather(*waiting)


async def test_only_so_many_strangers_are_there_at_once():
    """Beyond the limit in all, whoever comes is cut, until others are gone."""
    async with lab() as found:
        bob = await found.tls_peer(BOB, StrangerLimits(total=2, per_host=8))
        attacks = [await Attack.on(bob) for _ in range(3)]
        await attacks[2].until_cut()
        assert bob.links.refused == {"too_many": 1}
        for attack in attacks[:2]:
            attack.sock.close()
        for _ in range(100):
            await asyncio.sleep(0)
        await an_honest_peer_is_served(found, bob)


async def test_when_there_are_no_more_files_accepting_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("exo.p2p.tls_listener._PAUSE", 0.01)
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        listener = bob.links._listeners[0]
        full = _Full(listener._socket)
        listener._socket = full
        await an_honest_peer_is_served(found, bob)
        assert full.times == 2
    assert "No connection can be accepted for now" in caplog.text


class _Full:
    """A listening socket of a system that has no room for a connection, twice."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.times = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def accept(self) -> tuple[socket.socket, object]:
        if self.times < 2:
            self.times += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._inner.accept()


async def test_closing_cuts_strangers_too():
    async with lab() as found:
        bob = await found.tls_peer(BOB)
        attacks = [await Attack.on(bob) for _ in range(4)]
        for _ in range(3):
            await asyncio.sleep(0)
        late = await Attack.on(bob)
        await bob.links.close()
        for attack in [*attacks, late]:
            assert await attack.until_cut() == b""


def test_the_library_is_the_one_that_was_looked_at():
    """What exo relies on in pyOpenSSL, beyond its tests: errors of one connection do not stick to
    the next (OpenSSL 4), and sessions can be switched off."""
    assert SSL.OpenSSL_version(SSL.OPENSSL_VERSION).startswith(b"OpenSSL 4")
    assert SSL.SESS_CACHE_OFF == 0
