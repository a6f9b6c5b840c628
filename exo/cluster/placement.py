"""Where a model goes: pure, over what is known of the model and the nodes.

Memory of a shard = its weights (as they are in memory, so after a cast to float32) + KV cache +
working space. Speeds are predicted from the measured memory bandwidth (decode reads every weight
once per token) and FLOP/s (prefill computes two operations per weight and token).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from exo.cluster.state import InstanceMeta, Model, Placement, Shard, Sharding
from exo.device.profile import DeviceProfile
from exo.errors import ModelNotFound, PlacementImpossible
from exo.models.card import ModelCard

# Longer contexts are had by asking for them: they are paid for in memory whether used or not.
DEFAULT_CONTEXT = 32768
DEFAULT_CONCURRENCY = 32
_WORKING_BYTES = 64 * 1024 * 1024
# One instance does not take all the memory that is free, so that others find some.
_KV_SHARE = 0.25


@dataclass(frozen=True)
class NodeResources:
    """What one node can give: `free_memory` in bytes, of the device that computes, and whether
    the model's weights are there."""

    node_id: str
    name: str
    device: DeviceProfile | None
    free_memory: int
    has_weights: bool = True


class Wanted(Model):
    """What is asked of a placement. None leaves the choice to exo."""

    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta | None = None
    min_nodes: int = Field(default=1, ge=1)
    context_length: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1, le=1024)


def place(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> Placement:
    """The best placement on these nodes.

    Raises:
        PlacementImpossible: there is none; the message says why, with the numbers.
        ModelNotFound: no node has its weights.
    """
    _check(card, wanted, nodes)
    fitting: list[Placement] = []
    reasons: list[str] = []
    for node in nodes:
        try:
            fitting.append(_on_one_node(card, wanted, node))
        except PlacementImpossible as error:
            reasons.append(error.message)
    if not fitting:
        raise PlacementImpossible(
            " ".join(reasons), hint="Free some memory, or choose a smaller model or context."
        )
    return max(fitting, key=lambda p: (p.decode_tps or 0.0, p.kv_tokens, p.shards[0].node_id))


def _check(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> None:
    if not nodes:
        raise PlacementImpossible("No node is ready to compute.", hint="`exo status` shows them.")
    if not any(node.has_weights for node in nodes):
        raise weights_missing(card)
    if wanted.min_nodes > len(nodes):
        raise PlacementImpossible(
            f"{wanted.min_nodes} nodes are asked for and the cluster has {len(nodes)}.",
            param="min_nodes",
        )
    if wanted.min_nodes > 1 or wanted.instance_meta not in {None, InstanceMeta.LOCAL}:
        raise PlacementImpossible(
            "This version of exo computes a model on one node.",
            hint="Ask for min_nodes 1 and instance_meta local.",
            param="min_nodes" if wanted.min_nodes > 1 else "instance_meta",
        )
    if wanted.sharding is not Sharding.PIPELINE:
        raise PlacementImpossible(
            f"{card.model_id} cannot be split by tensors here: that takes two nodes or more.",
            param="sharding",
        )
    if wanted.context_length is not None and wanted.context_length > card.context_length:
        raise PlacementImpossible(
            f"A context of {wanted.context_length} tokens is asked for; {card.model_id} was made "
            f"for {card.context_length}.",
            param="context_length",
        )


def weights_missing(card: ModelCard) -> ModelNotFound:
    return ModelNotFound(
        f"The weights of {card.model_id} are on no node of this cluster.",
        hint=f"Put the folder of {card.repo} into the models folder (`exo model list` shows it), "
        "or give a model folder by its path.",
        param="model",
    )


def _on_one_node(card: ModelCard, wanted: Wanted, node: NodeResources) -> Placement:
    if not node.has_weights:
        raise PlacementImpossible(f"The weights of {card.model_id} are not on {node.name}.")
    on_cpu = node.device is None or node.device.kind == "cpu"
    cast = on_cpu and _weight_bytes(card, True) + _least_kv(card, wanted, 4) <= node.free_memory
    # Packed weights are only exact with float32 scales on a CPU, whatever that costs.
    cast = cast or (on_cpu and card.quantization is not None)
    weights = _weight_bytes(card, cast)
    working = _working_bytes(card, wanted)
    element = 4 if cast or card.dtype == "float32" else 2
    per_token = card.kv_bytes_per_token(element)
    room = (node.free_memory - weights - working) // per_token
    least = _least_context(card, wanted)
    if room < least:
        needed = weights + working + per_token * least
        raise PlacementImpossible(
            f"{card.model_id} needs {_gib(needed)} on {node.name} and {_gib(node.free_memory)} "
            "is free for it."
        )
    context = wanted.context_length or min(card.context_length, DEFAULT_CONTEXT, room)
    concurrency = wanted.concurrency or DEFAULT_CONCURRENCY
    share = int(node.free_memory * _KV_SHARE) // per_token
    kv_tokens = min(room, context * concurrency, max(context, share))
    prefill, decode = _speeds(card, weights, node.device)
    shard = Shard(
        rank=0,
        node_id=node.node_id,
        start_layer=0,
        end_layer=card.n_layers,
        memory=weights + working + kv_tokens * per_token,
    )
    return Placement(
        model_id=card.model_id,
        sharding=Sharding.PIPELINE,
        instance_meta=InstanceMeta.LOCAL,
        context_length=context,
        concurrency=concurrency,
        kv_tokens=kv_tokens,
        cast_float32=cast,
        shards=(shard,),
        prefill_tps=prefill,
        decode_tps=decode,
    )


def _weight_bytes(card: ModelCard, cast: bool) -> int:
    """Bytes in memory: what is not packed doubles when half precision becomes float32."""
    loose = card.storage_size - card.packed_size
    return card.packed_size + (loose * 2 if cast and card.dtype != "float32" else loose)


def _least_kv(card: ModelCard, wanted: Wanted, element: int) -> int:
    kv = _least_context(card, wanted) * card.kv_bytes_per_token(element)
    return _working_bytes(card, wanted) + kv


def _least_context(card: ModelCard, wanted: Wanted) -> int:
    """Tokens without which a model is of no use."""
    return wanted.context_length or min(card.context_length, 512)


def _working_bytes(card: ModelCard, wanted: Wanted) -> int:
    """Activations and logits of one step, in float32."""
    rows = wanted.concurrency or DEFAULT_CONCURRENCY
    return _WORKING_BYTES + 3 * 4 * rows * (card.vocab_size + card.hidden_size)


def _speeds(
    card: ModelCard, weights: int, device: DeviceProfile | None
) -> tuple[float | None, float | None]:
    if device is None:
        return None, None
    flops = max(device.flops.values(), default=0.0)
    bits = card.quantization.bits if card.quantization else 16
    parameters = max(1.0, card.storage_size * 8 / bits)
    return flops / (2 * parameters) or None, device.memory_bandwidth / weights or None


def _gib(size: int) -> str:
    return f"{max(size, 0) / 2**30:.2f} GiB"
