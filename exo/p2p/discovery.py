"""Finding other nodes on the local network, and being found, by mDNS (RFC 6762).

A node announces itself and asks who else is there at once when it starts or a network comes up,
and asks again at intervals, for the case that neither side was told that they can now hear each
other. Whatever goes wrong is logged once and tried again: there are other ways to find peers.
"""

import asyncio
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from exo.p2p.announcement import (
    SERVICE,
    Seen,
    best,
    cluster_label,
    host_name,
    instance_name,
    peer_of,
    read,
    to_txt,
)
from exo.p2p.interfaces import Interface, Watch, usable_interfaces, watch
from exo.p2p.mdns import ERRORS, Mdns, Record

# Seconds between questions when nothing happens.
ASK_EVERY: Final = 30.0
# Nodes remembered: of this cluster, and of others (which only `exo doctor` wants to know).
MAX_SEEN: Final = 1024
MAX_STRANGERS: Final = 64

# On macOS a socket for both families hears no IPv4 multicast.
DUAL_STACK: Final = sys.platform != "darwin"

log = logging.getLogger(__name__)
OnFound = Callable[[Seen], None]


@dataclass(frozen=True)
class DiscoveryStatus:
    """Whether other nodes are looked for, whether that works, and if not, why."""

    enabled: bool
    working: bool
    problem: str | None


