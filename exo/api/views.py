"""The JSON that the cluster endpoints answer with, and how the state becomes it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from exo.cluster.node import Node
from exo.cluster.state import (
    ClusterState,
    Instance,
    InstanceMeta,
    InstanceStatus,
    NodeInfo,
    Placement,
    RunnerStatus,
    Sharding,
    Term,
)
from exo.device.profile import DeviceProfile, Memory


class View(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorBody(View):
    message: str
    type: str
    param: str | None
    code: str


class ErrorView(View):
    """OpenAI's error object."""

    error: ErrorBody


class StatusView(View):
    status: Literal["ok", "ready"]


class NodeIdView(View):
    """The master's id."""

    node_id: str


class RunnerView(View):
    runner_id: str
    status: RunnerStatus
    done: int
    total: int
    pid: int | None
    error: str | None
    restarts: int


class ShardView(View):
    """The layers [start_layer, end_layer) of one rank."""

    rank: int
    node_id: str
    start_layer: int
    end_layer: int
    memory: int
    runner: RunnerView | None


class InstanceView(View):
    instance_id: str
    model_id: str
    status: InstanceStatus
    reason: str | None
    created_at: str
    sharding: Sharding
    instance_meta: InstanceMeta
    context_length: int
    concurrency: int
    shards: list[ShardView]


class CreatedView(InstanceView):
    """The new instance, with what became of the command."""

    message: str
    command_id: str
    model_card: dict[str, Any]


class DeletedView(View):
    message: str
    command_id: str
    instance_id: str


class InstanceListView(View):
    object: Literal["list"] = "list"
    data: list[InstanceView]


class PlacedShardView(View):
    rank: int
    node_id: str
    start_layer: int
    end_layer: int
    memory: int


class PlacementView(View):
    model_id: str
    sharding: Sharding
    instance_meta: InstanceMeta
    context_length: int
    concurrency: int
    kv_tokens: int
    cast_float32: bool
    shards: list[PlacedShardView]
    memory_by_node: dict[str, int]
    prefill_tps: float | None
    decode_tps: float | None


class PreviewView(View):
    """One way to place a model, or why it is not possible."""

    model_id: str
    sharding: Sharding
    instance_meta: InstanceMeta
    min_nodes: int
    instance: PlacementView | None
    memory_delta_by_node: dict[str, int] | None
    error: str | None


class NodeView(View):
    node_id: str
    name: str
    role: Literal["master", "node"]
    version: str
    address: str
    started_at: str
    device: DeviceProfile | None
    memory: Memory | None


class TopologyView(View):
    nodes: list[NodeView]
    links: list[dict[str, Any]]


class ClusterView(View):
    name: str
    locked: bool
    nodes: int


class StateView(View):
    """The folded state of the cluster."""

    master_id: str | None
    term: Term | None
    index: int
    cluster: ClusterView
    topology: TopologyView
    instances: dict[str, InstanceView]
    downloads: list[dict[str, Any]]


def state_view(node: Node, cluster_name: str) -> StateView:
    state = node.state
    master_id = state.term.master_id if state.term else None
    return StateView(
        master_id=master_id,
        term=state.term,
        index=state.index,
        cluster=ClusterView(name=cluster_name, locked=False, nodes=len(state.nodes)),
        topology=TopologyView(
            nodes=[_node_view(info, node, master_id) for info in state.nodes.values()], links=[]
        ),
        instances={i.instance_id: instance_view(state, i) for i in state.instances.values()},
        downloads=[],
    )


def _node_view(info: NodeInfo, node: Node, master_id: str | None) -> NodeView:
    return NodeView(
        node_id=info.node_id,
        name=info.name,
        role="master" if info.node_id == master_id else "node",
        version=info.version,
        address=info.address,
        started_at=info.started_at,
        device=info.device,
        memory=node.memory() if info.node_id == node.options.node_id else None,
    )


def instance_view(state: ClusterState, instance: Instance) -> InstanceView:
    placement = instance.placement
    return InstanceView(
        instance_id=instance.instance_id,
        model_id=instance.card.model_id,
        status=state.status(instance),
        reason=state.reason(instance),
        created_at=instance.created_at,
        sharding=placement.sharding,
        instance_meta=placement.instance_meta,
        context_length=placement.context_length,
        concurrency=placement.concurrency,
        shards=_shard_views(state, instance),
    )


def _shard_views(state: ClusterState, instance: Instance) -> list[ShardView]:
    views: list[ShardView] = []
    for shard in instance.placement.shards:
        runner = state.runner(instance.instance_id, shard.rank)
        view = None
        if runner is not None:
            view = RunnerView(**runner.model_dump(include=set(RunnerView.model_fields)))
        views.append(ShardView(**shard.model_dump(), runner=view))
    return views


def placement_view(placement: Placement) -> PlacementView:
    return PlacementView(**placement.model_dump(), memory_by_node=placement.memory_by_node)
