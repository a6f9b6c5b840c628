"""What a node keeps of one peer that it hears: how its heartbeats come, and how far each of the
two has told the other what changed among the members."""

from exo.p2p.messages import MAX_FACTS, Gossip, Pulse
from exo.p2p.options import CoreOptions
from exo.p2p.roster import Roster
from exo.p2p.timeouts import Arrivals

# Heartbeats with another digest, while nothing is left to tell, after which all is told again;
# and how many more before that is done another time.
_UNEQUAL = 3
_UNEQUAL_AGAIN = 20


class Watch:
    """A peer that is linked, or that should be heard.

    `boot` is of the life in which it was linked, `heard` the time of the last sign of life, at this
    `incarnation` and `sequence`, and `heard_here` of the last that came over the link itself;
    `suspect_until` the time at which it is dead, while it is suspected; `missing` are the members
    that it would like to hear of.
    """

    __slots__ = (
        "_accused",
        "_accused_at",
        "_acknowledged",
        "_arrivals",
        "_introduced",
        "_received",
        "_round",
        "_their_round",
        "_told",
        "_unequal",
        "boot",
        "heard",
        "heard_here",
        "incarnation",
        "linked_life",
        "linked_since",
        "missing",
        "sequence",
        "suspect_until",
    )

    def __init__(self, now: float, options: CoreOptions) -> None:
        self.boot = ""
        self.linked_since = now
        self.linked_life = -1
        self.heard = now
        self.heard_here = now
        self.incarnation = -1
        self.sequence = -1
        self.suspect_until = 0.0
        self.missing: tuple[str, ...] = ()
        self._arrivals = Arrivals(options)
        self.unlink()

    # Signs of life.

    def hear(self, incarnation: int, sequence: int, now: float, options: CoreOptions) -> bool:
        """Take in a heartbeat of the peer, seen here or elsewhere; False if it is an old one."""
        if incarnation < self.incarnation:
            return False
        if incarnation == self.incarnation and sequence <= self.sequence:
            return False
        gap = now - self.heard
        # Some are sent before their time; they say nothing of the rhythm.
        if self.sequence >= 0 and gap >= options.period / 2:
            self._arrivals.observe(gap, options)
        self.incarnation = incarnation
        self.sequence = sequence
        self.heard = now
        return True

    def deadline(self, options: CoreOptions) -> float:
        """When it is suspected, or dead, if nothing is heard."""
        return self.suspect_until or self.heard + self._arrivals.timeout(options)

    # The link.

    def link(self, boot: str, now: float, position: int) -> None:
        """A link begins; the peer is told what changed after this position of the log."""
        self.unlink()
        self.boot = boot
        self.linked_since = self.heard_here = now
        self._acknowledged = position

    def unlink(self) -> None:
        self.missing = ()
        self._round = self._their_round = 0
        self._acknowledged = 0
        self._introduced = False
        self._received = 0
        self._told = 0
        self._unequal = 0
        self._accused = -1
        self._accused_at = 0.0

    def may_accuse(self, incarnation: int, now: float, options: CoreOptions) -> bool:
        """Whether the peer has not just been told that it is held for gone."""
        if incarnation <= self._accused and now - self._accused_at < options.period:
            return False
        self._accused = incarnation
        self._accused_at = now
        return True

    # Gossip.

    def gossip(self, roster: Roster) -> Gossip | None:
        """What the peer has not acknowledged yet, as much as fits. Of this node itself first, and
        on every link: what this node is to others they take from its own facts alone."""
        knows_all = self._acknowledged >= roster.end
        if self._introduced and knows_all and self._told == self._received:
            return None
        facts, end = roster.since_position(self._acknowledged, MAX_FACTS)
        if not self._introduced or roster.has_changed(self._acknowledged):
            facts = (roster.own, *facts)
        self._told = self._received
        return Gossip(facts, self._round, end, self._their_round, self._received)

    def take(self, gossip: Gossip, roster: Roster) -> None:
        """Take note of how far the two are; its facts are the caller's."""
        if gossip.received_round == self._round:
            self._introduced = self._introduced or gossip.received > 0
            self._acknowledged = max(self._acknowledged, min(gossip.received, roster.end))
        if gossip.round != self._their_round:
            self._their_round = gossip.round
            self._received = 0
        self._received = max(self._received, gossip.end)
        if gossip.facts:
            self._told = -1

    def compare(self, pulse: Pulse, roster: Roster) -> None:
        """Tell the peer everything again, if its list stays unlike ours."""
        if pulse.digest == roster.digest or self._acknowledged < roster.end:
            self._unequal = min(self._unequal, 0)
            return
        self._unequal += 1
        if self._unequal >= _UNEQUAL:
            self._unequal = -_UNEQUAL_AGAIN
            self._round += 1
            self._acknowledged = 0
