"""Membership and election together: what the shell and the simulator drive. Pure.

`handle` takes in one event and gives the actions that follow, in the order in which they are to be
carried out. There is no clock, no socket and no randomness but that of the seed here.
"""

from random import Random

from exo.p2p.election import Elections
from exo.p2p.events import (
    Action,
    Dial,
    DialFailed,
    Disconnect,
    Event,
    Found,
    Leave,
    LinkDown,
    LinkUp,
    MasterChanged,
    MemberChanged,
    Moved,
    Received,
    SaveTerm,
    Send,
    Stamp,
    Tick,
    WakeAt,
)
from exo.p2p.membership import Membership
from exo.p2p.messages import (
    Accused,
    Acknowledged,
    Alive,
    Coordinator,
    Election,
    Goodbye,
    Heartbeat,
    Message,
)
from exo.p2p.options import CoreOptions
from exo.p2p.peers import Member, Metadata, PeerInfo, Status
from exo.p2p.roster import Roster
from exo.p2p.term import Term

__all__ = [
    "Action",
    "Core",
    "CoreOptions",
    "Dial",
    "DialFailed",
    "Disconnect",
    "Event",
    "Found",
    "Leave",
    "LinkDown",
    "LinkUp",
    "MasterChanged",
    "Member",
    "MemberChanged",
    "Metadata",
    "Moved",
    "PeerInfo",
    "Received",
    "SaveTerm",
    "Send",
    "Stamp",
    "Status",
    "Tick",
    "WakeAt",
]

_LAN = CoreOptions()


class Core:
    """One node of the cluster: whom it knows, and whom it follows.

    `me` says who it is, `term` is what its last life saved, `seed` makes its random pauses. Its
    first event is a `Tick`. Times are in seconds, from a clock that never goes back.
    """

    def __init__(
        self, me: PeerInfo, term: Term | None, options: CoreOptions = _LAN, seed: int = 0
    ) -> None:
        self._actions: list[Action] = []
        self._options = options
        random = Random(seed)  # noqa: S311  pauses and phases, no secrets
        self._membership = Membership(me, options, random, self._actions)
        roster, links = self._membership.roster, self._membership.links
        self._elections = Elections(roster, term, options, links, self._actions)
        self._wake_at: float | None = None
        self._left = False

    @property
    def me(self) -> PeerInfo:
        return self._membership.roster.me

    @property
    def members(self) -> Roster:
        """All members that are known, by peer id, this node included."""
        return self._membership.roster

    @property
    def term(self) -> Term | None:
        """The highest term that this node has taken part in, also while it has no master."""
        return self._elections.term

    @property
    def master_id(self) -> str | None:
        """The master that this node follows, or is."""
        return self._elections.master

    @property
    def is_master(self) -> bool:
        return self._elections.reigns

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done about an event."""
        if self._left:
            return []
        if self._wake_at is None:
            self._membership.start(now)
            self._elections.start(now)
        elif now > self._wake_at + self._options.late:
            self._membership.grant(now)
            self._elections.suspended(now)
        self._membership.claim(self._elections.claim)
        self._dispatch(event, now)
        self._settle(event, now)
        actions = self._actions.copy()
        self._actions.clear()
        return actions

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case Received(peer_id=sender, message=message):
                self._received(sender, message, now)
            case Tick():
                self._membership.tick(now)
            case LinkUp():
                self._link_up(event, now)
            case LinkDown(peer_id=peer_id):
                self._membership.link_down(peer_id, now)
            case DialFailed():
                self._membership.dial_failed(event, now)
            case Found():
                self._membership.found(event, now)
            case Stamp(metadata=metadata):
                self._membership.stamp(metadata)
            case Moved(addresses=addresses):
                self._membership.move(addresses, now)
            case Leave():
                self._leave()

    def _link_up(self, event: LinkUp, now: float) -> None:
        if self._membership.link_up(event, now):
            # It may be another life of the master.
            self._note_members(now)
            self._elections.linked(now)
            self._membership.claim(self._elections.claim)
            self._membership.greet(event.peer.peer_id, now)

    def _received(self, sender: str, message: Message, now: float) -> None:
        match message:
            case Heartbeat():
                answer = self._membership.heartbeat(sender, message, now)
                self._note_members(now)
                self._elections.heard(sender, message.pulse.claim, now)
                if answer:
                    self._membership.claim(self._elections.claim)
                    self._membership.answer(sender, now)
            case Accused(incarnation=incarnation):
                self._membership.accused(sender, incarnation, now)
            case Goodbye(incarnation=incarnation, heir=heir):
                self._membership.goodbye(sender, incarnation, now)
                self._elections.inherit(sender, heir, now)
            case Election(lost=lost):
                if lost:
                    self._membership.rumour(lost, now)
                    self._note_members(now)
                self._elections.asked(sender, message, now)
            case Alive():
                self._elections.answered(sender, message, now)
            case Coordinator():
                self._elections.coordinator(sender, message, now)
            case Acknowledged():
                self._elections.acknowledged(sender, message)

    def _leave(self) -> None:
        heir = self._elections.leave()
        self._membership.leave(heir)
        self._left = True

    def _note_members(self, now: float) -> None:
        if self._membership.changed:
            self._membership.changed.clear()
            self._elections.members_changed(now)

    def _settle(self, event: Event, now: float) -> None:
        """Do what is due, and ask to be woken for what comes next."""
        if self._left:
            return
        self._note_members(now)
        self._elections.tick(now)
        self._membership.claim(self._elections.claim)
        self._membership.settle(now)
        wake_at = min(self._membership.next_time(), self._elections.next_time())
        if wake_at != self._wake_at or isinstance(event, Tick):
            self._wake_at = wake_at
            self._actions.append(WakeAt(wake_at))
