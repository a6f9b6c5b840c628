"""Discovery over the loopback interface. That it works between hosts, `tests/lan` shows."""

import asyncio
import errno
import logging
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSOutgoing, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from exo.p2p import announcement, discovery, mdns
from exo.p2p.announcement import MAX_ADDRESSES, SERVICE, Seen, multiaddrs, peer_of, read, to_txt
from exo.p2p.discovery import Discovery, announced_ips, speaking_ips
from exo.p2p.identity import Identity
from exo.p2p.interfaces import Interface


def new_id() -> str:
    return Identity(Ed25519PrivateKey.generate()).peer_id


A, B, C = new_id(), new_id(), new_id()
NODE = Seen(A, "exo", (f"/ip4/10.0.0.2/tcp/52416/p2p/{A}",), "0.1.0", (1, 2), "b007")
NAME = f"{A}.{SERVICE}"


def read_changed(**changes: bytes | None) -> Seen | None:
    """What is read of NODE's record with some fields changed, or left out (None)."""
    txt = {**to_txt(NODE), **{key.encode(): value for key, value in changes.items()}}
    return read(NAME, {k: v for k, v in txt.items() if v is not None}, ["10.0.0.2"], 52416)


# What is believed of a record.


def test_what_is_announced_is_read():
    assert read_changed() == NODE


@pytest.mark.parametrize(
    "changes",
    [
        {"id": B.encode()},
        {"id": None},
        {"cluster": None},
        {"cluster": b"\xff\xfe"},
        {"cluster": b"\x1b[2J"},
        {"version": b"1\n2"},
        {"version": b"9" * 65},
        {"boot": b"x" * 33},
        {"protocols": b""},
        {"protocols": b"1,,2"},
        {"protocols": b"-1"},
        {"protocols": b"65536"},
        {"protocols": b"1," * 99 + b"1"},
        {"protocols": b"9" * 5000},
    ],
)
def test_a_record_that_cannot_be_right_is_dropped(changes: dict[str, bytes | None]):
    assert read_changed(**changes) is None


@pytest.mark.parametrize("port", [None, 0, -1, 65536])
def test_a_port_that_is_none_is_dropped(port: int | None):
    assert read(NAME, to_txt(NODE), ["10.0.0.2"], port) is None


@pytest.mark.parametrize(
    "name",
    ["", SERVICE, f"printer.{SERVICE}", f"{A[:-1]}.{SERVICE}", f"{A}._ipp._tcp.local.", f"x{NAME}"],
    ids=["empty", "service", "word", "too-short", "another-service", "too-long"],
)
def test_names_of_others_are_not_looked_at(name: str):
    assert peer_of(name) is None
    assert read(name, to_txt(NODE), ["10.0.0.2"], 52416) is None


@given(st.text())
def test_any_name_can_be_looked_at(name: str):
    assert peer_of(name) is None
    assert peer_of(f"{name}.{SERVICE}") is None


@given(
    st.dictionaries(
        st.sampled_from([b"id", b"cluster", b"version", b"protocols", b"boot", b""]),
        st.none() | st.binary(max_size=60) | st.just(A.encode()) | st.just(b"1"),
    ),
    st.lists(st.text() | st.ip_addresses().map(str), max_size=40),
    st.none() | st.integers(),
)
def test_garbage_is_never_an_error(
    txt: dict[bytes, bytes | None], ips: list[str], port: int | None
):
    seen = read(NAME, {**to_txt(NODE), **txt}, ips, port)
    assert seen is None or (seen.peer_id == A and len(seen.addresses) <= MAX_ADDRESSES)


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "::1",
        "224.0.0.251",
        "ff02::fb",
        "0.0.0.0",
        "::",
        "0.1.2.3",
        "255.255.255.255",
        "240.0.0.1",
        "x",
        "1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fd00::1%eth0",
        "64:ff9b::1%1",
    ],
)
def test_addresses_that_lead_nowhere_are_dropped(ip: str):
    assert multiaddrs(A, [ip], 52416) == ()


