"""Where an image model goes: on the fastest node that has room for it: pure.

    weights (as they are stored) + working space of one picture of the model's own size

It has no keys and values to keep, and draws one picture at a time.
"""

from collections.abc import Sequence

from exo.cluster.placement.choose import candidates, manual
from exo.cluster.placement.cost import speed
from exo.cluster.placement.memory import Cast, casts
from exo.cluster.placement.plan import gib
from exo.cluster.placement.wanted import NodeResources, Wanted
from exo.cluster.state import InstanceMeta, Placement, Shard, Sharding
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard

# Of the layers that make pixels, which are as wide as a picture.
_BYTES_PER_PIXEL = 1536
_BASE_BYTES = 256 * 1024 * 1024
# A block's inputs and outputs, its hidden layer, and copies.
_COPIES = 32
# A token of the transformer is a patch of so many pixels.
_PATCH = 16 * 16
_HINT = "Free some memory, or choose a smaller model."
# Of many nodes that are too small, so many are named.
_NAMED = 3


def place_image(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> Placement:
    """The best placement on these nodes.

    Raises:
        PlacementImpossible: there is none; the message says why, with the numbers.
        ModelNotFound: no node has its weights.
    """
    _check(card, wanted)
    able = candidates(card, wanted, nodes)
    if wanted.layers:
        able = [share.node for share in manual(card, wanted, nodes)]
    if wanted.min_nodes > 1 or len(wanted.layers) > 1:
        raise PlacementImpossible(
            f"{card.model_id} draws pictures, and those are drawn on one node.", param="min_nodes"
        )
    fitting = {node.node_id: cast for node in able if (cast := _cast(card, node)) is not None}
    if not fitting:
        raise PlacementImpossible(" ".join(_reasons(card, able)), hint=_HINT)
    best = min(
        (node for node in able if node.node_id in fitting),
        key=lambda node: (
            -speed(node, card, cast=Cast.NOTHING).flops,
            -node.free_memory,
            node.node_id,
        ),
    )
    return Placement(
        model_id=card.model_id,
        sharding=Sharding.PIPELINE,
        instance_meta=InstanceMeta.LOCAL,
        context_length=card.context_length,
        concurrency=1,
        kv_tokens=1,
        shards=(
            Shard(
                rank=0,
                node_id=best.node_id,
                start_layer=0,
                end_layer=card.n_layers,
                memory=needed(card, best, fitting[best.node_id]),
                cast_float32=bool(fitting[best.node_id]),
            ),
        ),
    )


def needed(card: ModelCard, node: NodeResources, cast: Cast) -> int:
    """Bytes that the model takes on a node while it draws."""
    weights = card.storage_size
    if cast is Cast.EVERYTHING and card.dtype != "float32":
        weights += weights - card.packed_size
    return weights + _working(card, node)


def _cast(card: ModelCard, node: NodeResources) -> Cast | None:
    """What the node casts to float32; None if the model does not fit either way."""
    for cast in casts(card, node):
        if needed(card, node, cast) <= node.free_memory:
            return cast
    return None


def _working(card: ModelCard, node: NodeResources) -> int:
    traits = card.image
    if traits is None:
        return 0
    pixels = traits.size**2
    # A picture, and one that it is made from.
    pictures = 1 + min(traits.edits, 1)
    tokens = pictures * pixels // _PATCH + card.context_length
    working = _BASE_BYTES + pixels * _BYTES_PER_PIXEL + tokens * card.hidden_size * 4 * _COPIES
    if node.on_cpu and not (node.device and node.device.kernels):
        # MLX's own attention on a CPU keeps all scores.
        working += tokens**2 * card.n_heads * 4
    return working


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
    if wanted.instance_meta not in {None, InstanceMeta.LOCAL}:
        raise PlacementImpossible(
            f"{card.model_id} draws pictures, and those are drawn on one node.",
            param="instance_meta",
        )


def _reasons(card: ModelCard, nodes: Sequence[NodeResources]) -> list[str]:
    reasons = [
        f"{card.model_id} needs {gib(needed(card, node, casts(card, node)[-1]))} on {node.name} "
        f"and {gib(node.free_memory)} is free for it."
        for node in nodes[:_NAMED]
    ]
    more = len(nodes) - _NAMED
    return [*reasons, f"So it is with {more} more."] if more > 0 else reasons
