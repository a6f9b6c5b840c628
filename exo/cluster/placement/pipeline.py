"""The best pipeline over each number of nodes."""

from collections.abc import Iterable, Mapping, Sequence

from exo.cluster.placement.exact import FEW, fastest, steadiest
from exo.cluster.placement.large import Estimates, orders
from exo.cluster.placement.memory import Cast
from exo.cluster.placement.plan import Ask, Planned, Share, gib, plan
from exo.cluster.placement.problem import Problem, Tables
from exo.cluster.placement.split import INFINITE, Split, balanced, best_of, best_split
from exo.cluster.placement.wanted import NodeResources, Objective
from exo.errors import PlacementImpossible

# The part of a token's time that is given for stages that are equally busy.
_BALANCE = 0.10
# How many numbers of nodes are looked at one by one.
_CLOSELY = 7


def pipelines(
    ask: Ask, nodes: Sequence[NodeResources], least: int, most: int
) -> dict[int, Planned | PlacementImpossible]:
    """By the number of nodes, from `least` to `most`: the best pipeline with the longest usual
    context that there is room for, or why there is none. Of many numbers, some are left out."""
    found: dict[int, Planned | PlacementImpossible] = {}
    open_: list[int] | None = None
    problem = None
    tables = Tables(ask.sizes, ask.steps, nodes, ask.links, ask.rows)
    for context in ask.contexts:
        problem = tables.problem(context)
        if open_ is None:
            # What is worth a look does not depend on the context.
            most = min(most, problem.pieces)
            open_ = sizes(problem.least_nodes, least, most, ask.wanted.objective)
        splits = _search(problem, open_, ask.wanted.objective)
        for size, split in splits.items():
            found[size] = plan(ask, _shares(problem, split), context)
        open_ = [size for size in open_ if size not in found]
        if not open_:
            break
    for size in open_ or ():
        found[size] = _no_room(ask, nodes, problem, size)
    return dict(sorted(found.items()))


def sizes(needed: int, least: int, most: int, objective: Objective) -> list[int]:
    """The numbers of nodes to look at, where so many are needed for their memory: from one too
    few on, which says why, some one by one, and all; for throughput also what lies between."""
    if least > most:
        return []
    start = min(max(least, needed - 1), most)
    closely = list(range(start, min(start + _CLOSELY, most + 1)))
    between = [2**n for n in range(20) if closely[-1] < 2**n < most]
    return [
        *closely,
        *(between if objective is Objective.THROUGHPUT else []),
        *([most] if most > closely[-1] else []),
    ]


def _search(problem: Problem, wanted: Iterable[int], objective: Objective) -> dict[int, Split]:
    """The best pipelines over these numbers of nodes, as far as there are any."""
    throughput = objective is Objective.THROUGHPUT
    possible = [n for n in wanted if problem.least_nodes <= n <= len(problem.nodes)]
    if not possible:
        return {}
    if len(problem.nodes) > FEW:
        found = _many(problem, possible, throughput=throughput)
    elif throughput:
        found = _few_steady(problem, possible)
    else:
        found = _few_fast(problem, possible)
    return {size: split for size, split in found.items() if split is not None}


def _few_fast(problem: Problem, wanted: Sequence[int]) -> dict[int, Split | None]:
    everyone = range(len(problem.nodes))
    found: dict[int, Split | None] = {}
    for size, order in fastest(problem, everyone, max(wanted)).items():
        if size in wanted:
            best = best_split(problem, order)
            found[size] = best and balanced(problem, best, _BALANCE)
    return found


def _few_steady(problem: Problem, wanted: Sequence[int]) -> dict[int, Split | None]:
    found: dict[int, Split | None] = {}
    everyone = range(len(problem.nodes))
    for size, (slowest, chosen) in steadiest(problem, everyone, max(wanted)).items():
        if size in wanted:
            limit = slowest * (1 + 1e-9)
            order = fastest(problem, chosen, size, limit).get(size)
            found[size] = best_split(problem, order, limit) if order else None
    return found


def _many(problem: Problem, wanted: Sequence[int], *, throughput: bool) -> dict[int, Split | None]:
    estimates = Estimates(problem, throughput=throughput)
    slack = INFINITE if throughput else _BALANCE
    found: dict[int, Split | None] = {}
    near: tuple[int, ...] = ()
    for size in wanted:
        chosen = estimates.choose(size, near)
        if estimates.room_of(chosen) < problem.pieces:
            continue
        near = chosen
        if best := best_of(problem, orders(problem, chosen, estimates.pace)):
            found[size] = balanced(problem, best, slack)
    return found


def _shares(problem: Problem, split: Split) -> list[Share]:
    cuts = [problem.boundaries[cut] for cut in split.cuts]
    nodes = (problem.nodes[index] for index in split.order)
    return [Share(*each) for each in zip(nodes, cuts, cuts[1:], strict=False)]


def _no_room(
    ask: Ask, nodes: Sequence[NodeResources], problem: Problem | None, size: int
) -> PlacementImpossible:
    """Why so many nodes do not hold the model, as far as numbers say it."""
    need = ask.sizes.need(0, ask.card.n_layers, cast=Cast.NOTHING)
    total = (
        need.bytes(ask.least_context) + (size - 1) * ask.sizes.need(0, 1, cast=Cast.NOTHING).working
    )
    largest = sorted((node.free_memory for node in nodes), reverse=True)[:size]
    rooms = sorted((s.room for s in problem.stages), reverse=True) if problem else []
    held, pieces = sum(rooms[:size]), len(ask.card.boundaries) - 1
    noun = "layers" if pieces == ask.card.n_layers else "pieces that its layers can be cut into"
    holds = f"which holds {held} of its {pieces} {noun}"
    if held >= pieces:
        holds = "but not in such parts as its layers can be cut into"
    elif len(rooms) < size:
        holds += f" on {len(rooms)} of them"
    return PlacementImpossible(
        f"{ask.card.model_id} needs {gib(total)} or more over {size} nodes; those with the most "
        f"memory have {gib(sum(largest))} free together, {holds}."
    )


def planned(found: Mapping[int, Planned | PlacementImpossible]) -> dict[int, Planned]:
    return {size: each for size, each in found.items() if isinstance(each, Planned)}
