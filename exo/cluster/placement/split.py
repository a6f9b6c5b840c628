"""The best cuts for one order of nodes: dynamic programming over the boundaries, exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub

from exo.cluster.placement.problem import Problem, Stage

INFINITE = float("inf")
# How close to the best the slowest node's step is brought.
_CLOSE = 0.02
Row = list[float]


@dataclass(frozen=True)
class Split:
    """Node order[i] has the share from cuts[i] to cuts[i + 1]; a token takes `seconds`, and a step
    with all rows on the slowest node `slowest`."""

    order: tuple[int, ...]
    cuts: tuple[int, ...]
    seconds: float
    slowest: float


def best_split(problem: Problem, order: Sequence[int], limit: float = INFINITE) -> Split | None:
    """The split with the least seconds per token in which no node's step takes longer than
    `limit`; None if the shares do not fit."""
    stages = [problem.stages[node] for node in order]
    row = entry = begin(problem)
    entries: list[Row] = []
    reached = slice(0, 1)
    for place, (stage, span) in enumerate(zip(stages, _spans(problem, stages), strict=True)):
        entries.append(entry)
        row = extend(stage, entry, reached, span, limit)
        if min(row[span]) == INFINITE:
            return None
        reached = span
        if place + 1 < len(stages):
            hop = problem.hop[order[place]][order[place + 1]]
            entry = [seconds + hop for seconds in row]
    cuts = [problem.pieces]
    for stage, row in zip(reversed(stages), reversed(entries), strict=True):
        cuts.append(origin(stage, row, cuts[-1], limit))
    cuts.reverse()
    return _made(problem, order, cuts, problem.path(order))


def balanced(problem: Problem, order: Sequence[int], slack: float) -> Split | None:
    """Of the splits that take at most `slack` (a fraction) longer than the fastest, the one whose
    slowest node is done first: stages that are equally busy serve several streams at once."""
    best = best_split(problem, order)
    if best is None or len(order) == 1:
        return best
    most = best.seconds * (1 + slack)
    # As if the layers could be shared out in any part.
    low = 1 / sum(1 / min(m.busy[-1] for m in problem.stages[node].modes) for node in order)
    while best.slowest - low > _CLOSE * best.slowest:
        limit = (low + best.slowest) / 2
        found = best_split(problem, order, limit)
        if found is None or found.seconds > most:
            low = limit
        else:
            best = found
    return best


def _spans(problem: Problem, stages: Sequence[Stage]) -> list[slice]:
    """The boundaries at which each node's share may end: those that it and the nodes before it can
    reach, with a piece for each, and that leave what the nodes after it can hold."""
    pieces, before, after = problem.pieces, 0, sum(stage.room for stage in stages)
    spans: list[slice] = []
    for place, stage in enumerate(stages, 1):
        before += stage.room
        after -= stage.room
        last = min(before, pieces - len(stages) + place)
        spans.append(slice(max(place, pieces - after), last + 1))
    return spans


def begin(problem: Problem) -> Row:
    """Seconds until each boundary before any node: none at the first, the others not reached."""
    return [0.0] + [INFINITE] * problem.pieces


def extend(stage: Stage, entry: Row, reached: slice, span: slice, limit: float = INFINITE) -> Row:
    """From the least seconds at which a node may begin at each boundary to the least at which it
    is done with everything before each boundary of `span`, in a step of `limit` at most. It may
    begin at boundaries of `reached` only."""
    first = reached.start
    done = [INFINITE] * len(entry)
    for mode in stage.modes:
        waits = list(map(sub, entry[: reached.stop], mode.seconds))
        best = [
            min(waits[low if low > first else first : high], default=INFINITE)
            for low, high in zip(mode.begins(span, limit), mode.beyond[span], strict=True)
        ]
        done[span] = map(min, done[span], map(add, best, mode.seconds[span]))
    return done


def origin(stage: Stage, entry: Row, end: int, limit: float = INFINITE) -> int:
    """Where the share begins that is done soonest with everything before the boundary `end`."""
    found, least = INFINITE, end
    for mode in stage.modes:
        (lowest,) = mode.begins(slice(end, end + 1), limit)
        for start in range(lowest, mode.beyond[end]):
            seconds = entry[start] - mode.seconds[start] + mode.seconds[end]
            if seconds < found:
                found, least = seconds, start
    return least


def _made(problem: Problem, order: Sequence[int], cuts: Sequence[int], path: float) -> Split:
    shares = list(zip(order, cuts, cuts[1:], strict=False))
    spent = [problem.stages[node].spent(start, end) for node, start, end in shares]
    seconds = path + sum(one for one, _ in spent)
    return Split(tuple(order), tuple(cuts), seconds, max(busy for _, busy in spent))
