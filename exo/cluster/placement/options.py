"""The placement that is chosen, and the options that are shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exo.cluster.placement.choose import candidates, manual, no_tensors
from exo.cluster.placement.pipeline import pipelines, planned
from exo.cluster.placement.plan import Ask, Planned, Share, plan
from exo.cluster.placement.wanted import NodeResources, Objective, Wanted
from exo.cluster.state import InstanceMeta, LinkInfo, Placement, Sharding
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard

# More nodes must be faster by this part to be worth it.
_WORTH = 0.05
# Of many nodes that are too small, so many are named.
_NAMED = 3
_HINT = "Free some memory, or choose a smaller model or context."

Found = Mapping[int, Planned | PlacementImpossible]


@dataclass(frozen=True)
class Option:
    """One way to place a model over so many nodes: the best of its kind, or why there is none."""

    sharding: Sharding
    instance_meta: InstanceMeta
    nodes: int
    placement: Placement | None
    reason: str | None


def place(
    card: ModelCard,
    wanted: Wanted,
    nodes: Sequence[NodeResources],
    links: Iterable[LinkInfo] = (),
) -> Placement:
    """The best placement on these nodes.

    Raises:
        PlacementImpossible: there is none; the message says why, with the numbers.
        ModelNotFound: no node has its weights.
    """
    able = candidates(card, wanted, nodes)
    if wanted.sharding is Sharding.TENSOR:
        raise no_tensors(card, len(able))
    ask = Ask(card, wanted, links)
    if wanted.layers:
        return plan(ask, manual(card, wanted, nodes)).placement
    found = _found(ask, able)
    fitting = planned(found)
    if not fitting:
        raise PlacementImpossible(_why_not(found), hint=_HINT)
    return _best(fitting, wanted.objective).placement


def options(
    card: ModelCard,
    wanted: Wanted,
    nodes: Sequence[NodeResources],
    links: Iterable[LinkInfo] = (),
) -> list[Option]:
    """The distinct ways to place a model: over each number of nodes that is worth a look the best
    pipeline, and the split by tensors.

    Raises:
        ModelNotFound: no node has its weights.
    """
    try:
        able = candidates(card, wanted, nodes)
        found = _found(Ask(card, wanted, links), able)
    except PlacementImpossible as error:
        able, found = nodes, {wanted.min_nodes: error}
    shown = [_option(size, each) for size, each in found.items()]
    reason = no_tensors(card, len(able)).message
    return [*shown, Option(Sharding.TENSOR, InstanceMeta.MLX, 2, None, reason)]


def _found(ask: Ask, nodes: Sequence[NodeResources]) -> Found:
    """By the number of nodes, the best placement or why there is none."""
    wanted = ask.wanted
    found: dict[int, Planned | PlacementImpossible] = {}
    if wanted.min_nodes == 1 and wanted.instance_meta is not InstanceMeta.TCP:
        found[1] = _on_one(ask, nodes)
    most = len(nodes) if wanted.max_nodes is None else min(len(nodes), wanted.max_nodes)
    if most > 1 and wanted.instance_meta is not InstanceMeta.LOCAL:
        found |= pipelines(ask, nodes, max(2, wanted.min_nodes), most)
    return found


def _on_one(ask: Ask, nodes: Sequence[NodeResources]) -> Planned | PlacementImpossible:
    fitting: list[Planned] = []
    reasons: list[str] = []
    for node in nodes:
        try:
            fitting.append(plan(ask, [Share(node, 0, ask.card.n_layers)]))
        except PlacementImpossible as error:
            reasons.append(error.message)
    if not fitting:
        more = len(reasons) - _NAMED
        rest = [f"So it is with {more} more."] if more > 0 else []
        return PlacementImpossible(" ".join(reasons[:_NAMED] + rest))
    throughput = ask.wanted.objective is Objective.THROUGHPUT
    return min(
        fitting,
        key=lambda p: (
            not p.roomy,
            p.slowest if throughput else p.seconds,
            -p.placement.kv_tokens,
            p.placement.shards[0].node_id,
        ),
    )


def _best(fitting: Mapping[int, Planned], objective: Objective) -> Planned:
    """The fewest nodes that serve, where more do not help; enough context comes first."""
    roomy = {size: each for size, each in fitting.items() if each.roomy}
    among = roomy or fitting

    def took(each: Planned) -> float:
        return each.slowest if objective is Objective.THROUGHPUT else each.seconds

    enough = min(map(took, among.values())) * (1 + _WORTH)
    return next(each for _, each in sorted(among.items()) if took(each) <= enough)


def _why_not(found: Found) -> str:
    """On one node, and on as many as there are."""
    reasons = [error.message for error in found.values() if isinstance(error, PlacementImpossible)]
    return " ".join(dict.fromkeys([*reasons[:1], *reasons[-1:]]))


def _option(size: int, found: Planned | PlacementImpossible) -> Option:
    meta = InstanceMeta.LOCAL if size == 1 else InstanceMeta.TCP
    if isinstance(found, PlacementImpossible):
        return Option(Sharding.PIPELINE, meta, size, None, found.message)
    return Option(Sharding.PIPELINE, meta, size, found.placement, None)
