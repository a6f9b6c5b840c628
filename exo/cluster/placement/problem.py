"""What a search for the best pipeline reads: tables over the boundaries between layers.

The layers between two boundaries where a model may be cut stay together. Shares are named by the
indices of their boundaries, so `[a, b)` is everything between boundary a and boundary b.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import inf
from operator import sub

from exo.cluster.placement.cost import Links, Steps
from exo.cluster.placement.memory import Sizes, casts
from exo.cluster.placement.wanted import NodeResources


@dataclass(frozen=True)
class Mode:
    """One way in which a node computes, with or without a cast to float32.

    `seconds` and `busy` are sums over everything before a boundary, of one token and of a step
    with all rows. A share that ends at boundary b may begin at those in `lowest[b]..beyond[b]-1`.
    """

    seconds: Sequence[float]
    busy: Sequence[float]
    lowest: Sequence[int]
    beyond: Sequence[int]

    def begins(self, ends: slice, limit: float) -> Sequence[int]:
        """For each of these boundaries the first at which a share that ends there may begin, whose
        step takes `limit` at most."""
        lowest = self.lowest[ends]
        if limit == inf:
            return lowest
        return [
            max(low, bisect_left(self.busy, busy - limit))
            for low, busy in zip(lowest, self.busy[ends], strict=True)
        ]


@dataclass(frozen=True)
class Stage:
    """What a node could do in a pipeline; `room` is how many pieces it can hold at most."""

    modes: tuple[Mode, ...]
    room: int

    @cached_property
    def cheapest(self) -> tuple[float, float]:
        """What any piece takes at least, in seconds: of one token, and of a step with all rows."""
        return (
            min(min(map(sub, m.seconds[1:], m.seconds)) for m in self.modes),
            min(min(map(sub, m.busy[1:], m.busy)) for m in self.modes),
        )

    @property
    def last(self) -> tuple[float, float]:
        """The same of the last piece."""
        return (
            min(m.seconds[-1] - m.seconds[-2] for m in self.modes),
            min(m.busy[-1] - m.busy[-2] for m in self.modes),
        )

    def spent(self, start: int, end: int) -> tuple[float, float]:
        """Seconds on a share that fits: of one token, and of a step with all rows."""
        mode = next(m for m in self.modes if m.lowest[end] <= start < m.beyond[end])
        return mode.seconds[end] - mode.seconds[start], mode.busy[end] - mode.busy[start]


@dataclass(frozen=True)
class Problem:
    """`hop[i][j]` and `token[i][j]` are the seconds from node i to node j, of activations and of
    a token's id; there is no hop from a node to itself. `pieces` are what lies between two
    boundaries."""

    boundaries: tuple[int, ...]
    nodes: tuple[NodeResources, ...]
    stages: tuple[Stage, ...]
    hop: tuple[tuple[float, ...], ...]
    token: tuple[tuple[float, ...], ...]

    @property
    def pieces(self) -> int:
        return len(self.boundaries) - 1

    @property
    def least_nodes(self) -> int:
        """How many nodes it takes at least to hold all pieces; one too many if all do not."""
        left = self.pieces
        for size, room in enumerate(sorted((s.room for s in self.stages), reverse=True), 1):
            left -= room
            if left <= 0:
                return size
        return len(self.stages) + 1

    def path(self, order: Sequence[int]) -> float:
        """Seconds of all hops of a token that goes through these nodes and back."""
        hops = sum(self.hop[a][b] for a, b in pairwise(order))
        return hops + (self.token[order[-1]][order[0]] if len(order) > 1 else 0.0)


class Tables:
    """What does not depend on the context: the speeds of the nodes and of their links.

    Of nodes that are alike, the one with the smaller id comes first, so that the same nodes always
    give the same placement.
    """

    def __init__(
        self, sizes: Sizes, steps: Steps, nodes: Iterable[NodeResources], links: Links, rows: int
    ) -> None:
        self._sizes = sizes
        self._boundaries = sizes.card.boundaries
        self._nodes = sorted(nodes, key=lambda node: (-node.free_memory, node.node_id))
        self._ways = [
            [
                (
                    cast,
                    _sums(steps.seconds(node, cast=cast), self._boundaries),
                    _sums(steps.seconds(node, cast=cast, rows=rows), self._boundaries),
                )
                for cast in casts(sizes.card, node)
            ]
            for node in self._nodes
        ]
        self._hop, self._token = links.tables(self._nodes)

    def problem(self, tokens: int) -> Problem:
        """Where each share has room for so many tokens of keys and values. Nodes that can hold
        nothing are left out."""
        stages = [self._stage(index, tokens) for index in range(len(self._nodes))]
        kept = [index for index, stage in enumerate(stages) if stage.room]

        def table(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple([values[i][j] for j in kept]) for i in kept)

        return Problem(
            boundaries=self._boundaries,
            nodes=tuple(self._nodes[index] for index in kept),
            stages=tuple(stages[index] for index in kept),
            hop=table(self._hop),
            token=table(self._token),
        )

    def _stage(self, index: int, tokens: int) -> Stage:
        boundaries, free = self._boundaries, self._nodes[index].free_memory
        beyond: Sequence[int] = range(len(boundaries))
        modes: list[Mode] = []
        for cast, seconds, busy in self._ways[index]:
            lowest = self._sizes.begins(boundaries, tokens, free, cast=cast)
            modes.append(Mode(seconds, busy, lowest, beyond))
            beyond = lowest
        room = max(map(sub, range(len(boundaries)), beyond))
        return Stage(tuple(modes), room)


def _sums(step: tuple[list[float], float], boundaries: Sequence[int]) -> list[float]:
    layers, head = step
    before = [0.0, *accumulate(layers)]
    sums = [before[boundary] for boundary in boundaries]
    sums[-1] += head
    return sums
