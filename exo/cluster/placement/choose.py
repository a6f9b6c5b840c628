"""Which nodes may take part in a placement, and what is wrong with what is asked."""

from collections.abc import Sequence

from exo.cluster.names import called
from exo.cluster.placement.plan import Share
from exo.cluster.placement.wanted import NodeResources, Wanted
from exo.cluster.state import NGRAM, Draft, InstanceMeta, Sharding
from exo.errors import ModelNotFound, PlacementImpossible
from exo.models.card import ModelCard

# Of many nodes, so many are named.
_NAMED = 3
# What links devices of one kind only.
_FOR = {InstanceMeta.MLX_NCCL: "cuda", InstanceMeta.MLX_JACCL: "metal"}
_NODES_HINT = "`exo node list` shows them with their ids."


def candidates(
    card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]
) -> list[NodeResources]:
    """The nodes that may be used, all of them with the model's weights.

    Raises:
        PlacementImpossible: there are too few, or what is asked contradicts itself.
        ModelNotFound: no node has the weights.
    """
    if not nodes:
        raise PlacementImpossible("No node is ready to compute.", hint="`exo status` shows them.")
    if not any(node.has_weights for node in nodes):
        raise weights_missing(card)
    _check_context(card, wanted)
    _check_encoder(card, wanted)
    _check_kv_bits(card, wanted)
    _check_numbers(wanted, len(nodes))
    least = max(wanted.min_nodes, 2 if wanted.linked else 1)
    if wanted.nodes:
        asked = [find(nodes, name, "nodes") for name in wanted.nodes]
        nodes = [node for node in nodes if node in asked]
        _require(nodes, least, "named")
        for node in nodes:
            if not node.has_weights:
                raise _no_weights(card, node, "nodes")
    able = [node for node in nodes if node.has_weights]
    _require(able, least, f"have the weights of {card.model_id}")
    if wanted.draft:
        able = [node for node in able if node.has_draft]
        if len(able) < least:
            raise _no_draft(f"{least} nodes with the weights of {card.model_id}", wanted.draft)
    if wanted.grouped:
        able = _allowing_groups(able, least)
    if kind := _FOR.get(wanted.instance_meta or InstanceMeta.LOCAL):
        able = [node for node in able if node.device and node.device.kind == kind]
        if len(able) < least:
            what = f"{wanted.instance_meta} links {kind} devices"
            raise _meta(f"{what}, and {count(len(able))} of these have one.")
    pieces = len(card.boundaries) - 1
    if least > pieces and wanted.sharding is Sharding.PIPELINE:
        raise PlacementImpossible(
            f"{least} nodes are asked for; {card.model_id} {_cuttable(card, pieces)}.",
            param="min_nodes",
        )
    return able


def manual(card: ModelCard, wanted: Wanted, nodes: Sequence[NodeResources]) -> list[Share]:
    """The shares that `wanted.layers` asks for.

    Raises:
        PlacementImpossible: they are no whole model, or a node cannot take part.
    """
    covered = [layer for r in wanted.layers for layer in range(r.start_layer, r.end_layer)]
    empty = any(r.start_layer >= r.end_layer for r in wanted.layers)
    if empty or covered != list(range(card.n_layers)):
        raise _layers(
            f"The layers must be 0 to {card.n_layers - 1}, each once and in order, with one or "
            "more for each node."
        )
    shares = [
        Share(find(nodes, r.node, "layers"), r.start_layer, r.end_layer) for r in wanted.layers
    ]
    ids = [share.node.node_id for share in shares]
    for share in shares:
        if ids.count(share.node.node_id) > 1:
            raise _layers(f"{share.node.name} is given layers twice.")
        if not share.node.has_weights:
            raise _no_weights(card, share.node, "layers")
    if wanted.draft and not shares[0].node.has_draft:
        raise _no_draft(shares[0].node.name, wanted.draft)
    if wanted.grouped:
        _allowing_groups([share.node for share in shares], len(shares))
    for at in (r.start_layer for r in wanted.layers):
        if at not in card.boundaries:
            may = ", ".join(map(str, card.boundaries[1:-1]))
            where = f"before one of the layers {may}" if may else "nowhere"
            raise _layers(f"{card.model_id} cannot be cut before layer {at}, but {where}.")
    _check_counts(wanted, len(shares))
    return shares