def test_addresses_are_in_order_of_use():
    ips = ["fe80::2%eth0", "169.254.1.1", "fd00::2", "10.0.0.2", "fd00::2"]
    assert multiaddrs(A, ips, 7) == (
        f"/ip4/10.0.0.2/tcp/7/p2p/{A}",
        f"/ip6/fd00::2/tcp/7/p2p/{A}",
        f"/ip4/169.254.1.1/tcp/7/p2p/{A}",
        f"/ip6zone/eth0/ip6/fe80::2/tcp/7/p2p/{A}",
    )
    assert len(multiaddrs(A, [f"10.0.0.{n}" for n in range(99)], 7)) == MAX_ADDRESSES


def test_the_longest_cluster_name_fits_a_record():
    label = announcement.cluster_label("🦊" * 64)
    assert ("🦊" * 64).startswith(label)
    txt = to_txt(replace(NODE, cluster="🦊" * 64))
    assert max(len(key) + 1 + len(value or b"") for key, value in txt.items()) < 256
    found = read(NAME, txt, ["10.0.0.2"], 52416)
    assert found
    assert found.cluster == label


# Which addresses are announced, and spoken from.

ETH = Interface("eth0", 2, True, ("10.0.0.2", "10.0.1.2", "fd00::2", "fe80::2"))
WIFI = Interface("wlan0", 3, True, ("192.168.1.2",))


@pytest.mark.parametrize(
    ("host", "ips"),
    [
        ("", ("10.0.0.2", "10.0.1.2", "192.168.1.2", "fd00::2", "fe80::2")),
        ("0.0.0.0", ("10.0.0.2", "10.0.1.2", "192.168.1.2")),
        ("::", ("10.0.0.2", "10.0.1.2", "192.168.1.2", "fd00::2", "fe80::2")),
        ("10.0.0.2", ("10.0.0.2",)),
        ("127.0.0.1", ()),
        ("studio.local", ("10.0.0.2", "10.0.1.2", "192.168.1.2", "fd00::2", "fe80::2")),
    ],
)
def test_what_is_announced_is_what_is_listened_on(host: str, ips: tuple[str, ...]):
    assert announced_ips([ETH, WIFI], host) == ips


def test_one_address_of_each_family_speaks_for_an_interface():
    both = speaking_ips([ETH, WIFI], dual_stack=True)
    assert both == ("10.0.0.2", "192.168.1.2", "fe80::2")
    assert speaking_ips([ETH, WIFI], dual_stack=False) == ("10.0.0.2", "192.168.1.2")
    six = replace(ETH, addresses=("fd00::2", "fe80::2"))
    assert speaking_ips([six], dual_stack=False) == ("fe80::2",)


# The real thing.


CLUSTER = f"test-{secrets.token_hex(4)}"  # Other tests may run on this machine.
LO = Interface("lo", 1, True, ("127.0.0.1",))


class FakeNetwork:
    """What the system says of its interfaces, changed at will."""

    def __init__(self) -> None:
        self.interfaces: tuple[Interface, ...] = (LO,)
        self.watches: list[asyncio.Event] = []

    def change(self, *interfaces: Interface) -> None:
        self.interfaces = interfaces
        for event in self.watches:
            event.set()

    def usable(self, **_: object) -> tuple[Interface, ...]:
        return self.interfaces

    def watch(self) -> "FakeWatch":
        self.watches.append(asyncio.Event())
        return FakeWatch(self.watches[-1])


class FakeWatch:
    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    async def __anext__(self) -> None:
        await self.event.wait()
        self.event.clear()

    def close(self) -> None: ...


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    fake = FakeNetwork()
    monkeypatch.setattr(discovery, "usable_interfaces", fake.usable)
    monkeypatch.setattr(discovery, "watch", fake.watch)
    return fake


