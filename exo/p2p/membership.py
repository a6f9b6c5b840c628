"""Who is a member, and who of them lives: pure.

In the manner of SWIM (Das, Gupta, Motivala 2002) with ideas of Lifeguard
(https://arxiv.org/abs/1707.00788), over links that are TCP connections:

- Everyone sends a heartbeat to its partners each period. In a small cluster these are all others;
  in a large one the neighbours on the ring of all ids, the master and the standbys.
- A partner that is silent for longer than its rhythm explains, or whose link breaks, is suspect.
  It is dead if it stays silent, and at once if its host then refuses to be dialled. Only it itself
  can refute that, by raising its incarnation; whoever hears that a peer which it hears is held for
  dead tells the peer so.
- What changes is told to each partner once, and again until it is acknowledged. Digests of the
  whole list make sure that nothing was missed. They compare incarnations, so what belongs to one
  (addresses, say) is taken from the facts that the member made, and from nowhere else.
- Who leaves says so, and is believed at once.

**Where A cannot reach B, but C reaches both**, B does not die: A names B as missing in its
heartbeats, C answers with the last heartbeat of B that it knows, and each newer one is a sign of
life. A, B and C stay one cluster, under one master, also if that is B. What A wants of B fails with
PeerUnreachable meanwhile; A goes on dialling.

**A node that was itself suspended** has no right to suspect others, so all have a fresh timeout.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from exo.p2p.circle import Circle
from exo.p2p.dialing import Dialer
from exo.p2p.events import Action, DialFailed, Disconnect, Found, LinkUp, MemberChanged, Send
from exo.p2p.messages import (
    MAX_FACTS,
    Accused,
    Claim,
    Goodbye,
    Gossip,
    Heartbeat,
    Pulse,
    Vouch,
    check_size,
)
from exo.p2p.options import CoreOptions
from exo.p2p.peers import Fact, Metadata, PeerInfo, Status, bounded
from exo.p2p.roster import Roster
from exo.p2p.term import Term
from exo.p2p.watch import Watch

_FOREVER = float("inf")


class Membership:
    """The members as this node sees them. What it decides is appended to `actions`, and the ids of
    members that came, went or were heard again to `changed`, for whoever reads and clears them."""

    def __init__(
        self, me: PeerInfo, options: CoreOptions, random: Random, actions: list[Action]
    ) -> None:
        self.roster = Roster(bounded(me))
        self.changed: list[str] = []
        self._circle = Circle(self.roster, options)
        self._me = me.peer_id
        self._options = options
        self._actions = actions
        self._dialer = Dialer(options, random)
        self._random = random
        self._regroup = False
        self._beat_at = self._check_at = self._forget_at = _FOREVER

    def start(self, now: float) -> None:
        self._regroup = True
        # Nodes that start together need not send together for ever.
        self._beat_at = now + self._options.period * self._random.random()
        self._check_at = now + self._options.timeout_min
        self._forget_at = now + self._options.recent

    @property
    def links(self) -> Mapping[str, object]:
        """By the ids of the peers that are linked."""
        return self._circle.links

    def claim(self, claim: Claim) -> None:
        """Say this of the master from now on."""
        if claim is not self._circle.claim:
            self._circle.claim = claim
            self._regroup = True

    # The passing of time.

    def next_time(self) -> float:
        return min(self._beat_at, self._check_at, self._forget_at, self._dialer.next_due())

    def tick(self, now: float) -> None:
        if now >= self._beat_at:
            self._beat_at = max(self._beat_at + self._options.period, now)
            self._actions.extend(self._circle.beat(now))
        if now >= self._check_at:
            self._check(now)
        if now >= self._forget_at:
            self._forget_at = now + self._options.recent / 10
            self.roster.forget(now - self._options.remember)

    def grant(self, now: float) -> None:
        """This node was suspended: nobody can be blamed for not having been heard."""
        for watch in self._circle.watched.values():
            watch.heard = watch.heard_here = now
            if watch.suspect_until:
                watch.suspect_until = now + self._options.suspicion

    def settle(self, now: float) -> None:
        """Do what follows from all that has changed: other partners, new dials."""
        if self._regroup:
            self._regroup = False
            for peer_id in self._circle.choose(now):
                self._dialer.want(peer_id, now)
            self._check_at = min(self._check_at, now + self._options.timeout_min)
        if self._dialer.next_due() <= now:
            self._actions.extend(self._dialer.due(now, self._circle.wish))

    # Links.

    def link_up(self, event: LinkUp, now: float) -> bool:
        """Take note of a link; True if it is a new one, with a peer that is to be greeted."""
        peer = event.peer
        if peer.peer_id == self._me:
            self._dialer.up(peer.peer_id, event.dialled, now)
            return False
        known = self.roster.fact(peer.peer_id)
        if known and known.peer.boot != peer.boot:
            self._circle.links.pop(peer.peer_id, None)
            if known.status is Status.ALIVE:
                self._learn(Fact(known.peer, Status.DEAD, known.incarnation), now)
        self._dialer.up(peer.peer_id, event.dialled, now)
        if peer.peer_id in self._circle.links:
            return False
        living = self.roster.is_living(peer.peer_id)
        watch = self._circle.watched.get(peer.peer_id) or Watch(now, self._options)
        # Two who know each other usually know the same; the digests tell if not.
        watch.link(peer.boot, now, self.roster.end if living else 0)
        self._circle.links[peer.peer_id] = watch
        if living:
            self._trust(peer.peer_id, watch, now)
        else:
            self._circle.strangers[peer.peer_id] = watch
            self._check_at = min(self._check_at, now + self._options.timeout_max)
            if known := self.roster.fact(peer.peer_id):
                self._accuse(peer.peer_id, watch, known, now)
        return True

    def greet(self, peer_id: str, now: float) -> None:
        """Send a first heartbeat to one who is linked."""
        self._actions.extend(self._circle.greet(peer_id, now))

    def link_down(self, peer_id: str, now: float) -> None:
        watch = self._circle.links.pop(peer_id, None)
        if watch is None:
            return
        watch.unlink()
        self._circle.strangers.pop(peer_id, None)
        if self.roster.is_living(peer_id):
            self._suspect(peer_id, watch, now)
        # One who hangs up again and again is not dialled in a tight loop.
        if now - watch.linked_since < self._options.pause_min:
            self._dialer.lost(peer_id, now)
        else:
            self._dialer.want(peer_id, now)

    def dial_failed(self, event: DialFailed, now: float) -> None:
        key = event.peer_id or event.addresses
        self._dialer.failed(key, now, self._circle.wish)
        if event.peer_id is None or not event.refused or event.peer_id in self._circle.links:
            return
        watch = self._circle.watched.get(event.peer_id)
        known = self.roster.fact(event.peer_id)
        # A refusal proves the end of one who was linked from here before, and only of such: to
        # others there may never have been a way.
        if watch and watch.suspect_until and known and watch.linked_life == known.incarnation:
            self._learn(Fact(known.peer, Status.DEAD, known.incarnation), now)

    def found(self, event: Found, now: float) -> None:
        if event.peer_id == self._me:
            return
        self._dialer.found(event.peer_id, event.addresses, now)
        if event.peer_id is None or event.peer_id in self._circle.links:
            return
        if event.peer_id in self._circle.watched or not self.roster.is_living(event.peer_id):
            self._dialer.want(event.peer_id, now)

    # Heartbeats.

    def heartbeat(self, sender: str, heartbeat: Heartbeat, now: float) -> bool:
        """Take in a heartbeat; True if it is to be answered, with `answer`, at once."""
        watch = self._circle.links.get(sender)
        if watch is None:
            return False
        pulse = heartbeat.pulse
        self._itself(sender, watch, heartbeat.gossip, now)
        watch.heard_here = now
        if self.roster.is_living(sender):
            self._hear(sender, watch, pulse, now)
            watch.linked_life = pulse.incarnation
        watch.missing = pulse.missing
        more = False
        if heartbeat.gossip:
            watch.take(heartbeat.gossip, self.roster)
            more = len(heartbeat.gossip.facts) >= MAX_FACTS
            for fact in heartbeat.gossip.facts:
                if self.roster.is_news(fact):
                    self._learn(fact, now)
        for vouch in heartbeat.vouches:
            self._vouched(vouch, now)
        watch.compare(pulse, self.roster)
        return more or (not heartbeat.answer and sender not in self._circle.partners)

    def _itself(self, sender: str, watch: Watch, gossip: Gossip | None, now: float) -> None:
        """Take in what a peer says of itself, before anything that follows from its being heard."""
        for fact in gossip.facts[:1] if gossip else ():
            if fact.peer.peer_id == sender and self.roster.is_news(fact):
                self._learn(fact, now)
        known = self.roster.fact(sender)
        if known and (known.status is not Status.ALIVE or known.peer.boot != watch.boot):
            self._accuse(sender, watch, known, now)

    def answer(self, peer_id: str, now: float) -> None:
        """Send a heartbeat to one peer."""
        self._actions.extend(self._circle.greet(peer_id, now, answer=True))

    def accused(self, sender: str, incarnation: int, now: float) -> None:
        """Someone holds this node for gone."""
        if incarnation >= self.roster.incarnation:
            self._refute(incarnation, now)
        if sender not in self._circle.partners and sender not in self._circle.strangers:
            self.answer(sender, now)

    def goodbye(self, sender: str, incarnation: int, now: float) -> None:
        """A peer leaves."""
        if known := self.roster.fact(sender):
            incarnation = max(incarnation, known.incarnation)
            self._learn(Fact(known.peer, Status.LEFT, incarnation), now)

    def leave(self, heir: Term | None) -> None:
        """Say goodbye to all."""
        goodbye = Goodbye(self.roster.incarnation, heir)
        self._actions.extend(Send(peer_id, goodbye) for peer_id in self._circle.links)

    def rumour(self, fact: Fact, now: float) -> None:
        """What a peer says of a member, outside of its heartbeats."""
        self._learn(fact, now)

    def stamp(self, metadata: Metadata) -> None:
        self.roster.stamp(self._me, check_size(dict(metadata)))

    def move(self, addresses: tuple[str, ...], now: float) -> None:
        self.roster.move(bounded(replace(self.roster.me, addresses=addresses)), now)
        self._actions.extend(self._circle.beat(now))

    def _vouched(self, vouch: Vouch, now: float) -> None:
        known = self.roster.fact(vouch.peer_id)
        watch = self._circle.watched.get(vouch.peer_id)
        if watch and known and known.incarnation == vouch.incarnation:
            self._hear(vouch.peer_id, watch, vouch, now)

    def _hear(self, peer_id: str, watch: Watch, sign: Pulse | Vouch, now: float) -> None:
        if watch.hear(sign.incarnation, sign.sequence, now, self._options):
            self._trust(peer_id, watch, now)
            self.roster.stamp(peer_id, sign.metadata)

    # Facts.

    def _learn(self, fact: Fact, now: float) -> None:
        peer_id = fact.peer.peer_id
        known = self.roster.fact(peer_id)
        if peer_id == self._me:
            self._learn_of_me(fact, now)
            return
        if known and fact.status is Status.DEAD and fact.incarnation >= known.incarnation:
            watch = self._circle.links.get(peer_id)
            if watch and known.status is Status.ALIVE and now - watch.heard < self._options.fresh:
                self._accuse(peer_id, watch, fact, now)
                return
        suspect = self.roster.is_suspect(peer_id)
        if not self.roster.merge(fact, now):
            return
        self._regroup = True
        if fact.status is Status.ALIVE:
            self._circle.strangers.pop(peer_id, None)
            if watch := self._circle.watched.get(peer_id):
                watch.suspect_until = 0.0
                watch.heard = now
        else:
            self._circle.watched.pop(peer_id, None)
            self._dialer.gone(peer_id, now)
            if fact.status is Status.DEAD:
                self._part(peer_id, now)
        if known is None or suspect or _differ(known, fact):
            self._tell(peer_id)

    def _learn_of_me(self, fact: Fact, now: float) -> None:
        gone = fact.status is not Status.ALIVE or fact.peer.boot != self.roster.me.boot
        mine = self.roster.incarnation
        if fact.incarnation > mine or (fact.incarnation == mine and gone):
            self._refute(fact.incarnation, now)

    def _refute(self, incarnation: int, now: float) -> None:
        self.roster.renew(incarnation + 1, now)
        self._actions.extend(self._circle.beat(now))

    def _accuse(self, peer_id: str, watch: Watch, fact: Fact, now: float) -> None:
        """Tell a peer what it has to refute; not more often than it can answer."""
        if watch.may_accuse(fact.incarnation, now, self._options):
            self._actions.append(Send(peer_id, Accused(fact.incarnation)))

    def _part(self, peer_id: str, now: float) -> None:
        """Have no link any more with one who is silent, and look for it."""
        self._circle.strangers.pop(peer_id, None)
        if self._circle.links.pop(peer_id, None):
            self._actions.append(Disconnect(peer_id, "silent for too long"))
            self._dialer.want(peer_id, now)
        else:
            self._dialer.lost(peer_id, now)

    def _tell(self, peer_id: str) -> None:
        self._actions.append(MemberChanged(self.roster[peer_id]))
        self.changed.append(peer_id)

    # Suspicion.

    def _check(self, now: float) -> None:
        """Suspect who is silent, and give up who was suspect for too long."""
        overdue = [
            (peer_id, watch)
            for peer_id, watch in self._circle.watched.items()
            if watch.deadline(self._options) <= now
        ]
        dead = [peer_id for peer_id, watch in overdue if watch.suspect_until]
        for peer_id in dead:
            self._bury(peer_id, now)
        for peer_id, watch in overdue:
            if peer_id not in dead:
                self._suspect(peer_id, watch, now)
        if dead and self._circle.is_large and not self._circle.hears_anyone():
            for peer_id in [other for other in self.roster.living if other != self._me]:
                self._bury(peer_id, now)
        self._drop_mute_links(now)
        deadlines = [watch.deadline(self._options) for watch in self._circle.watched.values()]
        if self._circle.strangers:
            deadlines.append(now + self._options.timeout_min)
        # Most deadlines move on before they come; they are looked at no more often than this.
        self._check_at = max(min(deadlines, default=_FOREVER), now + self._options.timeout_min / 8)

    def _drop_mute_links(self, now: float) -> None:
        """Make new links with those who live, as others say or as they may prove, if the one that
        there is has brought nothing for a long time."""
        patience = self._options.timeout_max + self._options.suspicion
        for peer_id, watch in [*self._circle.watched.items(), *self._circle.strangers.items()]:
            if peer_id in self._circle.links and now - watch.heard_here >= patience:
                self._part(peer_id, now)

    def _bury(self, peer_id: str, now: float) -> None:
        """Hold a peer for dead, whatever its link says."""
        if watch := self._circle.links.get(peer_id):
            watch.heard = -_FOREVER
        if known := self.roster.fact(peer_id):
            self._learn(Fact(known.peer, Status.DEAD, known.incarnation), now)

    def _suspect(self, peer_id: str, watch: Watch, now: float) -> None:
        if watch.suspect_until:
            return
        self._circle.watched[peer_id] = watch
        watch.suspect_until = now + self._options.suspicion
        self._check_at = min(self._check_at, watch.suspect_until)
        self.roster.suspect(peer_id, now)
        self._tell(peer_id)

    def _trust(self, peer_id: str, watch: Watch, now: float) -> None:
        watch.heard = now
        if not watch.suspect_until:
            return
        watch.suspect_until = 0.0
        if peer_id not in self._circle.partners:
            self._circle.watched.pop(peer_id, None)
        self.roster.trust(peer_id, now)
        self._tell(peer_id)


def _differ(known: Fact, fact: Fact) -> bool:
    return known.status is not fact.status or known.peer != fact.peer
