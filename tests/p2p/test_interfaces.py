import asyncio
import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.p2p import interfaces
from exo.p2p.interfaces import Interface, Watch, all_interfaces, usable, usable_interfaces, watch

LO = Interface("lo", 1, True, ("127.0.0.1", "::1"), loopback=True, multicast=False)
ETH = Interface("eth0", 2, True, ("192.168.1.5", "fe80::5"))
WIFI = Interface("wlp3s0", 3, True, ("192.168.1.6", "fd00::6"))
DOCKER = Interface("docker0", 4, True, ("172.17.0.1",))
TUNNEL = Interface("wg0", 5, True, ("10.9.0.1",), point_to_point=True)


def names(*given: Interface, tunnels: bool = False) -> list[str]:
    return [one.name for one in usable(given, tunnels=tunnels)]


def test_what_leads_to_others_is_used_in_the_systems_order():
    assert names(TUNNEL, DOCKER, WIFI, LO, ETH) == ["eth0", "wlp3s0"]


@pytest.mark.parametrize(
    "name",
    [
        "docker0",
        "br-1f2e3d",
        "veth12ab",
        "virbr0",
        "podman0",
        "cni0",
        "flannel.1",
        "cali12",
        "awdl0",
    ],
)
def test_networks_that_programs_made_for_themselves_are_left_out(name: str):
    assert names(ETH, Interface(name, 9, True, ("10.0.0.1",))) == ["eth0"]


@pytest.mark.parametrize("name", ["eth0", "en0", "bridge0", "br0", "bond0", "wlan0", "enp1s0f0np0"])
def test_networks_of_people_are_not(name: str):
    assert names(Interface(name, 9, True, ("10.0.0.1",)), DOCKER) == [name]


def test_in_a_container_the_only_network_is_used_whatever_its_name():
    assert names(LO, Interface("vethc0ffee", 7, True, ("172.17.0.2",))) == ["vethc0ffee"]
    assert names(LO, DOCKER, Interface("eth0", 7, True, ())) == ["docker0"]


def test_tunnels_only_when_asked_for():
    assert names(ETH, TUNNEL, tunnels=True) == ["eth0", "wg0"]
    assert names(TUNNEL) == []


def test_without_carrier_or_address_an_interface_is_of_no_use():
    assert names(Interface("eth0", 2, False, ("10.0.0.1",)), Interface("eth1", 3, True, ())) == []
    assert names(Interface("eth0", 2, True, ("127.0.0.2", "::", "ff02::1", "0.0.0.0"))) == []


def test_only_addresses_that_others_can_use_are_kept():
    (one,) = usable([Interface("eth0", 2, True, ("127.0.0.9", "10.0.0.1", "fe80::1", "::1"))])
    assert one.addresses == ("10.0.0.1", "fe80::1")


INTERFACES = st.lists(
    st.builds(
        Interface,
        name=st.sampled_from(["lo", "eth0", "docker0", "wg0", "veth1"]),
        index=st.integers(1, 9),
        up=st.booleans(),
        addresses=st.lists(st.ip_addresses().map(str), max_size=3).map(tuple),
        loopback=st.booleans(),
        point_to_point=st.booleans(),
    )
)


@given(INTERFACES)
def test_something_is_used_if_anything_can_be(given: list[Interface]):
    used = usable(given)
    assert all(one.up and one.addresses and not one.loopback for one in used)
    assert usable(used) == used
    assert bool(used) == any(usable([one]) for one in given)


def test_the_system_is_asked():
    found = all_interfaces()
    assert any(one.loopback and one.up for one in found)
    assert {one.name for one in usable_interfaces()} <= {one.name for one in found}


class FakeSocket:
    """A socket by which the system tells of changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.system = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        monkeypatch.setattr(interfaces, "_open", lambda: self.ours)
        monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSocket]:
    found = FakeSocket(monkeypatch)
    yield found
    found.ours.close()
    found.system.close()


async def test_changes_that_are_close_to_each_other_are_one(fake: FakeSocket):
    with closing(watch(settle=0.01)) as changes:
        for _ in range(5):
            fake.system.send(b"changed")
        await anext(changes)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(changes)
        fake.system.send(b"changed again")
        await anext(changes)


async def test_it_wakes_also_while_changes_never_end(
    fake: FakeSocket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interfaces, "SETTLE_AT_MOST", 0.05)

    async def keep_changing() -> None:
        while True:
            fake.system.send(b"changed")
            await asyncio.sleep(0)

    with closing(watch(settle=60)) as changes:
        task = asyncio.create_task(keep_changing())
        await anext(changes)
        task.cancel()


class Troubled(socket.socket):
    """Gives what a test says instead of what was sent."""

    gives: bytes | OSError = b""

    def recv(self, *_: object) -> bytes:
        super().recv(100)
        if isinstance(self.gives, OSError):
            raise self.gives
        return self.gives


@pytest.fixture
def troubled(fake: FakeSocket, monkeypatch: pytest.MonkeyPatch) -> Troubled:
    found = Troubled(fileno=fake.ours.detach())
    found.setblocking(False)
    monkeypatch.setattr(interfaces, "_open", lambda: found)
    return found


async def test_lost_messages_count_as_a_change(fake: FakeSocket, troubled: Troubled):
    troubled.gives = OSError(errno.ENOBUFS, "No buffer space available")
    with closing(watch(settle=0.01)) as changes:
        fake.system.send(b"changed")
        await anext(changes)


@pytest.mark.parametrize("gives", [b"", OSError(errno.EBADF, "Bad file descriptor")])
async def test_a_watch_that_the_system_ends_sleeps(
    fake: FakeSocket, troubled: Troubled, gives: bytes | OSError
):
    troubled.gives = gives
    with closing(watch()) as changes:
        fake.system.send(b"the end")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(changes)
        assert troubled.fileno() == -1


async def test_where_the_system_tells_nothing_it_sleeps(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    for opened in (refuse, lambda: None):
        monkeypatch.setattr(interfaces, "_open", opened)
        with closing(Watch()) as changes, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(changes)


async def test_closing_twice_is_harmless():
    changes = watch()
    changes.close()
    changes.close()
