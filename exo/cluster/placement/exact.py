"""The best pipelines over each number of a few nodes: dynamic programming over the subsets of the
nodes, exact.

What is known of a set of nodes, the first and the last of them is a row: the least seconds at
which they are done with everything before each boundary. The first matters because a token's id
goes back to it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from exo.cluster.placement.problem import Problem
from exo.cluster.placement.split import INFINITE, Row, begin, extend, origin

# The work doubles and more with every node.
FEW = 6

Key = tuple[int, int]  # The nodes as bits, and the last of them.


def fastest(
    problem: Problem, nodes: Sequence[int], most: int, limit: float = INFINITE
) -> dict[int, tuple[int, ...]]:
    """By the number of nodes, `most` at most, the order of nodes that takes the least seconds per
    token, where no node's step may take longer than `limit`. Numbers that cannot be are left
    out."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    for first in nodes:
        for order, seconds in _from(problem, nodes, first, most, limit):
            if seconds < best.get(len(order), (INFINITE,))[0]:
                best[len(order)] = (seconds, order)
    return {size: order for size, (_, order) in sorted(best.items())}


def _from(
    problem: Problem, nodes: Sequence[int], first: int, most: int, limit: float
) -> list[tuple[tuple[int, ...], float]]:
    """The best order of each number of nodes that begins with `first`, and its seconds."""
    level: dict[Key, Row] = {(1 << first, first): begin(problem)}
    entries: dict[Key, Row] = {}
    known: dict[Key, Row] = {}
    found: list[tuple[tuple[int, ...], float]] = []
    for _ in range(most):
        rows = {key: _extend(problem, key, entry, limit) for key, entry in level.items()}
        if not rows:
            break
        entries |= level
        known |= rows
        ends = [
            (row[-1] + (problem.token[last][first] if last != first else 0.0), (used, last))
            for (used, last), row in rows.items()
        ]
        seconds, key = min(ends)
        if seconds < INFINITE:
            found.append((_order(problem, known, entries, key, limit), seconds))
        level = _next(problem, nodes, rows)
    return found


def _extend(problem: Problem, key: Key, entry: Row, limit: float) -> Row:
    """When these nodes are done, the last of which may begin at `entry`. They reach no boundary
    beyond what they have room for, and each has a piece at least."""
    used, last = key
    pieces, size = problem.pieces, used.bit_count()
    room = sum(stage.room for node, stage in enumerate(problem.stages) if used >> node & 1)
    before = room - problem.stages[last].room
    reached, span = slice(size - 1, min(before, pieces) + 1), slice(size, min(room, pieces) + 1)
    return extend(problem.stages[last], entry, reached, span, limit)


def _next(problem: Problem, nodes: Sequence[int], rows: Mapping[Key, Row]) -> dict[Key, Row]:
    """When each further node may begin, after every set that it is not in."""
    level: dict[Key, Row] = {}
    for (used, last), row in rows.items():
        if min(row[:-1]) == INFINITE:
            continue
        for node in nodes:
            if used >> node & 1:
                continue
            hop = problem.hop[last][node]
            entry = [seconds + hop for seconds in row]
            key = (used | 1 << node, node)
            level[key] = list(map(min, level[key], entry)) if key in level else entry
    return level


def _order(
    problem: Problem, known: Mapping[Key, Row], entries: Mapping[Key, Row], key: Key, limit: float
) -> tuple[int, ...]:
    """The nodes of the best pipeline that ends so, by going back from its end."""
    order, end = [key[1]], problem.pieces
    while key[0] != 1 << key[1]:
        used, last = key
        end = origin(problem.stages[last], entries[key], end, limit)
        earlier = used & ~(1 << last)
        before = [other for other in known if other[0] == earlier]
        key = min(before, key=lambda other: known[other][end] + problem.hop[other[1]][last])
        order.append(key[1])
    return tuple(reversed(order))


def steadiest(
    problem: Problem, nodes: Sequence[int], most: int
) -> dict[int, tuple[float, tuple[int, ...]]]:
    """By the number of nodes, `most` at most, the least that the slowest node's step can take, and
    nodes that reach it, in no order. Numbers that cannot be are left out."""
    start = [0.0] + [INFINITE] * problem.pieces
    level: dict[int, Row] = {0: start}
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    for size in range(1, most + 1):
        rows: dict[int, Row] = {}
        for chosen in combinations(nodes, size):
            used = sum(1 << node for node in chosen)
            ends = [
                _slowest(problem, node, level[used & ~(1 << node)])
                for node in chosen
                if used & ~(1 << node) in level
            ]
            if ends:
                rows[used] = [min(values) for values in zip(*ends, strict=True)]
                if rows[used][-1] < best.get(size, (INFINITE,))[0]:
                    best[size] = (rows[used][-1], chosen)
        level = rows
    return best


def _slowest(problem: Problem, node: int, entry: Row) -> Row:
    """The slowest step of all nodes before each boundary, where `node` has the last share."""
    row = [INFINITE] * len(entry)
    for mode in problem.stages[node].modes:
        busy = mode.busy
        for end in range(1, len(row)):
            low, high = mode.lowest[end], mode.beyond[end]
            if low < high:
                total = busy[end]
                steps = [total - before for before in busy[low:high]]
                row[end] = min(row[end], *map(max, entry[low:high], steps))
    return row
