"""What every split over some nodes takes at least, found without looking at where the shares begin:
as if any piece could go to any node, each for what the node's cheapest piece takes."""

from collections.abc import Iterable, Sequence
from math import inf

from exo.cluster.placement.problem import Problem

# A bound is never put above what is exactly as good, by rounding.
_ROUNDING = 1e-9
# How closely the least step is bounded.
_HALVINGS = 12


def filled(spare: int, nodes: Iterable[tuple[float, int]]) -> float:
    """Seconds of a token where each of the nodes, fastest first, takes so long for a piece and has
    so many at most. Each has one; they take what they can of the `spare` others. Infinite if that
    is too little."""
    left, seconds = spare, 0.0
    for each, most in nodes:
        if most < 1:
            return inf
        taken = min(most - 1, left)
        left -= taken
        seconds += (taken + 1) * each
    return inf if left else seconds


class Bound:
    """For the splits over these nodes in this order. The last of them has the last piece, which
    has the head."""

    def __init__(self, problem: Problem, order: Sequence[int]) -> None:
        stages = [problem.stages[node] for node in order]
        seconds, busy = stages[-1].cheapest
        last_seconds, last_busy = stages[-1].last
        self._spare = problem.pieces - len(order)
        self._least = problem.path(order) + last_seconds - seconds
        heads = [0.0] * (len(order) - 1) + [last_busy - busy]
        self._nodes = sorted(
            (*stage.cheapest, stage.room, head) for stage, head in zip(stages, heads, strict=True)
        )

    def seconds(self, limit: float = inf) -> float:
        """Seconds of one token, where no node's step takes longer than `limit`; infinite
        if they cannot hold all."""
        able = [
            (each, min(room, int((limit - head) / busy * (1 + _ROUNDING))))
            if limit != inf and busy
            else (each, room)
            for each, busy, room, head in self._nodes
        ]
        return (self._least + filled(self._spare, able)) * (1 - _ROUNDING)

    def step(self, seconds: float, enough: float) -> float:
        """What the slowest node's step takes, where a token takes `seconds` at most; `enough` is a
        step in which it can."""
        low, high = 0.0, enough
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            least = self.seconds(middle)
            if least <= seconds and least != inf:
                high = middle
            else:
                low = middle
        return low