class Discovery:
    """Announces this node while it runs, and calls `on_found` from the event loop with each other
    node of the same cluster, again when it has other addresses or has started anew."""

    def __init__(
        self,
        peer_id: str,
        cluster: str,
        port: int,
        *,
        on_found: OnFound,
        version: str,
        protocols: tuple[int, ...] = (1,),
        host: str = "",
        tunnels: bool = False,
    ) -> None:
        """`host` and `port` are what this node listens on for links; "" is every address."""
        boot = secrets.token_hex(4)
        self._me = Seen(peer_id, cluster_label(cluster), (), version, protocols, boot)
        self._host = host
        self._port = port
        self._on_found = on_found
        self._tunnels = tunnels
        self._seen: dict[str, Seen] = {}
        self._interfaces: tuple[Interface, ...] | None = None
        self._said = ""
        self._problem: str | None = "It has not begun."
        self._warned: set[str] = set()
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None
        self._mdns = Mdns(
            SERVICE,
            wanted=lambda name: peer_of(name) is not None,
            on_record=self._heard,
            on_gone=self._gone,
        )

    @property
    def seen(self) -> tuple[Seen, ...]:
        """The nodes on this network as they say of themselves, of other clusters too."""
        return tuple(self._seen.values())

    @property
    def problem(self) -> str | None:
        """Why nobody can be found, in a sentence; None if that is not so."""
        return self._problem

    async def start(self) -> None:
        """Begin; what does not work yet is tried again when the network changes."""
        self._watch = watch()
        await self._update()
        self._task = asyncio.create_task(self._run(self._watch), name="discovery")

    async def close(self) -> None:
        """Say goodbye and end."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._watch:
            self._watch.close()
            self._watch = None
        await self._mdns.close(goodbye=True)

    async def _run(self, changes: Watch) -> None:
        loop = asyncio.get_running_loop()
        ask_at = loop.time() + ASK_EVERY
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ask_at):
                    await anext(changes)
            await self._update()
            if loop.time() >= ask_at:
                self._mdns.ask()
                ask_at = loop.time() + ASK_EVERY

    async def _update(self) -> None:
        """Follow the network, if it has changed or did not work."""
        try:
            interfaces = tuple(
                one for one in usable_interfaces(tunnels=self._tunnels) if one.multicast
            )
            if interfaces == self._interfaces:
                return
            self._interfaces = interfaces
            await self._mdns.use(speaking_ips(interfaces), self._announcement(interfaces))
        except ERRORS as error:
            self._interfaces = None
            await self._mdns.close(goodbye=False)
            self._problem = f"Other nodes cannot be found by mDNS: {error}. Name one with --peer."
            self._say(logging.WARNING, self._problem)
            return
        if interfaces:
            self._problem = None
            names = ", ".join(one.name for one in interfaces)
            self._say(logging.INFO, f"Looking for other nodes on {names}.")
        else:
            self._problem = "There is no network to find other nodes on, for now."
            self._say(logging.WARNING, self._problem)

    def _announcement(self, interfaces: tuple[Interface, ...]) -> Record | None:
        """What this node says of itself, None if no other node can reach it."""
        ips = announced_ips(interfaces, self._host)
        if not ips:
            return None
        return Record(
            name=instance_name(self._me.peer_id),
            host=host_name(self._me.peer_id),
            port=self._port,
            txt=to_txt(self._me),
            ips=ips,
        )

    def _heard(self, record: Record) -> None:
        ips = [ip for ip in map(_with_interface, record.ips) if ip]
        seen = read(record.name, record.txt, ips, record.port)
        if seen is None or not seen.addresses or seen == self._seen.get(record.name):
            return
        if seen.peer_id == self._me.peer_id:
            self._heard_own(seen)
            return
        ours = seen.cluster == self._me.cluster
        if record.name not in self._seen and self._is_full(ours):
            self._warn(
                "full", "More nodes announce themselves here than can be: some are left out."
            )
            return
        self._seen[record.name] = seen
        if ours:
            asyncio.get_running_loop().call_soon(self._on_found, seen)

    def _gone(self, name: str) -> None:
        self._seen.pop(name, None)

    def _heard_own(self, seen: Seen) -> None:
        if seen.boot != self._me.boot:
            self._warn(
                "id",
                f"Another node uses this node's id, at {seen.addresses[0]}. If its data folder is "
                "a copy of this one, remove identity.key from the copy.",
            )

    def _is_full(self, ours: bool) -> bool:
        same = sum((one.cluster == self._me.cluster) == ours for one in self._seen.values())
        return same >= (MAX_SEEN if ours else MAX_STRANGERS)

    def _say(self, level: int, text: str) -> None:
        """How it stands: logged if it is not what was said last."""
        if text != self._said:
            self._said = text
            log.log(level, text)

    def _warn(self, key: str, text: str) -> None:
        """What others do wrong: logged once of its kind, since they could do it without end."""
        if key not in self._warned:
            self._warned.add(key)
            log.warning(text)


def announced_ips(interfaces: Iterable[Interface], host: str) -> tuple[str, ...]:
    """The addresses to announce of a node that listens on `host`, best first: pure."""
    try:
        bound = ip_address(host)
    except ValueError:  # A name, or nothing: every address.
        return best(ip for one in interfaces for ip in one.addresses)
    if bound.is_loopback:
        return ()
    if not bound.is_unspecified:
        return (host,)
    every = (ip for one in interfaces for ip in one.addresses)
    return best(ip for ip in every if bound.version == 6 or ":" not in ip)


def speaking_ips(
    interfaces: Iterable[Interface], *, dual_stack: bool = DUAL_STACK
) -> tuple[str, ...]:
    """One address of each family of each interface, link-local where there is one for IPv6 (RFC
    6762, section 15); without `dual_stack`, IPv6 only where there is no IPv4 at all: pure."""
    fours: list[str] = []
    sixes: list[str] = []
    for one in interfaces:
        fours += [ip for ip in one.addresses if ":" not in ip][:1]
        six = [ip for ip in one.addresses if ":" in ip]
        sixes += sorted(six, key=lambda ip: not ip_address(ip).is_link_local)[:1]
    return tuple(fours + sixes if dual_stack or not fours else fours)


def _with_interface(ip: str) -> str | None:
    """`fe80::1%3` with the name of interface 3, as people know it; None if that has gone."""
    host, _, zone = ip.partition("%")
    if not zone.isdigit():
        return ip
    try:
        return f"{host}%{socket.if_indextoname(int(zone))}"
    except OSError:
        return None
