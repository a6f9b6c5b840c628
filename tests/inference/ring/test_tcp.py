"""The ring over real sockets on loopback: forming it, breaking it, and who is kept out."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from unittest.mock import patch

import msgpack
import pytest

from exo.errors import RingError
from exo.inference.ring.credentials import Credentials
from exo.inference.ring.events import RingSpec
from exo.inference.ring.frames import HEADER, Frame, Kind
from exo.inference.ring.links import Link, accept, dial
from tests.inference.ring.rings import Rank, close, formed, hurried, specs


class Maker:
    """Makes ranks, and ends them after the test."""

    def __init__(self) -> None:
        self.made: list[Rank] = []

    def __call__(self, size: int, *, encrypted: bool = True) -> list[Rank]:
        ranks = formed(size, encrypted=encrypted)
        self.made += ranks
        return ranks

    def apart(self, size: int) -> list[Rank]:
        """Not connected yet."""
        ranks = [Rank(rank) for rank in range(size)]
        self.made += ranks
        return ranks


@pytest.fixture
def make() -> Iterator[Maker]:
    maker = Maker()
    yield maker
    close(maker.made)


def step(body: bytes, tensor: bytes = b"") -> Frame:
    return Frame(Kind.STEP, body, [memoryview(tensor)] if tensor else [])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "not"])
def test_frames_go_round_in_order_whatever_their_size(make: Maker, size: int, encrypted: bool):
    ranks = make(size, encrypted=encrypted)
    sent = [(bytes([n]) * n, bytes([n]) * (70_000 * n)) for n in range(5)]
    for body, tensor in sent:
        ranks[0].ring.send(step(body, tensor), ranks[0].life)
    for rank in [*ranks[1:], ranks[0]]:
        for body, tensor in sent:
            event = rank.frame()
            assert event.life == rank.life
            assert event.frame.body == body
            assert b"".join(event.frame.tensors) == tensor
            if rank is not ranks[0]:
                rank.ring.send(event.frame, rank.life)


def test_a_neighbour_that_comes_late_is_waited_for(make: Maker):
    ranks = make.apart(2)
    first, second = specs(ranks)
    ranks[0].ring.connect(first)
    assert "Rank 1 cannot be reached" in ranks[0].down()
    ranks[1].ring.connect(second)
    for rank in ranks:
        rank.up()


def test_when_one_link_breaks_the_whole_ring_is_down_and_formed_again(make: Maker):
    ranks = make(4)
    before = [rank.life for rank in ranks]
    ranks[2].ring.give_up("a test")
    assert ranks[2].down() == "a test"
    for rank in (ranks[3], ranks[0], ranks[1]):
        assert "broke" in rank.down()
    for rank in ranks:
        rank.up()
    assert all(rank.life > life for rank, life in zip(ranks, before, strict=True))
    ranks[0].ring.send(step(b"again"), ranks[0].life)
    assert ranks[1].frame().frame.body == b"again"


def test_an_earlier_life_of_the_ring_takes_nothing_more(make: Maker):
    ranks = make(2)
    life = ranks[0].life
    ranks[0].ring.give_up("a test")
    for rank in ranks:
        rank.up()
    with pytest.raises(RingError, match="down"):
        ranks[0].ring.send(step(b"late"), life)


def test_another_epoch_is_another_ring(make: Maker):
    ranks = make(3)
    ranks[1] = make.apart(2)[1]
    for rank, spec in zip(ranks, specs(ranks, "two"), strict=True):
        rank.ring.connect(spec)
    for rank in ranks:
        rank.up()
    ranks[0].ring.send(step(b"new"), ranks[0].life)
    assert ranks[1].frame().frame.body == b"new"


def test_who_says_nothing_is_lost(make: Maker):
    with hurried():
        ranks = make(2)
        # Its keeper sends no heartbeat any more, as if the process slept.
        with patch.object(ranks[1].ring, "_beat"):
            assert "said nothing" in ranks[0].down()


def test_an_idle_ring_stays_up(make: Maker):
    with hurried():
        ranks = make(2)
        gone = threading.Event()
        assert not gone.wait(1.5)
        assert all(rank.events.empty() for rank in ranks)


def stranger(rank: Rank) -> socket.socket:
    return socket.create_connection(("127.0.0.1", rank.ring.port), timeout=5)


def closed(connection: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass
    connection.close()
    return True


def encrypted(rank: Rank, credentials: Credentials) -> ssl.SSLSocket:
    context = credentials.context(rank.ring.credentials.certificate, server=False)
    return context.wrap_socket(stranger(rank))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b""])
def test_strangers_are_turned_away_and_the_ring_does_not_notice(make: Maker, garbage: bytes):
    with hurried():
        ranks = make(2)
        connections = [stranger(ranks[1]) for _ in range(40)]
        for connection in connections:
            connection.sendall(garbage)
        assert all(closed(connection) for connection in connections)
        ranks[0].ring.send(step(b"x"), ranks[0].life)
        assert ranks[1].frame().frame.body == b"x"


@pytest.mark.parametrize("encrypted", [True, False], ids=["one that does", "one that does not"])
def test_ends_that_disagree_about_encryption_say_so(encrypted: bool):
    """Nodes do not join such runners; so this is about what gets past that."""
    mine, other = Rank(0, encrypted=encrypted), Rank(1, encrypted=not encrypted)
    spec, others = specs([mine, other])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = others.following.model_copy(update={"port": port})
        calling = threading.Thread(
            target=lambda: call(
                other.ring.credentials, others.model_copy(update={"following": there})
            )
        )
        calling.start()
        connection, _ = listener.accept()
        with pytest.raises(RingError, match="encrypt") as error:
            accept(mine.ring.credentials, spec, connection, 5)
        assert "ring_encryption" in (error.value.hint or "")
        calling.join()
    close([mine, other])


def call(credentials: Credentials, spec: RingSpec) -> None:
    with contextlib.suppress(OSError):
        dial(credentials, spec, 1, 5).close()


def test_without_encryption_a_stranger_must_know_the_formation_of_the_ring(make: Maker):
    ranks = make(2, encrypted=False)
    with stranger(ranks[1]) as connection:
        Link(connection).write(Frame(Kind.HELLO, msgpack.packb({"epoch": "guessed", "rank": 0})))
        assert closed(connection)
    ranks[0].ring.send(step(b"x"), ranks[0].life)
    assert ranks[1].frame().frame.body == b"x"


def test_a_certificate_of_its_own_does_not_help_a_stranger(make: Maker):
    ranks = make(2)
    connection = encrypted(ranks[1], Credentials())
    assert closed(connection)
    ranks[0].ring.send(step(b"x"), ranks[0].life)
    assert ranks[1].frame().frame.body == b"x"


def test_the_right_neighbour_of_another_ring_is_turned_away(make: Maker):
    ranks = make(2)
    connection = encrypted(ranks[1], ranks[0].ring.credentials)
    Link(connection).write(Frame(Kind.HELLO, msgpack.packb({"epoch": "other", "rank": 0})))
    assert closed(connection)
    assert ranks[1].events.empty()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense that is no header, of some length",
        HEADER.pack(b"exoR", 1, 4, 0, 2**32 - 1, 0),
        HEADER.pack(b"exoR", 1, 4, 0, 10, 0) + b"short",
    ],
    ids=["garbage", "oversized", "truncated"],
)
def test_a_neighbour_that_sends_nonsense_breaks_the_ring_not_the_process(make: Maker, sent: bytes):
    with hurried():
        ranks = make(2)
        link = ranks[0].ring._next
        assert link is not None
        link._connection.sendall(sent)
        if sent.endswith(b"short"):
            link.shut()
        assert "broke" in ranks[1].down()
        for rank in ranks:
            rank.up()
