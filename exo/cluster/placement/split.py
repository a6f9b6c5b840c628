"""The best cuts for given orders of nodes: dynamic programming over the boundaries, exact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add, sub

from exo.cluster.placement.bound import Bound
from exo.cluster.placement.problem import Problem, Stage

INFINITE = float("inf")
# How close to the best the slowest node's step is brought.
_CLOSE = 0.02
_NONE = (INFINITE,)
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
    `limit`; None if there is none. Together the nodes have room, and there is a piece for each."""
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


def best_of(problem: Problem, orders: Iterable[Sequence[int]]) -> Split | None:
    """The best split in any of these orders; those that cannot have it are not looked at."""
    best: Split | None = None
    bounds = ((Bound(problem, order).seconds(), order) for order in orders)
    for seconds, order in sorted(bounds):
        if best and seconds >= best.seconds:
            break
        split = best_split(problem, order)
        if split and (best is None or split.seconds < best.seconds):
            best = split
    return best


def balanced(problem: Problem, fastest: Split, slack: float) -> Split:
    """Of the splits in the order of the fastest that take at most `slack` (a fraction) longer, the
    one whose slowest node is done first: stages that are equally busy serve several streams at
    once."""
    best, most = fastest, fastest.seconds * (1 + slack)
    low = Bound(problem, fastest.order).step(most, fastest.slowest)
    limit = low * (1 + _CLOSE)
    while best.slowest - low > _CLOSE * best.slowest:
        found = best_split(problem, fastest.order, limit)
        if found is None or found.seconds > most:
            low = limit
        else:
            best = found
        limit = (low + best.slowest) / 2
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
        waits = list(map(sub, entry, mode.seconds))
        begins, beyond = mode.begins(span, limit), mode.beyond[span]
        if begins[-1] <= first:
            # All that are reached are within every share.
            up_to = [INFINITE, *accumulate(waits, min)]
            least = [up_to[end] for end in beyond]
        else:
            least = [
                min(waits[begin if begin > first else first : end] or _NONE)
                for begin, end in zip(begins, beyond, strict=True)
            ]
        done[span] = map(min, done[span], map(add, least, mode.seconds[span]))
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
