"""Which network interfaces serve to reach other nodes, and being told when that changes.

What is usable is decided by name and flags, not by kind: the `eth0` of a container is one end of a
virtual cable too, and there it is the network.
"""

import asyncio
import errno
import logging
import re
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

import psutil

# Seconds without a further change after which a change is told of, and the most that this takes.
SETTLE = 0.05
SETTLE_AT_MOST = 1.0

# Networks that programs make on this machine for themselves, and Apple's own radio links.
_PRIVATE = re.compile(
    r"docker|br-|veth|virbr|vnet|lxc|lxdbr|incusbr|podman|cni|cali|flannel|cilium|weave|kube|nerdctl"
    r"|vmnet|vboxnet|ifb|bridge1\d\d$|vmenet|awdl|llw|anpi|ap\d"
)

# linux/rtnetlink.h
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
# net/route.h of macOS: RTM_NEWADDR, RTM_DELADDR, RTM_IFINFO
_ROUTE_TYPES = frozenset({0x0C, 0x0D, 0x0E})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interface:
    """One network interface. `up` is with a carrier; addresses are plain, without a scope."""

    name: str
    index: int
    up: bool
    addresses: tuple[str, ...]
    loopback: bool = False
    point_to_point: bool = False
    multicast: bool = True


def usable_interfaces(*, tunnels: bool = False) -> tuple[Interface, ...]:
    """The interfaces of this machine (or network namespace) that may lead to other nodes."""
    return usable(all_interfaces(), tunnels=tunnels)


def usable(interfaces: Iterable[Interface], *, tunnels: bool = False) -> tuple[Interface, ...]:
    """Those that are up and have an address that others can use, by index: pure.

    Loopback and, unless `tunnels`, point-to-point links are left out; networks that programs have
    made for themselves (Docker's bridges, say) too, unless there is nothing else.
    """
    found = [
        replace(interface, addresses=addresses)
        for interface in sorted(interfaces, key=lambda one: one.index)
        if interface.up
        and not interface.loopback
        and (tunnels or not interface.point_to_point)
        and (addresses := tuple(filter(_is_for_others, interface.addresses)))
    ]
    return tuple([one for one in found if not _PRIVATE.match(one.name)] or found)


def all_interfaces() -> tuple[Interface, ...]:
    """What the system knows of its interfaces now."""
    indexes = {name: index for index, name in socket.if_nameindex()}
    addresses = psutil.net_if_addrs()
    found: list[Interface] = []
    for name, stats in psutil.net_if_stats().items():
        if name not in indexes:
            continue  # It has gone in between.
        flags = stats.flags.split(",")
        plain = [
            entry.address.partition("%")[0]
            for entry in addresses.get(name, ())
            if entry.family in {socket.AF_INET, socket.AF_INET6}
        ]
        found.append(
            Interface(
                name=name,
                index=indexes[name],
                up=stats.isup,
                addresses=tuple(one for one in plain if _is_ready(one, indexes[name])),
                loopback="loopback" in flags,
                point_to_point="pointopoint" in flags,
                multicast="multicast" in flags,
            )
        )
    return tuple(found)


def _is_for_others(address: str) -> bool:
    ip = ip_address(address)
    return not (ip.is_loopback or ip.is_multicast or ip.is_unspecified)


def _is_ready(address: str, index: int) -> bool:
    """Whether it can be bound: an IPv6 address cannot while it is checked for duplicates (RFC 4862,
    section 5.4), and the system tells when it can."""
    if ":" not in address:
        return True
    scope = index if ip_address(address).is_link_local else 0
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0, 0, scope))
    except OSError:
        return False
    return True


class Watch:
    """Wakes when an address or a link of this machine (or network namespace) has changed.

    It listens from the moment it is made; each `async for` step is one change, or several close to
    each other. Linux tells through netlink, macOS through a routing socket; elsewhere, and where a
    sandbox forbids that, it never wakes. Close it when done.
    """

    def __init__(self, settle: float = SETTLE) -> None:
        self._settle = settle
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        try:
            self._socket = _open()
        except OSError as error:
            log.info("Changes of the network cannot be followed: %s", error)
        if self._socket:
            self._socket.setblocking(False)
            self._loop.add_reader(self._socket, self._read)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        await self._changed.wait()
        latest = self._loop.time() + SETTLE_AT_MOST
        self._changed.clear()
        with suppress(TimeoutError):
            while self._loop.time() < latest:
                async with asyncio.timeout(self._settle):
                    await self._changed.wait()
                self._changed.clear()

    def close(self) -> None:
        if self._socket:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            message = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # There were too many to tell each of them.
                self._changed.set()
                return
            message = b""
        if not message:
            log.info("Changes of the network are no longer told of.")
            self.close()
        elif _is_about_addresses(message):
            self._changed.set()


def watch(settle: float = SETTLE) -> Watch:
    """A `Watch` on this machine, which waits `settle` seconds for further changes."""
    return Watch(settle)


def _open() -> socket.socket | None:
    if sys.platform == "linux":
        groups = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            netlink.bind((0, groups))
        except OSError:
            netlink.close()
            raise
        return netlink
    if sys.platform == "darwin":
        return socket.socket(socket.AF_ROUTE, socket.SOCK_RAW, 0)
    return None


def _is_about_addresses(message: bytes) -> bool:
    """A routing socket also tells of each route and neighbour; netlink only what was asked for."""
    return sys.platform != "darwin" or (len(message) > 3 and message[3] in _ROUTE_TYPES)
