"""A good pipeline over so many of many nodes, within a bound of work: which nodes by exchanging
single ones, judged by an estimate; their order by the nearest next and exchanges of two hops; the
cuts by `split`, exact for that order.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest

from exo.cluster.placement.problem import Problem
from exo.cluster.placement.split import INFINITE

# How often the nodes are looked at for an exchange, how many inside and outside at a time.
_ROUNDS = 8
_INSIDE = 8
_OUTSIDE = 16
# Orders longer than this keep what the nearest next gives.
_EXCHANGED = 24

Judge = Callable[[Sequence[int]], float]


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
        self.nearest = [min(row) for row in problem.hop]

    def choose(self, size: int, near: Sequence[int]) -> tuple[int, ...]:
        """So many nodes that together promise the least seconds, among them perhaps those of
        `near`, the choice for another number."""
        everyone = range(len(self.room))
        seeds = [
            sorted(everyone, key=lambda i: (self.pace[i] + self.nearest[i] / self.room[i], i)),
            sorted(everyone, key=lambda i: (-self.room[i], self.pace[i], i)),
            [*near, *(i for i in everyone if i not in near)],
        ]
        chosen = min((tuple(sorted(seed[:size])) for seed in seeds), key=self.judge)
        best = self.judge(chosen)
        for _ in range(_ROUNDS):
            better = min(self._exchanges(chosen), key=self.judge, default=chosen)
            if (value := self.judge(better)) >= best:
                break
            chosen, best = better, value
        return chosen

    def room_of(self, chosen: Sequence[int]) -> int:
        """How many pieces these nodes can hold at most."""
        return sum(map(self.room.__getitem__, chosen))

    def judge(self, chosen: Sequence[int]) -> float:
        """An estimate of the seconds of a pipeline over these nodes; of too little room, more than
        any that fit."""
        pieces, room = self._problem.pieces, self.room_of(chosen)
        if room < pieces:
            return 1e9 * (pieces - room)
        work = self._level(chosen) if self._throughput else self._fill(chosen)
        if len(chosen) > _INSIDE:
            hops = sum(map(self.nearest.__getitem__, chosen))
        else:
            rows = (self._problem.hop[i] for i in chosen)
            hops = sum([min(map(row.__getitem__, chosen)) for row in rows])
        return work + (hops * 1e-3 if self._throughput else hops)

    def _fill(self, chosen: Sequence[int]) -> float:
        """The fastest take what they can hold, the others one piece each."""
        left, seconds = self._problem.pieces - len(chosen), 0.0
        for i in sorted(chosen, key=self.pace.__getitem__):
            taken = min(self.room[i] - 1, left)
            left -= taken
            seconds += (taken + 1) * self.pace[i]
        return seconds

    def _level(self, chosen: Sequence[int]) -> float:
        """All are busy for equally long, but for those that are full before."""
        left, rate, level = self._problem.pieces, sum(1 / self.pace[i] for i in chosen), 0.0
        for i in sorted(chosen, key=lambda i: self.room[i] * self.pace[i]):
            level = left / rate
            if level <= self.room[i] * self.pace[i]:
                break
            left -= self.room[i]
            rate -= 1 / self.pace[i]
        return level

    def _exchanges(self, chosen: Sequence[int]) -> Iterator[tuple[int, ...]]:
        inside = set(chosen)
        outside = [i for i in range(len(self.room)) if i not in inside]
        comers = set(nsmallest(_OUTSIDE // 2, outside, key=lambda i: (self.pace[i], i)))
        comers |= set(nsmallest(_OUTSIDE // 2, outside, key=lambda i: self._distance(i, chosen)))
        goers = nsmallest(_INSIDE, chosen, key=lambda i: (-self.pace[i], i))
        goers += nsmallest(_INSIDE // 2, chosen, key=lambda i: -self._distance(i, chosen))
        for goer in dict.fromkeys(goers):
            for comer in sorted(comers):
                yield tuple(sorted((inside - {goer}) | {comer}))

    def _distance(self, node: int, others: Sequence[int]) -> float:
        return sum(self._problem.hop[node][other] for other in others)


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
        ring, left = [first], set(chosen) - {first}
        while left:
            row = problem.hop[ring[-1]]
            ring.append(min(left, key=lambda i: (row[i], i)))
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