class Notices(logging.Handler):
    """Whatever discoveries log or come to know wakes the test."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.event = asyncio.Event()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.event.clear()
            await self.event.wait()

    async def until_said(self, text: str, times: int = 1) -> None:
        await self.until(lambda: sum(text in one for one in self.said) >= times)


@pytest.fixture
async def notices() -> AsyncIterator[Notices]:
    found = Notices()
    logger = logging.getLogger("exo.p2p.discovery")
    logger.setLevel(logging.INFO)
    logger.addHandler(found)
    yield found
    logger.removeHandler(found)
    logger.setLevel(logging.NOTSET)


class Noticed(dict[str, Seen]):
    """What a discovery knows, and changes of it."""

    def __init__(self, notices: Notices) -> None:
        super().__init__()
        self.notices = notices

    def __setitem__(self, name: str, seen: Seen) -> None:
        super().__setitem__(name, seen)
        self.notices.event.set()

    def pop(self, name: str, default: Seen | None = None) -> Seen | None:
        self.notices.event.set()
        return super().pop(name, default)


class Node:
    """A discovery, and what it has found, which can be waited for."""

    def __init__(self, peer_id: str, ip: str, cluster: str, notices: Notices) -> None:
        self.peer_id = peer_id
        self.found: asyncio.Queue[Seen] = asyncio.Queue()
        self.discovery = Discovery(
            peer_id, cluster, 52416, on_found=self.found.put_nowait, version="0.1.0", host=ip
        )
        self.discovery._seen = Noticed(notices)

    @property
    def seen(self) -> set[str]:
        """Those of this test: daemons of tests beside it announce themselves here as well."""
        return {one.peer_id for one in self.discovery.seen if one.cluster.startswith(CLUSTER)}

    async def finds(self, other: "Node") -> Seen:
        """The next that is found, which must be that one."""
        seen = await self.found.get()
        assert seen.peer_id == other.peer_id
        return seen


StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def node(network: FakeNetwork, notices: Notices) -> AsyncIterator[StartNode]:
    """Start a node; it is closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(peer_id: str, ip: str, cluster: str = CLUSTER) -> Node:
            one = Node(peer_id, ip, cluster, notices)
            stack.push_async_callback(one.discovery.close)
            await one.discovery.start()
            return one

        yield start


async def test_two_nodes_find_each_other(node: StartNode):
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    assert (await a.finds(b)).addresses == (f"/ip4/10.0.0.2/tcp/52416/p2p/{B}",)
    seen = await b.finds(a)
    assert (seen.version, seen.protocols, seen.cluster) == ("0.1.0", (1,), CLUSTER)


async def test_a_node_of_another_cluster_is_seen_and_not_found(node: StartNode, notices: Notices):
    other = await node(C, "10.0.0.3", f"{CLUSTER}-2")
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    await a.finds(b)
    await b.finds(a)
    await notices.until(lambda: {A, B} <= other.seen and C in a.seen)
    assert a.found.empty()
    assert other.found.empty()


async def test_who_says_goodbye_is_forgotten(node: StartNode, notices: Notices):
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    await a.finds(b)
    await b.discovery.close()
    await notices.until(lambda: B not in a.seen)


async def test_who_died_and_comes_back_is_found_again(node: StartNode):
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    first = await a.finds(b)
    await b.discovery._mdns.close(goodbye=False)
    await node(B, "10.0.0.2")
    second = await a.finds(b)
    assert second == replace(first, boot=second.boot)
    assert second.boot != first.boot


async def test_a_network_that_comes_later_and_goes_and_comes_again(
    node: StartNode, network: FakeNetwork, notices: Notices, caplog: pytest.LogCaptureFixture
):
    network.change()
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    network.change(LO)
    await a.finds(b)
    await b.finds(a)
    network.change()
    await notices.until_said("There is no network", times=4)
    network.change(LO)
    await notices.until_said("Looking for other nodes on lo.", times=4)
    c = await node(C, "10.0.0.3")
    await notices.until(lambda: C in a.seen and {A, B} <= c.seen)
    assert not [one for one in caplog.records if one.name.startswith("zeroconf")]


async def test_a_change_of_address_is_told(node: StartNode, network: FakeNetwork):
    a, b = await node(A, "10.0.0.1"), await node(B, "10.0.0.2")
    await a.finds(b)
    b.discovery._host = "10.0.0.22"
    network.change(replace(LO, index=2))
    while f"/ip4/10.0.0.22/tcp/52416/p2p/{B}" not in (await a.found.get()).addresses:
        pass


async def test_what_does_not_work_is_said_once_and_tried_again(
    node: StartNode,
    network: FakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
    notices: Notices,
):
    tried = asyncio.Semaphore(0)

    def refuse(**_: object) -> None:
        tried.release()
        raise OSError(98, "Address already in use")

    with monkeypatch.context() as patch:
        patch.setattr(mdns, "AsyncZeroconf", refuse)
        a = await node(A, "10.0.0.1")
        for _ in range(3):
            await tried.acquire()
            network.change(LO)
    assert len(notices.said) == 1
    assert "Address already in use" in notices.said[0]
    b = await node(B, "10.0.0.2")
    network.change(LO)
    await a.finds(b)


