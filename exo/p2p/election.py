"""Who is the master: pure.

The bully algorithm (Garcia-Molina 1982), with terms. The candidates are the living members that may
become master; the master of the highest known term comes before all others, then the higher peer
id before the lower one. A candidate without a master sends ELECTION to those before it; one of them
answers ALIVE and sees to it, or it is the master itself and sends COORDINATOR to all.

**Terms.** A term is a number and its master's id, so no two masters share one. A new master takes
the highest number that it ever heard of, plus one. A node never goes back to a lower term, also
after a restart: a term is on disk before anything is sent that carries it. Where two masters meet,
the higher term wins. A node whose stored term is higher than that of the cluster it comes to does
not move the master: as long as nobody says that the master of that term reigns, it is only a
number, and the present master outbids it.

**Evidence.** That the master is X is said with each heartbeat; but nobody follows X who holds it
for dead, until X itself has refuted that (see `membership`), or denies a reign that X denies.

**Few messages.** All notice the death of a master at about the same time. The first candidate acts
at once; the others wait, the longer the further down they are, and then ask only a few of those
before them. So an election usually takes one COORDINATOR for each node and its acknowledgement.

**A master that leaves** names its heir: its goodbye carries the next term, which all take on at
once.
"""

from collections.abc import Mapping
from enum import Enum
from math import log2

from exo.p2p.events import Action, MasterChanged, SaveTerm, Send
from exo.p2p.messages import Acknowledged, Alive, Claim, Coordinator, Election
from exo.p2p.options import CoreOptions
from exo.p2p.roster import Roster
from exo.p2p.term import Term

_FOREVER = float("inf")


class _Phase(Enum):
    SETTLED = "there is a master"
    WAITING = "for those who come before this node, or for news of a master"
    ASKING = "those who come before this node"
    PROMISED = "one of them said that it sees to it"


