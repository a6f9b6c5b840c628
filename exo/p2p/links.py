"""All links of a node: dialled and accepted, one per peer.

When two nodes dial each other at once there are two connections, and one side alone, that with the
smaller peer id, decides which of them becomes the link; so both keep the same, and no request is
ever sent on the other.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exo.errors import LinkClosed, PeerError, PeerTimeout
from exo.p2p.addresses import origin
from exo.p2p.admission import NONCE_BYTES, Admission, Admitted, Handshake, Hello, Refused
from exo.p2p.connecting import connect_first, shake
from exo.p2p.identity import Identity
from exo.p2p.limiter import FailureLimiter
from exo.p2p.link import Link
from exo.p2p.link_events import DialFailed, LinkDown, LinkEvent, LinkUp, PeerInfo
from exo.p2p.mux import MuxLimits
from exo.p2p.peers import MAX_ADDRESSES
from exo.p2p.refusals import Reason
from exo.p2p.services import Services
from exo.p2p.transport import Channel, Listener, Transport

__all__ = ["DialFailed", "LinkDown", "LinkEvent", "LinkLimits", "LinkUp", "Links"]

# What happens all the time among healthy nodes, and what is nobody's concern.
_EXPECTED: frozenset[Reason] = frozenset({"linked", "self"})
_QUIET: frozenset[Reason] = frozenset({"linked", "self", "other_cluster"})
_REMEMBERED = 256

# What is dialled: a peer, or whoever is at some addresses.
Key = str | tuple[str, ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkLimits:
    """Seconds that a peer gets to introduce itself, and to show that it is alive when another
    claims its id; dials at once; and what one link may hold."""

    handshake: float = 5.0
    alive: float = 2.0
    dials: int = 32
    mux: MuxLimits = field(default_factory=MuxLimits)


class Links:
    """Every peer that this node is linked with."""

    def __init__(
        self,
        *,
        identity: Identity,
        transport: Transport,
        admission: Admission,
        hello: Callable[[], Hello],
        services: Services,
        on_event: Callable[[LinkEvent], None],
        limits: LinkLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = admission
        self._peer_id = identity.peer_id
        self._transport = transport
        self._hello = hello
        self._services = services
        self._on_event = on_event
        self._limits = limits or LinkLimits()
        self._clock = clock
        self._listeners: list[Listener] = []
        self._links: dict[str, Link] = {}
        self._ending: set[Link] = set()
        self._dials: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling = asyncio.Semaphore(self._limits.dials)
        self._closing = False
        self._refused: Counter[str] = Counter()
        self._failures = FailureLimiter()
        self._told: OrderedDict[tuple[str, Reason], None] = OrderedDict()

    # What there is.

    @property
    def listening(self) -> tuple[str, ...]:
        """The multiaddrs listened on, with their real ports."""
        return tuple(listener.address for listener in self._listeners)

    @property
    def refused(self) -> Counter[str]:
        """Connections that became no link, by reason."""
        return self._refused + self._transport.refused

    def get(self, peer_id: str) -> Link | None:
        return self._links.get(peer_id)

    def all(self) -> list[Link]:
        return list(self._links.values())

    # What is wanted.

    async def listen(self, address: str) -> str:
        """Accept links at a multiaddr; the same with its real port.

        Raises:
            ConfigError: the address is wrong.
            PortInUse: it is taken.
        """
        listener = await self._transport.listen(address, self._accept)
        self._listeners.append(listener)
        return listener.address

    def dial(self, peer_id: str | None, addresses: Sequence[str]) -> None:
        """Try to link with a peer, or whoever is there; `LinkUp` or `DialFailed` tells the result.
        A peer that is linked, or being dialled, is not dialled again."""
        key = peer_id or tuple(addresses)
        if key not in self._links and key not in self._dials and not self._closing:
            self._dials.add(key)
            task = asyncio.create_task(self._dial(peer_id, tuple(addresses)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def drop(self, peer_id: str, reason: str) -> None:
        """Close the link with a peer, if there is one."""
        if link := self._links.get(peer_id):
            link.close(reason)

    async def close(self) -> None:
        """Stop accepting and dialling, and say goodbye on all links, within a bounded time."""
        self._closing = True
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        dials = set(self._tasks)
        for task in dials:
            task.cancel()
        for link in self.all():
            link.close("the node stops")
        if dials:
            await asyncio.wait(dials)
        await asyncio.gather(*(link.wait_closed() for link in self._ending))
        self._ending.clear()

    # Becoming a link.

    async def _accept(self, channel: Channel) -> None:
        host = origin(channel.address)
        if not self._failures.allows(host, self._clock()):
            self._refused["too_many_failures"] += 1
            channel.abort()
            return
        try:
            async with asyncio.timeout(self._limits.handshake):
                refused = await self._introduce(channel)
        except (PeerError, TimeoutError) as error:
            log.debug("%s did not introduce itself: %s", channel.address, error)
            self._refused["bad_introduction"] += 1
            return
        if refused and refused.reason == "wrong_secret" and not refused.by_them:
            self._failures.failed(host, self._clock())

    async def _dial(self, peer_id: str | None, addresses: tuple[str, ...]) -> None:
        key = peer_id or addresses
        try:
            async with self._dialling:
                attempt = await connect_first(self._transport, peer_id, addresses)
                done = attempt.channel and await self._settle(attempt.channel, key)
        finally:
            self._dials.discard(key)
        if done:
            return
        for error in attempt.errors:
            log.debug("%s cannot be dialled: %s", key, error)
        if key not in self._links:
            self._on_event(DialFailed(peer_id, addresses, attempt.refused))

    async def _settle(self, channel: Channel, key: Key) -> bool:
        """Whether a channel that was dialled led to a link, or to who is known already."""
        try:
            async with asyncio.timeout(self._limits.handshake):
                refused = await self._introduce(channel, key)
        except (PeerError, TimeoutError) as error:
            log.debug("%s did not introduce itself: %s", channel.address, error)
            return False
        if refused is None:
            return True
        known = self._hello() if refused.reason == "self" else None
        if refused.reason == "linked" and (link := self._links.get(channel.peer_id)):
            known = link.hello
        if known:
            self._tell_found(known, key)
        return known is not None

    async def _introduce(self, channel: Channel, key: Key | None = None) -> Refused | None:
        """Make a link of a channel, or close it: why there is none. `key`: of the dial that made
        it, if it was made by one.

        Raises:
            LinkClosed, ProtocolError, TimeoutError
        """
        try:
            handshake = Handshake(
                self.admission,
                self._hello(),
                peer_id=channel.peer_id,
                binding=channel.binding,
                outgoing=key is not None,
                nonce=secrets.token_bytes(NONCE_BYTES),
            )
            outcome = await shake(channel, handshake, self._judge)
            if isinstance(outcome.result, Admitted):
                hello = outcome.result.hello
                self._establish(channel, outcome.result, outcome.unsent, outgoing=key is not None)
                self._tell_found(hello, key, is_new=True)
                return None
            self._refuse(channel, outcome.result)
            await channel.close()
            return outcome.result
        except BaseException:
            channel.abort()
            raise

    async def _judge(self, hello: Hello) -> Reason | None:
        """Whether a peer that may be in the cluster gets a link: not if it has one."""
        while link := self._links.get(hello.peer_id):
            is_same = link.hello.boot == hello.boot
            if is_same and hello.peer_id < self._peer_id:
                return None  # The peer decides, and has lost the link that this side still sees.
            if await self._is_alive(link):
                return "linked" if is_same else "duplicate_id"
            link.abort("it does not answer, and the peer dialled again")
        return None

    async def _is_alive(self, link: Link) -> bool:
        try:
            async with asyncio.timeout(self._limits.alive):
                await link.ping()
        except (TimeoutError, PeerTimeout, LinkClosed):
            return False
        return True

    def _establish(
        self, channel: Channel, admitted: Admitted, unsent: Sequence[bytes], *, outgoing: bool
    ) -> None:
        hello = admitted.hello
        if old := self._links.get(hello.peer_id):
            old.abort("the peer has a newer one")
        link = Link(
            channel,
            hello,
            self._services,
            outgoing=outgoing,
            protocol=admitted.protocol,
            limits=self._limits.mux,
            on_closed=self._closed,
        )
        self._links[hello.peer_id] = link
        link.start(unsent)
        log.debug("Linked with %s (%s) at %s.", hello.name, hello.peer_id, link.address)

    def _tell_found(self, hello: Hello, key: Key | None, *, is_new: bool = False) -> None:
        """Tell of a link, if it is new or somebody asked who lives where it leads to."""
        dialled = key if isinstance(key, tuple) else ()
        if key is not None:
            self._dials.discard(key)  # first, since who is told may want to dial again
        if is_new or dialled:
            self._on_event(LinkUp(_info(hello), dialled))

    def _closed(self, link: Link) -> None:
        self._ending = {old for old in self._ending if not old.is_over} | {link}
        if self._links.get(link.peer_id) is link:
            del self._links[link.peer_id]
            error = link.closed
            log.debug("The link with %s is closed: %s", link.hello.name, error)
            self._on_event(LinkDown(link.peer_id, clean=error is not None and error.clean))

    def _refuse(self, channel: Channel, refused: Refused) -> None:
        """Count it; the user is told once of each host and reason."""
        reason, error = refused.reason, refused.error
        if reason not in _EXPECTED:
            self._refused[reason] += 1
        key = (origin(channel.address), reason)
        is_news = reason not in _QUIET and key not in self._told
        level = logging.WARNING if is_news else logging.DEBUG
        log.log(level, "No link with %s at %s: %s", channel.peer_id, channel.address, error)
        self._told[key] = None
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)


def _info(hello: Hello) -> PeerInfo:
    return PeerInfo(
        peer_id=hello.peer_id,
        name=hello.name,
        version=hello.version,
        boot=hello.boot,
        addresses=hello.addresses[:MAX_ADDRESSES],
        eligible=hello.eligible,
    )
