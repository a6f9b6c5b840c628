"""The list of members that a node keeps: what is true of each, what changed when, and who stands
next to whom. Facts are merged so that all lists become equal, in whatever order they come."""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from exo.p2p.peers import Fact, Member, Metadata, PeerInfo, Status

_STRENGTH = {Status.ALIVE: 0, Status.DEAD: 1, Status.LEFT: 2}


class _Record:
    __slots__ = ("fact", "metadata", "position", "since", "suspect")

    def __init__(self, fact: Fact, since: float) -> None:
        self.fact = fact
        self.since = since
        self.suspect = False
        self.metadata: Metadata = {}
        self.position = 0


class Roster(Mapping[str, Member]):
    """All members that are known, by peer id, this node included."""

    def __init__(self, me: PeerInfo) -> None:
        self._me = me.peer_id
        self._records: dict[str, _Record] = {}
        # The log of changes: whose record changed at which position. Only the last change of each
        # counts; the others are removed when there are many.
        self._log: list[_Record] = []
        self._positions: list[int] = []
        self._living: list[str] = []
        self._candidates: list[str] = []
        self.digest = 0
        self.end = 0
        self._insert(Fact(me, Status.ALIVE, 0), 0.0)

    # What is known.

    def __getitem__(self, peer_id: str) -> Member:
        record = self._records[peer_id]
        fact = record.fact
        status = Status.SUSPECT if record.suspect else fact.status
        return Member(fact.peer, status, fact.incarnation, record.since, record.metadata)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._records

    @property
    def me(self) -> PeerInfo:
        return self.own.peer

    @property
    def own(self) -> Fact:
        """What is true of this node."""
        return self._records[self._me].fact

    @property
    def incarnation(self) -> int:
        """This node's own."""
        return self.own.incarnation

    @property
    def living(self) -> list[str]:
        """The ids of all who live, in order. Not to be changed."""
        return self._living

    @property
    def candidates(self) -> list[str]:
        """The ids of those of them who may become master, in order. Not to be changed."""
        return self._candidates

    def fact(self, peer_id: str) -> Fact | None:
        record = self._records.get(peer_id)
        return record.fact if record else None

    def is_living(self, peer_id: str) -> bool:
        record = self._records.get(peer_id)
        return record is not None and record.fact.status is Status.ALIVE

    def is_candidate(self, peer_id: str) -> bool:
        """Whether it lives and may become master."""
        record = self._records.get(peer_id)
        return (
            record is not None and record.fact.status is Status.ALIVE and record.fact.peer.eligible
        )

    def is_suspect(self, peer_id: str) -> bool:
        record = self._records.get(peer_id)
        return record is not None and record.suspect

    def metadata(self, peer_id: str) -> Metadata:
        return self._records[peer_id].metadata

    def since(self, peer_id: str) -> float:
        return self._records[peer_id].since

    def neighbours(self, count: int) -> list[str]:
        """The `count` living members nearest to this node on the ring of all ids."""
        half = min(count // 2, (len(self._living) - 1) // 2)
        here = bisect_left(self._living, self._me)
        steps = [*range(-half, 0), *range(1, half + 1)]
        return [self._living[(here + step) % len(self._living)] for step in steps]

    def is_near(self, peer_id: str, count: int) -> bool:
        """Whether a member that does not live would be one of them if it did."""
        here = bisect_left(self._living, self._me)
        there = bisect_left(self._living, peer_id)
        between = there - here - 1 if there > here else here - there
        return min(between, len(self._living) - 1 - between) < max(count // 2, 1)

    def rank_from_top(self, peer_id: str) -> int:
        """How many candidates have a higher id."""
        return len(self._candidates) - bisect_right(self._candidates, peer_id)

    def has_changed(self, position: int) -> bool:
        """Whether this node itself has changed after a position of the log."""
        return self._records[self._me].position > position

    def since_position(self, position: int, limit: int) -> tuple[tuple[Fact, ...], int]:
        """The first `limit` facts about others after a position of the log, and the position they
        reach to."""
        me = self._records[self._me]
        facts: list[Fact] = []
        for at in range(bisect_right(self._positions, position), len(self._log)):
            record = self._log[at]
            if record.position != self._positions[at] or record is me:
                continue
            if len(facts) == limit:
                return tuple(facts), position
            facts.append(record.fact)
            position = record.position
        return tuple(facts), self.end

    def is_news(self, fact: Fact) -> bool:
        """Whether a fact says anything but what is known: false for nearly all that are heard."""
        record = self._records.get(fact.peer.peer_id)
        if record is None:
            return fact.status is Status.ALIVE
        known = record.fact
        if fact is known or fact.incarnation < known.incarnation:
            return False
        return (
            fact.incarnation > known.incarnation
            or fact.peer.boot != known.peer.boot
            or _STRENGTH[fact.status] > _STRENGTH[known.status]
        )

    # What changes.

    def merge(self, fact: Fact, now: float) -> bool:
        """Take in a fact; False if it is no news. One who is gone and was never known is none."""
        record = self._records.get(fact.peer.peer_id)
        if record is None:
            if fact.status is not Status.ALIVE:
                return False
            self._insert(fact, now)
            return True
        known = record.fact
        if fact.incarnation < known.incarnation:
            return False
        if fact.incarnation == known.incarnation and not _is_stronger(fact, known):
            return False
        self._replace(record, fact, now)
        return True

    def renew(self, incarnation: int, now: float) -> None:
        """Raise this node's own incarnation, because someone holds it for gone."""
        self.merge(replace(self.own, incarnation=incarnation), now)

    def move(self, me: PeerInfo, now: float) -> None:
        """Have this node live at other addresses."""
        incarnation = self.incarnation + 1
        self.merge(Fact(me, Status.ALIVE, incarnation), now)

    def suspect(self, peer_id: str, now: float) -> None:
        self._records[peer_id].suspect = True
        self._records[peer_id].since = now

    def trust(self, peer_id: str, now: float) -> None:
        self._records[peer_id].suspect = False
        self._records[peer_id].since = now

    def stamp(self, peer_id: str, metadata: Metadata) -> None:
        self._records[peer_id].metadata = metadata

    def forget(self, before: float) -> None:
        """Forget who is gone since before then."""
        gone = [
            peer_id
            for peer_id, record in self._records.items()
            if record.fact.status is not Status.ALIVE and record.since < before
        ]
        for peer_id in gone:
            self._records.pop(peer_id).position = 0

    def _insert(self, fact: Fact, now: float) -> None:
        peer_id = fact.peer.peer_id
        self._records[peer_id] = record = _Record(fact, now)
        self._changed(record)
        self._enlist(fact)

    def _replace(self, record: _Record, fact: Fact, now: float) -> None:
        known = record.fact
        if known.status is Status.ALIVE:
            self._strike(known)
        if fact.status is Status.ALIVE:
            self._enlist(fact)
        if fact.status is not known.status or record.suspect:
            record.since = now
        if fact.peer.boot != known.peer.boot:
            record.metadata = {}
        record.fact = fact
        record.suspect = False
        self._changed(record)

    def _changed(self, record: _Record) -> None:
        self.end += 1
        record.position = self.end
        self._log.append(record)
        self._positions.append(self.end)
        if len(self._log) > 2 * len(self._records) + 16:
            self._log = sorted(self._records.values(), key=lambda each: each.position)
            self._positions = [each.position for each in self._log]

    def _enlist(self, fact: Fact) -> None:
        insort(self._living, fact.peer.peer_id)
        if fact.peer.eligible:
            insort(self._candidates, fact.peer.peer_id)
        self.digest = (self.digest + _hash(fact.peer.peer_id, fact.incarnation)) % 2**64

    def _strike(self, fact: Fact) -> None:
        _toggle(self._living, fact.peer.peer_id, on=False)
        if fact.peer.eligible:
            _toggle(self._candidates, fact.peer.peer_id, on=False)
        self.digest = (self.digest - _hash(fact.peer.peer_id, fact.incarnation)) % 2**64


def _is_stronger(fact: Fact, known: Fact) -> bool:
    return _STRENGTH[fact.status] > _STRENGTH[known.status]


def _toggle(ids: list[str], peer_id: str, on: bool) -> None:
    if on:
        insort(ids, peer_id)
    else:
        del ids[bisect_left(ids, peer_id)]


@lru_cache(maxsize=2**14)
def _hash(peer_id: str, incarnation: int) -> int:
    text = f"{peer_id}/{incarnation}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