def find(nodes: Sequence[NodeResources], name: str, param: str) -> NodeResources:
    """The node that is called so.

    Raises:
        PlacementImpossible: there is none, or more than one.
    """
    found = called(nodes, name)
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} nodes are called '{name}'."
    if not found:
        what = f"There is no node '{name}' that takes instances."
    raise PlacementImpossible(what, hint=_NODES_HINT, param=param)


def weights_missing(card: ModelCard) -> ModelNotFound:
    return ModelNotFound(
        f"The weights of {card.model_id} are on no node of this cluster.",
        hint=f"Put the folder of {card.repo} into the models folder (`exo model list` shows it), "
        "or give a model folder by its path.",
        param="model",
    )


def check_sharding(card: ModelCard, wanted: Wanted) -> None:
    """See that a model of text can be split as is asked.

    Raises:
        PlacementImpossible: it cannot.
    """
    if wanted.sharding is Sharding.GUIDANCE:
        raise PlacementImpossible(
            f"{card.model_id} draws nothing: only image models are guided in two passes.",
            param="sharding",
        )
    if wanted.sharding is Sharding.TENSOR:
        check_tensors(card, wanted)


def check_tensors(card: ModelCard, wanted: Wanted) -> None:
    """See that a model can be split inside of its layers.

    Raises:
        PlacementImpossible: mlx-lm cannot do that, or layers are given to nodes by hand.
    """
    if card.encodes:
        raise PlacementImpossible(
            f"{card.model_id} makes vectors, on one node only.", param="sharding"
        )
    if card.shares is None:
        raise PlacementImpossible(
            f"{card.model_id} cannot be split by tensors: mlx-lm does not do that for models of "
            f"type {card.architecture}.",
            hint="docs/architectures.md has those for which it does.",
            param="sharding",
        )
    if wanted.layers:
        raise PlacementImpossible(
            "Layers are given to nodes in a pipeline; split by tensors, each node has a part of "
            "every layer.",
            param="layers",
        )


def _allowing_groups(nodes: list[NodeResources], least: int) -> list[NodeResources]:
    able = [node for node in nodes if node.mlx_links]
    if len(able) < least:
        names = [node.name for node in nodes if not node.mlx_links]
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        named = ", ".join(names[:_NAMED] + more)
        raise PlacementImpossible(
            f"Links of mx.distributed are needed between {least} nodes or more, and not allowed on "
            f"{named}.",
            hint="They are neither encrypted nor authenticated. Where you trust the network, start "
            "the nodes with --mlx-links, or set mlx_links = true.",
            param="sharding",
        )
    return able


def _check_context(card: ModelCard, wanted: Wanted) -> None:
    if wanted.context_length is not None and wanted.context_length > card.context_length:
        raise PlacementImpossible(
            f"A context of {wanted.context_length} tokens is asked for; {card.model_id} was made "
            f"for {card.context_length}.",
            param="context_length",
        )


def _check_encoder(card: ModelCard, wanted: Wanted) -> None:
    """See that nothing is asked that means nothing for vectors, and that none are drafted by."""
    if card.encodes:
        asked = {"kv_bits": wanted.kv_bits, "draft": wanted.draft}
        for field, value in asked.items():
            if value is not None:
                raise PlacementImpossible(
                    f"{card.model_id} makes vectors: {field} is for models that answer in words.",
                    param=field,
                )
        if max(wanted.min_nodes, 2 if wanted.linked else 1) > 1:
            raise PlacementImpossible(
                f"{card.model_id} makes vectors, on one node only.", param="min_nodes"
            )
    if wanted.draft and wanted.draft.card and wanted.draft.card.encodes:
        raise PlacementImpossible(
            f"{wanted.draft.name} makes vectors: it cannot draft words.", param="draft"
        )