class Elections:
    """This node's part in them. `links` are the peers that can be told something."""

    def __init__(
        self,
        roster: Roster,
        term: Term | None,
        options: CoreOptions,
        links: Mapping[str, object],
        actions: list[Action],
    ) -> None:
        self.term = term
        self.master: str | None = None
        self._me = roster.me.peer_id
        self._eligible = roster.me.eligible
        self._roster = roster
        self._options = options
        self._links = links
        self._actions = actions
        self._highest = term.number if term else 0
        self._claim = Claim(term, led=False, highest=self._highest)
        # Whether anyone says that the master of the term reigns; it itself has the last word.
        self._claimed = False
        self._denied = False
        self._phase = _Phase.WAITING
        self._first = True
        self._lost_at = self._not_before = self._until = 0.0
        self._doubt_until = 0.0
        self._asked: tuple[str, ...] = ()
        self._again = False
        self._silent: dict[str, None] = {}
        self._untold: dict[str, int] = {}
        self._retry_at = _FOREVER

    @property
    def reigns(self) -> bool:
        """Whether this node is the master."""
        return self.master == self._me

    @property
    def claim(self) -> Claim:
        """What this node says of the mastership."""
        known = self._claim
        led = self.master is not None
        if known.term is not self.term or known.led != led or known.highest != self._highest:
            self._claim = Claim(self.term, led, self._highest)
        return self._claim

    # The passing of time.

    def start(self, now: float) -> None:
        self._lost_at = now
        self._not_before = now + self._options.grace

    def next_time(self) -> float:
        if self._phase is _Phase.SETTLED or not self._eligible:
            return self._retry_at
        if self._phase is _Phase.WAITING:
            return max(self._lost_at, self._not_before) + self._slot()
        return self._until

    def tick(self, now: float) -> None:
        if now < self.next_time():
            return
        match self._phase:
            case _Phase.SETTLED:
                self._tell_again(now)
            case _Phase.WAITING:
                self._act(now)
            case _Phase.ASKING if self._again:
                self._again = False
                self._ask(now)
            case _Phase.ASKING:
                self._silent.update(dict.fromkeys(self._asked))
                self._act(now)
            case _Phase.PROMISED:
                self._silent.clear()
                self._act(now)

    def suspended(self, now: float) -> None:
        """This node was asleep: what it knows is old, and others may have elected a master."""
        self._doubt_until = now + self._options.patience
        if self._phase is not _Phase.SETTLED:
            self._lost_at = now
            self._wait(now + self._options.patience)

    # What others say.

    def linked(self, now: float) -> None:
        """A peer is linked; it may know a master, and its first heartbeat is on its way."""
        if self._first:
            self._wait(now + self._options.answer)

    def heard(self, sender: str, claim: Claim, now: float) -> None:
        """A peer says what it thinks of the mastership."""
        self._highest = max(self._highest, claim.highest)
        term = claim.term
        if term is None:
            pass
        elif term is self.term or term == self.term:
            self._heard_of_same(sender, term, claim.led, now)
        elif self.term is None or self.term < term:
            self._heard_of_higher(term, claim.led, now)
        elif claim.led and self.master is None:
            # A reign below the term that this node has stored: it will be outbid by that master.
            self._wait(now + self._options.patience)
        if self.reigns and self.term and self._highest > self.term.number:
            self._reign(now)

    def members_changed(self, now: float) -> None:
        """Someone came or went."""
        if self.master is not None:
            if not self._roster.is_living(self.master):
                self._lose(now)
            return
        self._follow_if_proven()
        asking = self._phase in (_Phase.ASKING, _Phase.PROMISED)
        if asking and not any(self._roster.is_living(peer_id) for peer_id in self._asked):
            self._phase = _Phase.WAITING

    def asked(self, sender: str, message: Election, now: float) -> None:
        """A candidate asks whether this node sees to it that there is a master."""
        self.heard(sender, message.claim, now)
        if self.master is None:
            if not self._eligible or not self._precedes(sender):
                return
            self._not_before = max(min(self._not_before, now), self._doubt_until)
        self._actions.append(Send(sender, Alive(self.claim)))

    def answered(self, sender: str, message: Alive, now: float) -> None:
        """Someone sees to it, or knows better."""
        self.heard(sender, message.claim, now)
        if self._phase is _Phase.ASKING and sender in self._asked:
            self._phase = _Phase.PROMISED
            self._until = now + self._options.promise

    def coordinator(self, sender: str, message: Coordinator, now: float) -> None:
        """A peer says that it is the master."""
        term = message.term
        if term.master_id != sender:
            return
        self.heard(sender, Claim(term, led=True, highest=term.number), now)
        reply = Acknowledged(term) if self.term == term else Alive(self.claim)
        self._actions.append(Send(sender, reply))

    def acknowledged(self, sender: str, message: Acknowledged) -> None:
        if message.term == self.term:
            self._untold.pop(sender, None)

    def inherit(self, sender: str, heir: Term | None, now: float) -> None:
        """A master left, and named the next term."""
        if heir is None or (self.term and heir <= self.term):
            return
        if heir.master_id == self._me and self._eligible:
            self._take(heir, now)
        else:
            self.heard(sender, Claim(heir, led=True, highest=heir.number), now)

    def leave(self) -> Term | None:
        """End this node's reign, if it has one: the term that is to follow, if someone can take
        over. From now on this node does not act as master any more."""
        others = [
            peer_id
            for peer_id in self._roster.candidates
            if peer_id in self._links and not self._roster.is_suspect(peer_id)
        ]
        if not self.reigns or not others:
            return None
        heir = Term(number=self._highest + 1, master_id=others[-1])
        self._adopt(heir)
        self._settle(heir)
        return heir

    def _heard_of_same(self, sender: str, term: Term, led: bool, now: float) -> None:
        self._untold.pop(sender, None)
        if sender == term.master_id:
            self._denied, self._claimed = not led, led
            if self.master == sender and not led:
                self._lose(now)
        elif led:
            self._claimed = True
        if self.master is None:
            self._follow_if_proven()

    def _heard_of_higher(self, term: Term, led: bool, now: float) -> None:
        if not led and self.reigns:
            self._highest = max(self._highest, term.number)
            self._reign(now)
        elif led or self.master is None:
            self._adopt(term)
            self._claimed = led
            if not led:
                return
            if term.master_id == self._me:
                # In a life that left nothing on the disk, or by a goodbye that has not come.
                if self.master is not None:
                    self._lose(now)
            elif self._roster.is_living(term.master_id):
                self._follow_if_proven()
            else:
                self._lose(now)
                self._wait(now + self._options.patience)

    # Having a master, or none.

    def _follow_if_proven(self) -> None:
        """Follow the master of the term, if it lives and somebody says that it reigns."""
        if self.term is None or not self._claimed or self._denied:
            return
        if self.term.master_id != self._me and self._roster.is_living(self.term.master_id):
            self._settle(self.term)

    def _reign(self, now: float) -> None:
        self._take(Term(number=self._highest + 1, master_id=self._me), now)

    def _take(self, term: Term, now: float) -> None:
        """Be the master of a term."""
        self._adopt(term)
        self._settle(term)
        living = [peer_id for peer_id in self._links if self._roster.is_living(peer_id)]
        self._untold = dict.fromkeys(living, self._options.retries)
        self._tell(now)

    def _adopt(self, term: Term) -> None:
        self.term = term
        self._highest = max(self._highest, term.number)
        self._claimed = self._denied = False
        self._actions.append(SaveTerm(term))

    def _settle(self, term: Term) -> None:
        self.master = term.master_id
        self._phase = _Phase.SETTLED
        self._first = False
        self._silent.clear()
        self._untold.clear()
        self._retry_at = _FOREVER
        self._actions.append(MasterChanged(term))

    def _lose(self, now: float) -> None:
        """Have no master any more."""
        if self.master is not None:
            self._actions.append(MasterChanged(None))
        self.master = None
        self._claimed = False
        self._untold.clear()
        self._lost_at = now
        self._not_before = max(now, self._doubt_until)
        self._phase = _Phase.WAITING

    # The first acts, the others wait.

    def _wait(self, until: float) -> None:
        """Wait for news until then, within what is bearable, if this node has nothing better."""
        if self._phase is _Phase.WAITING:
            bearable = self._lost_at + self._options.patience_max
            self._not_before = max(self._not_before, min(until, bearable))

    def _slot(self) -> float:
        """How long to wait for the candidates before this one to act."""
        position = self._roster.rank_from_top(self._me)
        first = self._first_candidate()
        if first == self._me:
            position = 0
        elif first and first < self._me:
            position += 1
        return self._options.slot * (1 + log2(position)) if position else 0.0

    def _first_candidate(self) -> str | None:
        """The master of the highest known term comes first, if it lives."""
        if self.term and self._roster.is_candidate(self.term.master_id):
            return self.term.master_id
        return None

    def _precedes(self, other: str) -> bool:
        first = self._first_candidate()
        return first == self._me or (first != other and self._me > other)

    def _before_me(self) -> tuple[str, ...]:
        """The first few before this node who have not kept silent yet."""
        first = self._first_candidate()
        found = [first] if first and first not in self._silent else []
        for peer_id in reversed(self._roster.candidates):
            if peer_id <= self._me or len(found) >= self._options.asked:
                break
            if peer_id != first and peer_id not in self._silent:
                found.append(peer_id)
        return tuple(found)

    def _act(self, now: float) -> None:
        self._asked = () if self._first_candidate() == self._me else self._before_me()
        if not self._asked:
            self._reign(now)
            return
        self._phase = _Phase.ASKING
        self._again = True
        self._ask(now)

    def _ask(self, now: float) -> None:
        lost = self._roster.fact(self.term.master_id) if self.term else None
        if lost and self._roster.is_living(lost.peer.peer_id):
            lost = None
        for peer_id in self._asked:
            if peer_id in self._links:
                self._actions.append(Send(peer_id, Election(self.claim, lost)))
        self._until = now + self._options.answer

    def _tell(self, now: float) -> None:
        if self.term is None:
            return
        message = Coordinator(self.term)
        self._actions.extend(Send(peer_id, message) for peer_id in self._untold)
        self._retry_at = now + self._options.retry if self._untold else _FOREVER

    def _tell_again(self, now: float) -> None:
        """Tell those who have not acknowledged, and can still be told."""
        self._untold = {
            peer_id: left - 1
            for peer_id, left in self._untold.items()
            if left > 0 and peer_id in self._links
        }
        self._tell(now)
