"""Where an image model goes: pure.

    weights (as they are in memory) + working space of one picture of the model's own size

It has no keys and values to keep, and draws one picture at a time, so that one node is best: the
fastest that has room for it. If none has, its transformer's blocks lie on the fewest nodes that
hold it. The first has everything else as well: what reads the words and what makes the pixels.
"""

from collections.abc import Mapping, Sequence

from exo.cluster.placement.choose import candidates, manual
from exo.cluster.placement.cost import speed
from exo.cluster.placement.memory import Cast, casts
from exo.cluster.placement.plan import Share, gib
from exo.cluster.placement.wanted import NodeResources, Wanted
from exo.cluster.state import InstanceMeta, Placement, Shard, Sharding
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard
from exo.models.weights import Part

# Of the layers that make pixels, which are as wide as a picture.
_BYTES_PER_PIXEL = 1536
_BASE_BYTES = 256 * 1024 * 1024
# A block's inputs and outputs, its hidden layer, and copies.
_COPIES = 32
# Matrices of the transformer that every rank needs, as wide and high as its hidden state.
_EVERYWHERE = 18
# A token of the transformer is a patch of so many pixels.
_PATCH = 16 * 16
_HINT = "Free some memory, or choose a smaller model."
# Of many nodes that are too small, so many are named.
_NAMED = 3

Found = Mapping[int, Placement | PlacementImpossible]


