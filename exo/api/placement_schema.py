"""What a client may ask of a placement: fields, checked, and what they mean to `place`."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from exo.cluster.placement import LayerRange, Objective, Wanted
from exo.cluster.state import Draft, InstanceMeta, KvBits, Placement, Shard, Sharding
from exo.errors import RequestError
from exo.models.card import ModelCard

_RANGE = re.compile(r"(?P<node>.+)=(?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?")

NodesText = Annotated[
    str, Field(min_length=1, description="Names or ids of the only nodes to use: `a,b`.")
]
LayersText = Annotated[
    str,
    Field(min_length=1, description="Which node gets which layers, both ends: `a=0-9,b=10-15`."),
]


class GivenRange(BaseModel):
    """The layers [start_layer, end_layer) for a node, by its name or id."""

    model_config = ConfigDict(extra="forbid")

    node: str = Field(min_length=1)
    start_layer: int = Field(ge=0)
    end_layer: int = Field(ge=1)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1)
    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta | None = None
    objective: Objective = Objective.LATENCY
    min_nodes: int = Field(1, ge=1)
    max_nodes: int | None = Field(None, ge=1)
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, le=1024)
    kv_bits: KvBits | None = Field(None, description="Quantise keys and values to so many bits.")
    draft: str | None = Field(
        None,
        min_length=1,
        description="What guesses tokens ahead: a smaller model with the same tokens, or `ngram`.",
    )


class PlacementQuery(_Asked):
    """What is asked of a placement; exo chooses what is left out."""

    nodes: NodesText | None = None
    layers: LayersText | None = None


class PlacementBody(_Asked):
    """What is asked of a placement; exo chooses what is left out."""

    nodes: NodesText | list[str] | None = None
    layers: LayersText | list[GivenRange] | None = None


class GivenShard(BaseModel):
    model_config = ConfigDict(extra="ignore")

    rank: int = Field(ge=0)
    node_id: str
    start_layer: int = Field(ge=0)
    end_layer: int = Field(ge=1)


class GivenPlacement(BaseModel):
    """A placement as `GET /instance/placement` gives it. Memory is computed anew."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta | None = None
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, le=1024)
    shards: list[GivenShard] = []


def wanted(asked: PlacementQuery | PlacementBody, draft: Draft | None = None) -> Wanted:
    """
    Raises:
        RequestError: `layers` cannot be read.
    """
    apart = {"model_id", "nodes", "layers", "placement", "draft", "pin"}
    fields = asked.model_dump(exclude=apart)
    return Wanted(**fields, nodes=_nodes(asked.nodes), layers=_layers(asked.layers), draft=draft)


def given_placement(asked: PlacementBody, given: GivenPlacement, card: ModelCard) -> Placement:
    """The placement of a body; what it leaves open is as the body or the model says."""
    meta = InstanceMeta.LOCAL if len(given.shards) == 1 else InstanceMeta.TCP
    if given.sharding is Sharding.TENSOR:
        meta = InstanceMeta.MLX_RING
    return Placement(
        model_id=card.model_id,
        sharding=given.sharding,
        instance_meta=given.instance_meta or meta,
        context_length=given.context_length or asked.context_length or card.context_length,
        concurrency=given.concurrency or asked.concurrency or 1,
        kv_tokens=0,
        shards=tuple(Shard(**shard.model_dump(), memory=0) for shard in given.shards),
    )


def _nodes(asked: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(asked, str):
        asked = [name.strip() for name in asked.split(",")]
    return tuple(asked or ())


def _layers(asked: str | list[GivenRange] | None) -> tuple[LayerRange, ...]:
    if isinstance(asked, str):
        return tuple(_range(text.strip()) for text in asked.split(","))
    return tuple(LayerRange(**given.model_dump()) for given in asked or ())


def _range(text: str) -> LayerRange:
    """`box=0-9`, or `box=7` for a single layer."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"'{text}' is no range of layers.",
            hint="Such as a=0-9,b=10-15: both ends belong to the node.",
            param="layers",
        )
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return LayerRange(node=match["node"], start_layer=first, end_layer=last + 1)
