"""A good pipeline over so many of many nodes, within a bound of work: which nodes by exchanging
single ones, judged by an estimate; their order by the nearest next and exchanges of two hops; the
cuts by `split`, exact for that order.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice

from exo.cluster.placement.bound import filled
from exo.cluster.placement.problem import Problem
from exo.cluster.placement.split import INFINITE

# How often the nodes are looked at for an exchange, how many inside and outside at a time.
_ROUNDS = 8
_INSIDE = 8
_OUTSIDE = 16
# Orders longer than this keep what the nearest next gives.
_EXCHANGED = 24

Kind = tuple[float, int]  # Seconds for a piece, and room for pieces.


class Estimates:
    """What the nodes of a problem give on average: seconds for a piece, and room for pieces."""

    def __init__(self, problem: Problem, *, throughput: bool) -> None:
        pieces = problem.pieces
        self._problem = problem
        self._throughput = throughput
        self.room = [stage.room for stage in problem.stages]
        self.pace = [
            (stage.modes[0].busy if throughput else stage.modes[0].seconds)[-1] / pieces
            for stage in problem.stages
        ]
        self._kinds = list(zip(self.pace, self.room, strict=True))
        self._nearest = [min(row) for row in problem.hop]
        self._by_pace = sorted(range(len(self.pace)), key=lambda i: (self.pace[i], i))
        self._hops_to = list(zip(*problem.hop, strict=True))

    def choose(self, size: int, near: Sequence[int]) -> tuple[int, ...]:
        """So many nodes that together promise the least seconds, among them perhaps those of
        `near`, the choice for another number."""
        everyone = range(len(self.room))
        seeds = [
            sorted(everyone, key=lambda i: (self.pace[i] + self._nearest[i] / self.room[i], i)),
            sorted(everyone, key=lambda i: (-self.room[i], self.pace[i], i)),
            [*near, *(i for i in everyone if i not in near)],
        ]
        tried = [tuple(sorted(seed[:size])) for seed in seeds]
        best, chosen = min((self._seconds(each, self._hops(each)), each) for each in tried)
        for _ in range(_ROUNDS):
            seconds, goer, comer = min(self._exchanges(chosen), default=(INFINITE, 0, 0))
            if seconds >= best:
                break
            best, chosen = seconds, tuple(sorted({*chosen, comer} - {goer}))
        return chosen

    def room_of(self, chosen: Sequence[int]) -> int:
        """How many pieces these nodes can hold at most."""
        return sum(map(self.room.__getitem__, chosen))

    def _seconds(self, chosen: Sequence[int], hops: float) -> float:
        """An estimate for a pipeline over these nodes, whose hops take so many seconds; of too
        little room, more than any that fit."""
        pieces, room = self._problem.pieces, self.room_of(chosen)
        if room < pieces:
            return 1e9 * (pieces - room)
        kinds = [self._kinds[i] for i in chosen]
        if self._throughput:
            return self._level(kinds) + hops * 1e-3
        return filled(pieces - len(kinds), sorted(kinds)) + hops

    def _level(self, kinds: Collection[Kind]) -> float:
        """All are busy for equally long, but for those that are full before."""
        left, rate, level = self._problem.pieces, sum(1 / pace for pace, _ in kinds), 0.0
        for full, pace, room in sorted((room * pace, pace, room) for pace, room in kinds):
            level = left / rate
            if level <= full:
                break
            left -= room
            rate -= 1 / pace
        return level

    def _hops(self, chosen: Sequence[int]) -> float:
        """Seconds of one hop from each of these nodes: to the nearest of them, or if they are
        many, of all nodes."""
        if len(chosen) > _INSIDE:
            return sum(map(self._nearest.__getitem__, chosen))
        return sum(self._nearest_of(chosen))

    def _nearest_of(self, chosen: Sequence[int]) -> list[float]:
        return [min(map(self._problem.hop[i].__getitem__, chosen)) for i in chosen]

    def _exchanges(self, chosen: Sequence[int]) -> Iterator[tuple[float, int, int]]:
        """The estimate with one node less and one more, and which these are."""
        hop, to, few = self._problem.hop, self._hops_to, len(chosen) <= _INSIDE
        goers, comers = self._worth_exchanging(chosen)
        for goer in goers:
            staying = [i for i in chosen if i != goer]
            hops = self._nearest_of(staying) if few else []
            for comer in comers:
                now = [*staying, comer]
                if few:
                    closer = map(min, hops, map(to[comer].__getitem__, staying))
                    seconds = sum(closer) + min(map(hop[comer].__getitem__, staying))
                else:
                    seconds = self._hops(now)
                yield self._seconds(now, seconds), goer, comer

    def _worth_exchanging(self, chosen: Sequence[int]) -> tuple[Iterable[int], Iterable[int]]:
        """Nodes inside that are slow or far, and nodes outside that are fast or near."""
        inside = set(chosen)
        outside = [i for i in range(len(self.room)) if i not in inside]
        comers = list(islice((i for i in self._by_pace if i not in inside), _OUTSIDE // 2))
        comers += nsmallest(_OUTSIDE // 2, outside, key=lambda i: self._distance(i, chosen))
        goers = nsmallest(_INSIDE, chosen, key=lambda i: (-self.pace[i], i))
        goers += nsmallest(_INSIDE // 2, chosen, key=lambda i: -self._distance(i, chosen))
        return dict.fromkeys(goers), dict.fromkeys(comers)

    def _distance(self, node: int, others: Sequence[int]) -> float:
        return sum(map(self._problem.hop[node].__getitem__, others))


def orders(problem: Problem, chosen: Sequence[int], pace: Sequence[float]) -> list[tuple[int, ...]]:
    """A short way through these nodes and back, begun at the few places that may matter: with the
    fastest or the roomiest at the end, where the head is, or at the beginning."""
    ring = _short_ring(problem, chosen)
    marked = {min(ring, key=lambda i: (pace[i], i))}
    if len(ring) <= _INSIDE:
        marked.add(min(ring, key=lambda i: (-problem.nodes[i].free_memory, i)))
    found: list[tuple[int, ...]] = []
    for node in sorted(marked):
        at = ring.index(node)
        found += [tuple(ring[at:] + ring[:at]), tuple(ring[at + 1 :] + ring[: at + 1])]
    return list(dict.fromkeys(found))


def _short_ring(problem: Problem, chosen: Sequence[int]) -> list[int]:
    best: tuple[float, list[int]] = (INFINITE, list(chosen))
    for first in chosen[:_INSIDE]:
        ring, left = [first], [i for i in chosen if i != first]
        while left:
            ring.append(min(left, key=problem.hop[ring[-1]].__getitem__))
            left.remove(ring[-1])
        best = min(best, (problem.path(ring), ring))
    length, ring = best
    return ring if len(ring) > _EXCHANGED else _untangled(problem, ring, length)


def _untangled(problem: Problem, ring: list[int], length: float) -> list[int]:
    """Turn pieces of the way round for as long as that makes it shorter."""
    for _ in range(_ROUNDS):
        before = length
        for i in range(1, len(ring) - 1):
            for j in range(i + 1, len(ring)):
                turned = ring[:i] + ring[i : j + 1][::-1] + ring[j + 1 :]
                if (shorter := problem.path(turned)) < length * (1 - 1e-9):
                    ring, length = turned, shorter
        if length == before:
            break
    return ring