async def test_records_that_come_one_by_one_are_asked_for(node: StartNode):
    a = await node(A, "10.0.0.1")
    other = AsyncZeroconf(interfaces=["127.0.0.1"])
    await other.zeroconf.async_wait_for_start()
    txt = to_txt(replace(NODE, peer_id=B, cluster=CLUSTER))
    info = ServiceInfo(
        *(SERVICE, f"{B}.{SERVICE}"),
        port=52416,
        properties=dict(txt),
        server=f"{B}.local.",
        parsed_addresses=["10.0.0.2"],
    )
    other.zeroconf.registry.async_add(info)
    out = DNSOutgoing(0x8400)  # A response.
    out.add_answer_at_time(info.dns_pointer(), 0)
    other.zeroconf.async_send(out)
    seen = await a.found.get()
    assert seen.addresses == (f"/ip4/10.0.0.2/tcp/52416/p2p/{B}",)
    await other.async_close()


def test_trouble_with_sending_is_logged_once(caplog: pytest.LogCaptureFixture):
    zeroconf = logging.getLogger("zeroconf")
    for number in (errno.EPERM, errno.EPERM, errno.ENETUNREACH):
        error = OSError(number, os.strerror(number))
        zeroconf.warning("Error with socket %d", 7, exc_info=error)
    assert [one.name for one in caplog.records] == ["exo.p2p.mdns"]
    assert "Operation not permitted" in caplog.text


async def test_closing_before_or_twice_is_harmless(network: FakeNetwork, notices: Notices):
    never = Node(A, "10.0.0.1", CLUSTER, notices)
    await never.discovery.close()
    a = Node(A, "10.0.0.1", CLUSTER, notices)
    await a.discovery.start()
    await a.discovery.close()
    await a.discovery.close()


async def test_a_node_that_uses_our_id_is_told_of(node: StartNode, notices: Notices):
    a, copy = await node(A, "10.0.0.1"), await node(A, "10.0.0.2")
    await notices.until_said("Another node uses this node's id", times=2)
    assert a.found.empty()
    assert copy.found.empty()


async def test_it_remembers_so_many_and_no_more(
    node: StartNode, monkeypatch: pytest.MonkeyPatch, notices: Notices
):
    monkeypatch.setattr(discovery, "MAX_SEEN", 1)
    a = await node(A, "10.0.0.1")
    await node(B, "10.0.0.2")
    await a.found.get()
    await node(C, "10.0.0.3")
    await notices.until_said("some are left out")
    assert a.found.empty()
    assert len(a.seen) == 1


async def test_liars_and_garbage_do_no_harm(node: StartNode, caplog: pytest.LogCaptureFixture):
    """Records of exo's own type that are wrong in every way, and packets that are none."""
    a = await node(A, "10.0.0.1")
    liar = AsyncZeroconf(interfaces=["127.0.0.1"])
    for name, txt, port in [
        (f"printer.{SERVICE}", b"\xff\xff\xff", 1),
        (f"{C}.{SERVICE}", b"\x03id=\x00\x00\x07cluster", 0),
        (f"{B}.{SERVICE}", b"", 52416),
        (f"{new_id()}.{SERVICE}", b"\xc0\x0c" * 200, 52416),
    ]:
        info = ServiceInfo(
            SERVICE, name, port=port, properties=txt, parsed_addresses=["127.0.0.1", "10.0.0.9"]
        )
        await liar.async_register_service(info, cooperating_responders=True, strict=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        noise = random.Random(1)  # noqa: S311  the same each time
        for size in range(1, 300, 7):
            packet = noise.randbytes(size)
            raw.sendto(packet, ("224.0.0.251", 5353))
            # A response with one answer, of which the rest is noise.
            head = bytes.fromhex(
                "000084000000000100000000045f65786f045f746370056c6f63616c00000c0001"
            )
            raw.sendto(head + packet, ("224.0.0.251", 5353))
    b = await node(B, "10.0.0.2")
    assert (await a.finds(b)).addresses == (f"/ip4/10.0.0.2/tcp/52416/p2p/{B}",)
    await b.finds(a)
    await liar.async_close()
    assert not [one for one in caplog.records if one.levelno > logging.WARNING]
