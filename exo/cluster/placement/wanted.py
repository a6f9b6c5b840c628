"""What is asked of a placement, and what a node can give."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from exo.cluster.state import Draft, InstanceMeta, KvBits, Model, Sharding
from exo.device.profile import DeviceProfile


class Objective(StrEnum):
    """Least time per token of one stream, or the shortest slowest stage."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class LayerRange(Model):
    """The layers [start_layer, end_layer) for a node, given by its name, id or the id's end."""

    node: str
    start_layer: int = Field(ge=0)
    end_layer: int = Field(ge=1)


class Wanted(Model):
    """What is asked of a placement. None, or nothing, leaves the choice to exo.

    `nodes` are the only ones that may be used, by name, id or the id's end; `layers` says which
    node gets which layers, in order.
    """

    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta | None = None
    objective: Objective = Objective.LATENCY
    min_nodes: int = Field(default=1, ge=1)
    max_nodes: int | None = Field(default=None, ge=1)
    nodes: tuple[str, ...] = ()
    layers: tuple[LayerRange, ...] = ()
    context_length: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1, le=1024)
    kv_bits: KvBits | None = None
    draft: Draft | None = None

    @property
    def linked(self) -> bool:
        """Whether it can only be over two nodes or more."""
        meta = self.instance_meta
        whole = self.sharding is Sharding.PIPELINE
        return not whole or meta not in {None, InstanceMeta.LOCAL}

    @property
    def grouped(self) -> bool:
        """Whether its nodes are linked by `mx.distributed`."""
        asked = self.instance_meta is not None and self.instance_meta.group != ""
        return self.sharding is Sharding.TENSOR or asked


@dataclass(frozen=True)
class NodeResources:
    """What one node can give: `free_memory` in bytes, of the device that computes; whether the
    model's weights are there, and those of the draft model; how many shards lie on it, which share
    its speed; and whether its owner allows links of `mx.distributed`."""

    node_id: str
    name: str
    device: DeviceProfile | None
    free_memory: int
    has_weights: bool = True
    shards: int = 0
    has_draft: bool = True
    mlx_links: bool = False

    @property
    def on_cpu(self) -> bool:
        return self.device is None or self.device.kind == "cpu"
