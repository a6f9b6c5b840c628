"""The placement that is chosen, and the options that are shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exo.cluster.placement.choose import candidates, check_sharding, check_tensors, manual
from exo.cluster.placement.image import check_passes, guided, image_options, place_image
from exo.cluster.placement.pipeline import pipelines, planned
from exo.cluster.placement.plan import Ask, Planned, Share, plan
from exo.cluster.placement.tensor import tensors
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
    if card.image is not None:
        return place_image(card, wanted, nodes)
    check_sharding(card, wanted)
    able = candidates(card, wanted, nodes)
    ask = Ask(card, wanted, links)
    if wanted.layers:
        return plan(ask, manual(card, wanted, nodes)).placement
    found = _found(ask, able)
    fitting = planned(found)
    if not fitting:
        raise _impossible(found)
    return _best(fitting, wanted.objective).placement


def options(
    card: ModelCard,
    wanted: Wanted,
    nodes: Sequence[NodeResources],
    links: Iterable[LinkInfo] = (),
) -> list[Option]:
    """The distinct ways to place a model: over each number of nodes that is worth a look the best
    pipeline, and the split by tensors; of an image model, by the passes of a step.

    Raises:
        ModelNotFound: no node has its weights.
    """
    if card.image is not None:
        return _image_options(card, wanted, nodes)
    try:
        found = _found(Ask(card, wanted, links), candidates(card, wanted, nodes))
    except PlacementImpossible as error:
        found = {wanted.min_nodes: error}
    pipelines = [_option(Sharding.PIPELINE, size, each) for size, each in found.items()]
    return [*pipelines, *_tensor_options(card, wanted, nodes, links)]


def _image_options(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> list[Option]:
    found: Mapping[int, Placement | PlacementImpossible]
    try:
        found = image_options(card, wanted, candidates(card, wanted, nodes))
    except PlacementImpossible as error:
        found = {wanted.min_nodes: error}
    rows: list[Option] = []
    for size, each in found.items():
        meta = InstanceMeta.LOCAL if size == 1 else InstanceMeta.TCP
        if isinstance(each, Placement):
            rows.append(Option(Sharding.PIPELINE, meta, size, each, None))
        else:
            rows.append(Option(Sharding.PIPELINE, meta, size, None, each.message))
    return [*rows, _guidance_option(card, wanted, nodes)]


def _guidance_option(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> Option:
    wanted = wanted.model_copy(update={"sharding": Sharding.GUIDANCE})
    placement, reason = None, None
    try:
        check_passes(card, wanted)
        placement = guided(card, candidates(card, wanted, nodes))
    except PlacementImpossible as error:
        reason = error.message
    return Option(Sharding.GUIDANCE, InstanceMeta.TCP, 2, placement, reason)


def _tensor_options(
    card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources], links: Iterable[LinkInfo]
) -> list[Option]:
    """A row for each number of nodes, or a single one if there is no way at all."""
    wanted = wanted.model_copy(update={"sharding": Sharding.TENSOR})
    least = max(2, wanted.min_nodes)
    try:
        check_tensors(card, wanted)
        found = _found(Ask(card, wanted, links), candidates(card, wanted, nodes))
    except PlacementImpossible as error:
        found = {least: error}
    return [_option(Sharding.TENSOR, size, each) for size, each in found.items()]


def _found(ask: Ask, nodes: Sequence[NodeResources]) -> Found:
    """By the number of nodes, the best placement or why there is none."""
    wanted = ask.wanted
    found: dict[int, Planned | PlacementImpossible] = {}
    most = len(nodes) if wanted.max_nodes is None else min(len(nodes), wanted.max_nodes)
    if wanted.sharding is Sharding.TENSOR:
        return tensors(ask, nodes, max(2, wanted.min_nodes), most)
    if wanted.min_nodes == 1 and not wanted.linked:
        found[1] = _on_one(ask, nodes)
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


def _impossible(found: Found) -> PlacementImpossible:
    """Why there is no placement: on one node, and on as many as there are."""
    errors = [error for error in found.values() if isinstance(error, PlacementImpossible)]
    if errors and all(error.param for error in errors):
        return errors[0]  # It is not for want of memory.
    reasons = [error.message for error in errors]
    return PlacementImpossible(" ".join(dict.fromkeys([*reasons[:1], *reasons[-1:]])), hint=_HINT)


def _option(sharding: Sharding, size: int, found: Planned | PlacementImpossible) -> Option:
    if isinstance(found, Planned):
        placement = found.placement
        return Option(sharding, placement.instance_meta, size, placement, None)
    meta = InstanceMeta.LOCAL if size == 1 else InstanceMeta.TCP
    if sharding is Sharding.TENSOR:
        meta = InstanceMeta.MLX_RING
    return Option(sharding, meta, size, None, found.message)