def _check_kv_bits(card: ModelCard, wanted: Wanted) -> None:
    if wanted.kv_bits is not None and card.kv_group is None:
        raise PlacementImpossible(
            f"Keys and values of {card.model_id} cannot be quantised: a head has {card.head_dim} "
            "numbers, which is no multiple of 32.",
            param="kv_bits",
        )


def _check_numbers(wanted: Wanted, nodes: int) -> None:
    if wanted.min_nodes > nodes:
        raise PlacementImpossible(
            f"{wanted.min_nodes} nodes are asked for and the cluster has {nodes}.",
            param="min_nodes",
        )
    if wanted.max_nodes is not None and wanted.max_nodes < wanted.min_nodes:
        raise PlacementImpossible(
            f"At least {wanted.min_nodes} nodes are asked for, and at most {wanted.max_nodes}.",
            param="max_nodes",
        )
    _check_meta(wanted, nodes)


def _check_meta(wanted: Wanted, nodes: int) -> None:
    meta = wanted.instance_meta
    if meta is not None and not meta.group and wanted.sharding is Sharding.TENSOR:
        raise _meta(f"{meta} is not for models that are split by tensors, but mlx_ring is.")
    if meta is InstanceMeta.LOCAL and wanted.min_nodes > 1:
        raise _meta(f"local is for one node, and {wanted.min_nodes} are asked for.")
    most = nodes if wanted.max_nodes is None else min(nodes, wanted.max_nodes)
    if wanted.linked and most < 2:
        why = "1 is allowed" if nodes > 1 else "the cluster has 1"
        if wanted.sharding is Sharding.TENSOR:
            raise PlacementImpossible(
                f"A model is split by tensors over two nodes or more, and {why}.", param="sharding"
            )
        if wanted.sharding is Sharding.GUIDANCE:
            raise PlacementImpossible(
                f"The passes of a step are computed by two nodes, and {why}.", param="sharding"
            )
        raise _meta(f"{meta} links two nodes or more, and {why}.")


def _check_counts(wanted: Wanted, shares: int) -> None:
    """See that what else is asked holds for shares given by hand."""
    if shares < wanted.min_nodes:
        raise _layers(f"They are for {shares} nodes, and {wanted.min_nodes} are asked for.")
    if wanted.max_nodes is not None and shares > wanted.max_nodes:
        raise _layers(f"They are for {shares} nodes, and at most {wanted.max_nodes} are allowed.")
    meta = wanted.instance_meta
    if meta is not None and (meta is InstanceMeta.LOCAL) != (shares == 1):
        raise _meta(f"{meta} is asked for; the layers are on {count(shares)}.")


def count(nodes: int) -> str:
    """'1 node', '2 nodes'."""
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _require(nodes: Sequence[NodeResources], least: int, what: str) -> None:
    if len(nodes) < least:
        raise PlacementImpossible(
            f"{least} nodes are asked for and {len(nodes)} {what}.", param="min_nodes"
        )


def _cuttable(card: ModelCard, pieces: int) -> str:
    layers = f"has {card.n_layers} {'layer' if card.n_layers == 1 else 'layers'}"
    if pieces == card.n_layers:
        return layers
    return f"{layers}, which can be cut into {pieces} at most"


def _no_weights(card: ModelCard, node: NodeResources, param: str) -> PlacementImpossible:
    return PlacementImpossible(
        f"The weights of {card.model_id} are not on {node.name}.", param=param
    )


def _no_draft(where: str, draft: Draft) -> PlacementImpossible:
    return PlacementImpossible(
        f"The weights of the draft model {draft.name} are not on {where}.",
        hint=f"Put them there, or draft without a model: `--draft {NGRAM}`.",
        param="draft",
    )


def _layers(message: str) -> PlacementImpossible:
    return PlacementImpossible(
        message, hint="Such as a=0-9,b=10-15: both ends belong to the node.", param="layers"
    )


def _meta(message: str) -> PlacementImpossible:
    return PlacementImpossible(message, param="instance_meta")
