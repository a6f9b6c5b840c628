"""The JSON that the cluster endpoints answer with, and how the state becomes it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from exo.api.context import Context
from exo.cluster.node import Node
from exo.cluster.state import (
    ClusterState,
    Instance,
    InstanceMeta,
    InstanceStatus,
    KvBits,
    LinkInfo,
    NodeInfo,
    Placement,
    RunnerStatus,
    Sharding,
)
from exo.device.profile import DeviceProfile, Memory
from exo.inference.messages import UNENCRYPTED, DraftStats
from exo.p2p.core import Member, Status
from exo.p2p.term import Term

OPEN_WARNING = "This cluster is open to everyone on its network. `exo cluster lock` closes it."
NO_KEYS = "The API takes a key, and there is none yet. `exo key create NAME` makes one."
NO_KEY_NEEDED = (
    "The API answers everyone who reaches it, without a key. `exo start` without --insecure ends "
    "that."
)


class View(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), serialize_by_alias=True)


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


class PlacedShardView(View):
    """The layers [start_layer, end_layer) of one rank, and the bytes that they need there."""

    rank: int
    node_id: str
    start_layer: int
    end_layer: int
    memory: int
    cast_float32: bool
    kv_dtype: Literal["", "float16", "bfloat16"]


class ShardView(PlacedShardView):
    runner: RunnerView | None


class RingView(View):
    """How a ring works, as it was some seconds ago: by rank, the seconds of a decode step and the
    share of the time that the rank computed (the rest are bubbles); the seconds of a hop; the
    sequences that decode, in how many micro-batches, and those that wait."""

    seconds: list[float]
    busy: list[float]
    hop: float
    rows: int
    groups: int
    waiting: int


class DraftsView(View):
    """Tokens that were guessed since the runner began, those of them that were right, and their
    share. `off` says why this model has no drafts though they were asked for."""

    guessed: int
    accepted: int
    acceptance: float | None
    off: str | None


class InstanceView(View):
    """A model that is placed. `encrypted` is about what its nodes send each other; None where they
    send nothing, or have not said so yet. One that is not `pinned` is unloaded when nobody uses it,
    or its place is needed."""

    instance_id: str
    model_id: str
    status: InstanceStatus
    reason: str | None
    created_at: str
    sharding: Sharding
    instance_meta: InstanceMeta
    context_length: int
    concurrency: int
    encrypted: bool | None
    kv_bits: KvBits | None
    draft: str | None
    pinned: bool
    shards: list[ShardView]
    ring: RingView | None
    drafts: DraftsView | None


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


class PlacementView(View):
    model_id: str
    sharding: Sharding
    instance_meta: InstanceMeta
    context_length: int
    concurrency: int
    kv_tokens: int
    kv_bits: KvBits | None
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


NodeStatus = Literal["online", "suspect", "lost", "draining"]


class NodeView(View):
    """A node. `address` is its API's, `links` are multiaddrs; `status` is as the node sees it that
    answers, `since` when, and `latency` the seconds of a round trip from there."""

    node_id: str
    name: str
    role: Literal["master", "node"]
    status: NodeStatus
    version: str
    address: str
    links: list[str]
    started_at: str
    since: str | None
    device: DeviceProfile | None
    memory: Memory | None
    latency: float | None


class LinkView(View):
    """What the node `from` measured: seconds of a round trip, bytes/s."""

    source: str = Field(serialization_alias="from")
    target: str = Field(serialization_alias="to")
    latency: float
    bandwidth: float | None


class TopologyView(View):
    nodes: list[NodeView]
    links: list[LinkView]


class ClusterView(View):
    """The cluster: `nodes` are those online, `refused` the links that the answering node refused,
    by reason, and `warning` what its owner should know."""

    name: str
    locked: bool
    nodes: int
    refused: dict[str, int]
    warning: str | None


class AccessView(View):
    """Whether the answering node's API takes a key, how many keys there are, and what its owner
    should know of it."""

    keys_required: bool
    keys: int
    note: str | None


class StateView(View):
    """The folded state of the cluster."""

    master_id: str | None
    term: Term | None
    index: int
    cluster: ClusterView
    access: AccessView
    topology: TopologyView
    instances: dict[str, InstanceView]
    downloads: list[dict[str, Any]]


def state_view(context: Context) -> StateView:
    state = context.node.state
    return StateView(
        master_id=state.term.master_id if state.term else None,
        term=state.term,
        index=state.index,
        cluster=cluster_view(context),
        access=_access_view(context),
        topology=TopologyView(
            nodes=[node_view(context.node, info) for info in state.nodes.values()],
            links=[_link_view(link) for link in state.links.values()],
        ),
        instances={i.instance_id: instance_view(context.node, i) for i in state.instances.values()},
        downloads=[],
    )


def _access_view(context: Context) -> AccessView:
    doors, keys = context.doors, context.node.state.keys
    note = None
    if doors.keys_required and not keys:
        note = NO_KEYS
    elif doors.beyond_loopback and not doors.keys_required:
        note = NO_KEY_NEEDED
    return AccessView(keys_required=doors.keys_required, keys=len(keys), note=note)


def cluster_view(context: Context) -> ClusterView:
    node, security = context.node, context.security
    is_open = not security.locked and any(map(_leaves_machine, node.network.listening))
    return ClusterView(
        name=security.name,
        locked=security.locked,
        nodes=sum(info.online for info in node.state.nodes.values()),
        refused=dict(node.network.refused),
        warning=OPEN_WARNING if is_open else None,
    )


def node_view(node: Node, info: NodeInfo) -> NodeView:
    term = node.state.term
    member = node.network.members.get(info.node_id)
    measure = node.network.measures.get(info.node_id)
    return NodeView(
        node_id=info.node_id,
        name=info.name,
        role="master" if term and info.node_id == term.master_id else "node",
        status=_node_status(info, member),
        version=info.version,
        address=info.address,
        # A node that moves tells its peers at once, and the log only when it follows anew.
        links=list(member.addresses if member and member.addresses else info.links),
        started_at=info.started_at,
        since=since(node, member) if member else None,
        device=info.device,
        memory=node.memory_of(info.node_id),
        latency=measure.latency if measure else None,
    )


def _node_status(info: NodeInfo, member: Member | None) -> NodeStatus:
    """What the cluster's log says, unless this node has seen worse already."""
    if not info.online or (member and member.status in {Status.DEAD, Status.LEFT}):
        return "lost"
    if member and member.status is Status.SUSPECT:
        return "suspect"
    return "draining" if info.draining else "online"


