"""Whom this node is linked with, whose silence it minds, and what it says to whom."""

from exo.p2p.dialing import Target, Wish
from exo.p2p.events import Send
from exo.p2p.messages import MAX_ASKED, Claim, Heartbeat, Pulse, Vouch
from exo.p2p.options import CoreOptions
from exo.p2p.peers import MAX_ADDRESSES, Status
from exo.p2p.roster import Roster
from exo.p2p.watch import Watch


class Circle:
    """The peers around this node.

    `links` are those that are linked; `partners` those it exchanges heartbeats with each period;
    `watched` those and who is suspect: their silence matters. `strangers` are linked and not known
    to live: they are told what they need to prove it. `claim` is what is said of the master.
    """

    def __init__(self, roster: Roster, options: CoreOptions) -> None:
        self.roster = roster
        self.links: dict[str, Watch] = {}
        self.partners: dict[str, None] = {}
        self.watched: dict[str, Watch] = {}
        self.strangers: dict[str, Watch] = {}
        self.claim = Claim(None, led=False, highest=0)
        self._me = roster.me.peer_id
        self._options = options
        self._sequence = 0

    # Who matters.

    @property
    def is_large(self) -> bool:
        """Whether there are too many for everyone to hear everyone."""
        return len(self.roster.living) > self._options.mesh

    def choose(self, now: float) -> list[str]:
        """Choose the partners anew; return those that there is no link with."""
        chosen = dict.fromkeys(self._neighbours() if self.is_large else self.roster.living)
        chosen.pop(self._me, None)
        for peer_id in self.partners:
            watch = self.watched.get(peer_id)
            if peer_id not in chosen and watch and not watch.suspect_until:
                del self.watched[peer_id]
        added = [peer_id for peer_id in chosen if peer_id not in self.watched]
        for peer_id in added:
            watch = self.links.get(peer_id) or Watch(now, self._options)
            watch.heard = now
            self.watched[peer_id] = watch
        self.partners = chosen
        return [peer_id for peer_id in added if peer_id not in self.links]

    def _neighbours(self) -> list[str]:
        near = self.roster.neighbours(self._options.neighbours)
        top = self.roster.candidates[-1 - self._options.standbys :]
        term = self.claim.term
        master = [term.master_id] if term and self.roster.is_living(term.master_id) else []
        return [*near, *top, *master]

    def hears_anyone(self) -> bool:
        """Whether a partner is heard. In a large cluster all else is hearsay, and worth nothing
        when it ends."""
        return any(
            peer_id in self.links and not watch.suspect_until
            for peer_id, watch in self.watched.items()
        )

    def wish(self, target: Target, now: float) -> Wish | None:
        """Whether to dial a target, and with which pauses."""
        options = self._options
        if isinstance(target.key, tuple):
            if target.peer_id == self._me:
                return None
            lives = target.peer_id is not None and self.roster.is_living(target.peer_id)
            return Wish(target.key, None if lives else options.pause_static)
        if target.key in self.links:
            return Wish((), None)
        fact = self.roster.fact(target.key)
        if fact is None:
            fresh = now - target.found < options.remember
            return Wish(target.addresses, options.pause_max) if fresh else None
        addresses = tuple(dict.fromkeys([*target.addresses, *fact.peer.addresses]))[:MAX_ADDRESSES]
        if fact.status is Status.ALIVE:
            watched = target.key in self.watched
            return Wish(addresses, options.pause_recent) if watched else None
        since = self.roster.since(target.key)
        if fact.status is Status.LEFT:
            return Wish(addresses, options.pause_max) if target.found > since else None
        if self.is_large and not self.roster.is_near(target.key, options.neighbours):
            return Wish(addresses, None)
        recent = now - since < options.recent
        return Wish(addresses, options.pause_recent if recent else options.pause_max)

    # What is said.

    def beat(self, now: float) -> list[Send]:
        """A heartbeat for each who is to have one each period."""
        pulse = self._pulse(now)
        linked = [(peer_id, self.links.get(peer_id)) for peer_id in self.partners]
        sends = [self._heartbeat(peer_id, watch, pulse) for peer_id, watch in linked if watch]
        sends += [self._heartbeat(*stranger, pulse) for stranger in self.strangers.items()]
        return sends

    def greet(self, peer_id: str, now: float, *, answer: bool = False) -> list[Send]:
        """A heartbeat for one who is linked."""
        watch = self.links.get(peer_id)
        return [self._heartbeat(peer_id, watch, self._pulse(now), answer=answer)] if watch else []

    def _pulse(self, now: float) -> Pulse:
        self._sequence += 1
        missing = [
            peer_id
            for peer_id, watch in self.watched.items()
            if peer_id not in self.links or now - watch.heard_here > self._options.timeout_min
        ]
        return Pulse(
            self.roster.incarnation,
            self._sequence,
            self.claim,
            self.roster.digest,
            dict(self.roster.metadata(self._me)),
            tuple(missing[:MAX_ASKED]),
        )

    def _heartbeat(self, peer_id: str, watch: Watch, pulse: Pulse, *, answer: bool = False) -> Send:
        vouches = [self._vouch(missing) for missing in watch.missing] if watch.missing else ()
        told = tuple(vouch for vouch in vouches if vouch)
        return Send(peer_id, Heartbeat(pulse, watch.gossip(self.roster), told, answer))

    def _vouch(self, peer_id: str) -> Vouch | None:
        watch = self.watched.get(peer_id) or self.links.get(peer_id)
        if watch is None or watch.sequence < 0 or watch.suspect_until:
            return None
        if not self.roster.is_living(peer_id):
            return None
        metadata = dict(self.roster.metadata(peer_id))
        return Vouch(peer_id, watch.incarnation, watch.sequence, metadata)