def place_image(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> Placement:
    """The best placement on these nodes.

    Raises:
        PlacementImpossible: there is none; the message says why, with the numbers.
        ModelNotFound: no node has its weights.
    """
    _check(card, wanted)
    if wanted.sharding is Sharding.GUIDANCE:
        check_passes(card, wanted)
    able = candidates(card, wanted, nodes)
    if wanted.sharding is Sharding.GUIDANCE:
        return guided(card, able)
    if wanted.layers:
        return _placement(card, manual(card, wanted, nodes))
    found = image_options(card, wanted, able)
    fitting = [each for each in found.values() if isinstance(each, Placement)]
    if fitting:
        return fitting[0]
    reasons = [each.message for each in found.values() if isinstance(each, PlacementImpossible)]
    raise PlacementImpossible(" ".join(dict.fromkeys([*reasons[:1], *reasons[-1:]])), hint=_HINT)


def image_options(card: ModelCard, wanted: Wanted, able: Sequence[NodeResources]) -> Found:
    """By the number of nodes, the best placement or why there is none: up to the fewest that hold
    the model, or to all that may be used.

    Raises:
        PlacementImpossible: what is asked means nothing for pictures.
    """
    _check(card, wanted)
    least = max(wanted.min_nodes, 2 if wanted.linked else 1)
    most = min(len(able), wanted.max_nodes or len(able), card.n_layers)
    most = 1 if wanted.instance_meta is InstanceMeta.LOCAL else most
    found: dict[int, Placement | PlacementImpossible] = {}
    for size in range(least, most + 1):
        try:
            found[size] = _on_one(card, able) if size == 1 else _on_several(card, able, size)
        except PlacementImpossible as error:
            found[size] = error
        else:
            break
    return found


def check_passes(card: ModelCard, wanted: Wanted) -> None:
    """See that two nodes can compute one pass of each step.

    Raises:
        PlacementImpossible: a step is one pass, or something else is asked for.
    """
    if card.image is None or not card.image.two_passes:
        raise PlacementImpossible(
            f"{card.model_id} computes a step in one pass: there is none for a second node.",
            hint="docs/images.md says which models are guided in two.",
            param="sharding",
        )
    if wanted.layers:
        raise PlacementImpossible(
            "Each of the two nodes has all layers, for one of the passes.", param="layers"
        )
    if wanted.min_nodes > 2:
        raise PlacementImpossible(
            f"The passes of a step are for 2 nodes, and {wanted.min_nodes} are asked for.",
            param="min_nodes",
        )
    if wanted.instance_meta is InstanceMeta.LOCAL:
        raise PlacementImpossible(
            "local is for one node; the passes of a step are computed by two.",
            param="instance_meta",
        )


def guided(card: ModelCard, able: Sequence[NodeResources]) -> Placement:
    """Each of two nodes has the whole transformer, for one of the passes: the two that are done
    soonest, of which one holds everything else as well.

    Raises:
        PlacementImpossible: there are no two that have room.
    """
    ordered = sorted(able, key=lambda node: _order(card, node))
    whole = [Share(node, 0, card.n_layers) for node in ordered]
    heads = [share for share in whole if _cast(card, share, first=True) is not None]
    others = [share for share in whole if _cast(card, share, first=False) is not None]
    pairs = [
        (head, next((each for each in others if each.node is not head.node), None))
        for head in heads
    ]
    found = [(head, other) for head, other in pairs if other is not None]
    if not found:
        first = "" if heads else f" {_does_not_fit(card, whole[0])}"
        raise PlacementImpossible(
            f"{card.model_id} does not fit on two nodes, once whole and once without what reads "
            f"words and makes pixels: {len(heads)} and {len(others)} of {len(able)} have room."
            f"{first}"
        )

    def slower(pair: tuple[Share, Share]) -> float:
        return max(_order(card, share.node)[0] for share in pair)

    return _placement(card, min(found, key=slower), Sharding.GUIDANCE)


def _on_one(card: ModelCard, nodes: Sequence[NodeResources]) -> Placement:
    whole = [Share(node, 0, card.n_layers) for node in nodes]
    fitting = [share for share in whole if _cast(card, share, first=True) is not None]
    if not fitting:
        more = len(whole) - _NAMED
        rest = [f"So it is with {more} more."] if more > 0 else []
        reasons = [_does_not_fit(card, share) for share in whole[:_NAMED]]
        raise PlacementImpossible(" ".join(reasons + rest))
    return _placement(card, [min(fitting, key=lambda share: _order(card, share.node))])


def _on_several(card: ModelCard, nodes: Sequence[NodeResources], size: int) -> Placement:
    """Over the nodes with the most memory, each with as many blocks as it is fast, as far as they
    fit."""
    chosen = sorted(nodes, key=lambda node: (-node.free_memory, node.node_id))[:size]
    rooms = [_room(card, node, first=at == 0) for at, node in enumerate(chosen)]
    if sum(rooms) < card.n_layers or not all(rooms):
        free = sum(node.free_memory for node in chosen)
        raise PlacementImpossible(
            f"{card.model_id} does not fit over {size} nodes; those with the most memory have "
            f"{gib(free)} free together, for {sum(rooms)} of its {card.n_layers} blocks."
        )
    paces = [speed(node, card, cast=Cast.NOTHING).flops for node in chosen]
    counts = shared_out(card.n_layers, rooms, paces)
    ends = [sum(counts[: at + 1]) for at in range(size)]
    shares = [
        Share(node, end - count, end) for node, count, end in zip(chosen, counts, ends, strict=True)
    ]
    return _placement(card, shares)


def shared_out(blocks: int, rooms: Sequence[int], paces: Sequence[float]) -> list[int]:
    """So many blocks over nodes, at least one each and no more than each has room for, so that the
    slowest takes least: each goes to the node that is done with it first."""
    counts = [1] * len(rooms)
    for _ in range(blocks - len(rooms)):
        open_ = [at for at, room in enumerate(rooms) if counts[at] < room]
        best = min(open_, key=lambda at: ((counts[at] + 1) / paces[at], at))
        counts[best] += 1
    return counts


def _room(card: ModelCard, node: NodeResources, *, first: bool) -> int:
    """How many blocks a node can hold at most, whichever they are."""
    cast = casts(card, node)[-1]
    largest = max(_loaded(part, card, cast) for part in card.parts.layers)
    rest = _loaded(card.parts.embedding, card, cast) if first else 0
    free = node.free_memory - rest - _working(card, node, first=first)
    return max(0, min(free // largest, card.n_layers))


def _placement(
    card: ModelCard, shares: Sequence[Share], sharding: Sharding = Sharding.PIPELINE
) -> Placement:
    shards: list[Shard] = []
    for rank, share in enumerate(shares):
        cast = _cast(card, share, first=rank == 0)
        if cast is None:
            raise PlacementImpossible(_does_not_fit(card, share), hint=_HINT)
        shards.append(
            Shard(
                rank=rank,
                node_id=share.node.node_id,
                start_layer=share.start,
                end_layer=share.end,
                memory=needed(card, share, cast, first=rank == 0),
                cast_float32=bool(cast),
            )
        )
    return Placement(
        model_id=card.model_id,
        sharding=sharding,
        instance_meta=InstanceMeta.LOCAL if len(shards) == 1 else InstanceMeta.TCP,
        context_length=card.context_length,
        concurrency=1,
        kv_tokens=1,
        shards=tuple(shards),
    )


def needed(card: ModelCard, share: Share, cast: Cast, *, first: bool) -> int:
    """Bytes that some of the blocks take on a node while it draws; the first of an instance has
    everything else as well."""
    parts = card.parts.layers[share.start : share.end]
    weights = sum(_loaded(part, card, cast) for part in parts)
    weights += _loaded(card.parts.embedding, card, cast) if first else 0
    return weights + _working(card, share.node, first=first)


def _cast(card: ModelCard, share: Share, *, first: bool) -> Cast | None:
    """What the node casts to float32; None if its share does not fit either way."""
    for cast in casts(card, share.node):
        if needed(card, share, cast, first=first) <= share.node.free_memory:
            return cast
    return None


def _loaded(part: Part, card: ModelCard, cast: Cast) -> int:
    loose = part.total - part.packed
    return part.total + (loose if cast is Cast.EVERYTHING and card.dtype != "float32" else 0)


def _working(card: ModelCard, node: NodeResources, *, first: bool) -> int:
    traits = card.image
    if traits is None:
        return 0
    pixels = traits.size**2
    # A picture, and one that it is made from.
    tokens = (1 + min(traits.edits, 1)) * pixels // _PATCH + card.context_length
    working = _BASE_BYTES + tokens * card.hidden_size * 4 * _COPIES
    working += pixels * _BYTES_PER_PIXEL if first else _EVERYWHERE * card.hidden_size**2 * 4
    if node.on_cpu and not (node.device and node.device.kernels):
        # MLX's own attention on a CPU keeps all scores.
        working += tokens**2 * card.n_heads * 4
    return working


def _order(card: ModelCard, node: NodeResources) -> tuple[float, int, str]:
    return (-speed(node, card, cast=Cast.NOTHING).flops, -node.free_memory, node.node_id)


def _check(card: ModelCard, wanted: Wanted) -> None:
    """See that nothing is asked that means nothing for pictures."""
    asked = {
        "context_length": wanted.context_length,
        "kv_bits": wanted.kv_bits,
        "draft": wanted.draft,
        "concurrency": wanted.concurrency if wanted.concurrency != 1 else None,
    }
    for field, value in asked.items():
        if value is not None:
            raise PlacementImpossible(
                f"{card.model_id} draws pictures, one at a time: {field} is for models of text.",
                param=field,
            )
    if wanted.sharding is Sharding.TENSOR:
        raise PlacementImpossible(
            f"{card.model_id} draws pictures, and cannot be split by tensors.", param="sharding"
        )
    if wanted.instance_meta not in {None, InstanceMeta.LOCAL, InstanceMeta.TCP}:
        raise PlacementImpossible(
            f"{card.model_id} draws pictures; its nodes are linked by tcp.", param="instance_meta"
        )


def _does_not_fit(card: ModelCard, share: Share) -> str:
    whole = share.end - share.start == card.n_layers
    what = "" if whole else f" for blocks {share.start} to {share.end - 1}"
    need = needed(card, share, casts(card, share.node)[-1], first=share.start == 0)
    return (
        f"{card.model_id} needs {gib(need)} on {share.node.name}{what} and "
        f"{gib(share.node.free_memory)} is free for it."
    )
