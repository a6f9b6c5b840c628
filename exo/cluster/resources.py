"""What the nodes can still give: pure, over what each says of itself and what is planned."""

from collections.abc import Mapping
from pathlib import Path

from exo.cluster.placement import NodeResources
from exo.cluster.state import ClusterState, Draft, Model
from exo.models.card import ModelCard


class ModelQuery(Model):
    """A model that a node may have: by its name, by the path that it has on some node, and with
    what it must have in common with that copy (see `ModelCard.shape`), if one is known. `draft` is
    the model that is to draft for it."""

    name: str
    path: Path | None = None
    shape: str | None = None
    draft: "ModelQuery | None" = None

    @classmethod
    def of(cls, card: ModelCard, draft: Draft | None = None) -> "ModelQuery":
        return cls(
            name=card.model_id,
            path=card.path,
            shape=card.shape if card.path else None,
            draft=cls.of(draft.card) if draft and draft.card else None,
        )


class NodeSample(Model):
    """What a node answers when it is asked what it could do for a model.

    `budget` are the bytes that exo may use there, those of its instances included; `card` is the
    model as that node has it, with its path if the weights are there, None if it knows of none;
    `has_draft` says whether the weights of the draft model are there, if there is to be one, and
    `mlx_links` whether its owner allows links of `mx.distributed`.
    """

    budget: int
    card: ModelCard | None
    has_draft: bool = True
    mlx_links: bool = False


def free_resources(
    state: ClusterState, samples: Mapping[str, NodeSample]
) -> tuple[NodeResources, ...]:
    """The resources of the sampled nodes, less what the instances of the state will need."""
    found: list[NodeResources] = []
    for node_id, sample in samples.items():
        node = state.nodes.get(node_id)
        if node is None or not node.online or node.draining:
            continue
        shards = [
            shard
            for instance in state.instances.values()
            for shard in instance.placement.shards
            if shard.node_id == node_id
        ]
        has_weights = sample.card is not None and sample.card.path is not None
        free = max(sample.budget - sum(shard.memory for shard in shards), 0)
        found.append(
            NodeResources(
                node_id,
                node.name,
                node.device,
                free,
                has_weights,
                len(shards),
                sample.has_draft,
                mlx_links=sample.mlx_links,
            )
        )
    return tuple(found)
