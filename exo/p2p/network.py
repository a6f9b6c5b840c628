"""This node among its peers: the shell around the links, the discovery and the core.

Everything that is decided (who is a member, who is the master) is decided by `core`, which sees
what happens as events and answers with actions; here they come from sockets, timers and the disk,
and are carried out.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from exo.errors import HomeError, PeerUnreachable, ProtocolError
from exo.p2p.addresses import parse
from exo.p2p.admission import Admission
from exo.p2p.announcement import Seen
from exo.p2p.core import (
    Action,
    Core,
    Dial,
    Disconnect,
    Event,
    Found,
    Leave,
    MasterChanged,
    Member,
    MemberChanged,
    Moved,
    Received,
    SaveTerm,
    Send,
    Stamp,
    Status,
    Tick,
    WakeAt,
)
from exo.p2p.discovery import Discovery, DiscoveryStatus, OnFound
from exo.p2p.interfaces import usable_interfaces, watch
from exo.p2p.link import Body, Hello, Link, Services
from exo.p2p.link_events import DialFailed, LinkDown, LinkEvent, LinkUp, PeerInfo
from exo.p2p.links import Links
from exo.p2p.measure import LinkMeasure, Measurer
from exo.p2p.messages import decode, encode
from exo.p2p.reach import reachable
from exo.p2p.term import Term
from exo.p2p.term_file import TermFile

_CORE = "core"

log = logging.getLogger(__name__)
OnMeasured = Callable[[Sequence[LinkMeasure]], None]
OnLinkEvent = Callable[[LinkEvent], None]


@dataclass(frozen=True)
class NetworkOptions:
    """`listen` is the multiaddr to listen on; `peers` are multiaddrs that are tried for ever."""

    listen: str
    peers: tuple[str, ...] = ()


class Network:
    """Who this node's peers are, which of them is the master, and how to speak to them."""

    def __init__(
        self,
        me: PeerInfo,
        options: NetworkOptions,
        *,
        make_links: Callable[[Services, Callable[[], Hello], OnLinkEvent], Links],
        make_core: Callable[[PeerInfo, Term | None], Core],
        terms: TermFile,
        make_discovery: Callable[[int, OnFound], Discovery] | None = None,
    ) -> None:
        self.me = me
        self.services = Services()
        self.services.notices[_CORE] = self._received
        self.on_measured: OnMeasured = _ignore
        self._options = options
        self._links = make_links(self.services, self._hello, self._link_event)
        self._make_core = make_core
        self._make_discovery = make_discovery
        self._terms = terms
        self._measurer = Measurer(self._measured)
        self._core: Core | None = None
        self._discovery: Discovery | None = None
        self._actions: deque[Action] = deque()
        self._saving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._term: Term | None = None
        self._left = False

    # Life.

    async def start(self) -> None:
        """Listen, look for peers, and take part in elections.

        Raises:
            PortInUse: another program listens there.
            ConfigError: an address is wrong.
            HomeError: the term on disk cannot be read.
        """
        term = await asyncio.to_thread(self._terms.load)
        listening = await self._links.listen(self._options.listen)
        # Nothing is waited for in between, so that the core hears of every link.
        self.me = replace(self.me, addresses=self.listening)
        self._core = self._make_core(self.me, term)
        for address in self._options.peers:
            self.find(address)
        self._handle(Tick())
        self._watching = asyncio.create_task(self._follow_addresses())
        if self._make_discovery:
            self._discovery = self._make_discovery(parse(listening).port, self._found)
            await self._discovery.start()

    def find(self, address: str) -> None:
        """Look for the node at a multiaddr, for as long as it takes."""
        self._handle(Found(parse(address).peer_id, (address,)))

    async def leave(self) -> None:
        """Say goodbye, so that nobody has to suspect this node, and a master hands over."""
        self._handle(Leave())
        if self._saving:
            await asyncio.wait([self._saving])
        self._left = True

    async def abort(self) -> None:
        """Close everything without a word: what a test does to see what the others make of it."""
        self._left = True
        await self.close()

    async def close(self) -> None:
        """Leave, if that has not been done, and close everything."""
        if not self._left:
            await self.leave()
        if self._timer:
            self._timer.cancel()
        if self._watching:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._discovery:
            await self._discovery.close()
        await self._measurer.close()
        await self._links.close()

    async def _follow_addresses(self) -> None:
        """Tell the others when this node has other addresses than before."""
        with closing(watch()) as changes:
            async for _ in changes:
                if self.listening != self.me.addresses:
                    self.me = replace(self.me, addresses=self.listening)
                    self._handle(Moved(self.me.addresses))

    # What is known.

    @property
    def peer_id(self) -> str:
        return self.me.peer_id

    @property
    def term(self) -> Term | None:
        """The reign that this node is under, None while there is no master."""
        return self._term

    @property
    def members(self) -> Mapping[str, Member]:
        """Every peer that is known, by its id, this node included."""
        return self._core.members if self._core else {}

    @property
    def measures(self) -> Mapping[str, LinkMeasure]:
        """What was measured of this node's links, by the peer's id."""
        return self._measurer.found

    @property
    def refused(self) -> Mapping[str, int]:
        """How many links were refused, by reason."""
        return self._links.refused

    @property
    def listening(self) -> tuple[str, ...]:
        """The multiaddrs that other nodes may reach this node at."""
        return reachable(self.peer_id, self._links.listening, usable_interfaces())

    @property
    def admission(self) -> Admission:
        return self._links.admission

    @property
    def seen(self) -> tuple[Seen, ...]:
        """The nodes that announce themselves on this network, of other clusters too."""
        return self._discovery.seen if self._discovery else ()

    def discovery_status(self) -> DiscoveryStatus:
        enabled = self._make_discovery is not None
        problem = self._discovery.problem if self._discovery else None
        return DiscoveryStatus(enabled, enabled and problem is None, problem)

    def links(self) -> list[Link]:
        return self._links.all()

    def is_linked(self, peer_id: str) -> bool:
        return self._links.get(peer_id) is not None

    def is_lost(self, peer_id: str) -> bool:
        """Whether a peer is not among the living, as far as this node knows."""
        if peer_id == self.peer_id:
            return False
        member = self.members.get(peer_id)
        return member is None or member.status in {Status.DEAD, Status.LEFT}

    def has_left(self, peer_id: str) -> bool:
        member = self.members.get(peer_id)
        return member is not None and member.status is Status.LEFT

    def metadata(self, peer_id: str) -> Mapping[str, Any]:
        """What a peer said last of what changes all the time."""
        member = self.members.get(peer_id)
        return member.metadata if member else {}

    async def wait_for(self, done: Callable[[], bool], patience: float | None = None) -> bool:
        """Return when `done`, which is asked after every change; False if patience ran out."""
        try:
            async with asyncio.timeout(patience):
                while not done():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def wait_change(self, patience: float | None = None) -> None:
        """Return at the next change of the members, the links or the master."""
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            pass

    # Speaking to peers.

    async def request(
        self, peer_id: str, method: str, body: Body = None, *, patience: float = 10.0
    ) -> Body:
        """The peer's answer.

        Raises:
            PeerUnreachable, LinkClosed, PeerTimeout: there is none.
            ExoError: the peer's refusal.
        """
        return await self._link(peer_id).request(method, body, timeout=patience)

    def stream(self, peer_id: str, method: str, body: Body = None) -> AsyncGenerator[Body]:
        """What the peer sends for it; closed early, the peer is told to stop.

        Raises:
            PeerUnreachable: there is no link to it.
        """
        return self._link(peer_id).stream(method, body)

    def notify(self, peer_id: str, method: str, body: Body) -> None:
        """Tell the peer, if it can be told."""
        if link := self._links.get(peer_id):
            link.notify(method, body)

    def stamp(self, metadata: Mapping[str, Any]) -> None:
        """Let the others know what changes all the time, such as free memory."""
        self._handle(Stamp(dict(metadata)))

    def _link(self, peer_id: str) -> Link:
        if link := self._links.get(peer_id):
            return link
        member = self.members.get(peer_id)
        raise PeerUnreachable(
            f"There is no link to {member.name if member else peer_id}.",
            hint="`exo node list` shows the nodes that can be reached.",
        )

    # Events in, actions out.

    def _handle(self, event: Event) -> None:
        """Let the core see an event, and carry out what it decides."""
        if self._core and not self._left:
            now = asyncio.get_running_loop().time()
            self._actions.extend(self._core.handle(event, now))
            self._perform()

    def _perform(self) -> None:
        """Carry out what is due, in order: nothing overtakes a term on its way to the disk."""
        while self._actions and self._saving is None:
            match self._actions.popleft():
                case SaveTerm(term=term):
                    self._saving = asyncio.create_task(self._save(term))
                case action:
                    self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Send(peer_id=peer_id, message=message):
                self.notify(peer_id, _CORE, encode(message))
            case Dial(peer_id=peer_id, addresses=addresses):
                self._links.dial(peer_id, addresses)
            case Disconnect(peer_id=peer_id, reason=reason):
                self._links.drop(peer_id, reason)
            case MemberChanged(member=member):
                log.info("%s (%s) is %s.", member.name, member.peer_id, member.status)
                self._tell()
            case MasterChanged(term=term):
                log.info("The master is %s.", term.master_id if term else "not known")
                self._term = term
                self._tell()
            case WakeAt(time=time):
                if self._timer:
                    self._timer.cancel()
                loop = asyncio.get_running_loop()
                self._timer = loop.call_at(time, self._handle, Tick())
            case SaveTerm():
                pass

    async def _save(self, term: Term) -> None:
        try:
            await asyncio.to_thread(self._terms.save, term)
        except HomeError as error:
            # Without it this node might repeat a number after a restart, and terms also carry
            # the master's id: better a master with a full disk than none.
            log.error("%s", error)
        self._saving = None
        self._perform()

    def _link_event(self, event: LinkEvent) -> None:
        match event:
            case LinkUp(peer=peer):
                if link := self._links.get(peer.peer_id):
                    self._measurer.begin(peer.peer_id, link)
            case LinkDown(peer_id=peer_id):
                self._measurer.end(peer_id)
            case DialFailed():
                pass
        self._handle(event)
        self._tell()

    def _received(self, peer_id: str, body: Body) -> None:
        try:
            message = decode(body)
        except ProtocolError as error:
            log.warning("%s sent what cannot be read: %s", peer_id, error)
            self._links.drop(peer_id, "unreadable message")
            return
        self._handle(Received(peer_id, message))

    def _found(self, seen: Seen) -> None:
        self._handle(Found(seen.peer_id, seen.addresses))

    def _hello(self) -> Hello:
        me = self.me
        return Hello(
            peer_id=me.peer_id,
            name=me.name,
            cluster=self.admission.cluster,
            version=me.version,
            protocols=self.admission.protocols,
            addresses=self.listening,
            boot=me.boot,
            eligible=me.eligible,
        )

    def _measured(self) -> None:
        self.on_measured(list(self._measurer.found.values()))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _ignore(_: Sequence[LinkMeasure]) -> None:
    """Nobody asked."""