def _link_view(link: LinkInfo) -> LinkView:
    return LinkView(
        source=link.node_id, target=link.peer_id, latency=link.latency, bandwidth=link.bandwidth
    )


def _leaves_machine(address: str) -> bool:
    return not address.startswith(("/ip4/127.", "/ip6/::1/"))


def since(node: Node, member: Member) -> str:
    """When a member got its status, as ISO 8601. This node is what it is since its start."""
    if member.peer_id == node.options.node_id:
        return node.info.started_at
    return _wall_time(member.since)


def _wall_time(at: float) -> str:
    """A time of the event loop's clock."""
    ago = asyncio.get_running_loop().time() - at
    return (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds")


def instance_view(node: Node, instance: Instance) -> InstanceView:
    state, placement = node.state, instance.placement
    stats = node.ring_stats(instance)
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
        encrypted=_encrypted(state, instance),
        kv_bits=placement.kv_bits,
        draft=instance.draft.name if instance.draft else None,
        pinned=instance.pinned,
        shards=_shard_views(state, instance),
        ring=RingView(**stats.model_dump(exclude={"type"})) if stats else None,
        drafts=_drafts_view(node.draft_stats(instance)),
    )


def _encrypted(state: ClusterState, instance: Instance) -> bool | None:
    if instance.placement.instance_meta.group:
        return False
    head = state.runner(instance.instance_id, 0)
    if head is None or head.ring is None:
        return None
    return head.ring.facts.get("links") != UNENCRYPTED


def _drafts_view(stats: DraftStats | None) -> DraftsView | None:
    if stats is None:
        return None
    share = stats.accepted / stats.guessed if stats.guessed else None
    return DraftsView(**stats.model_dump(exclude={"type"}), acceptance=share)


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
