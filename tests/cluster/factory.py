"""Small states and events for tests, each with only what the test is about."""

from pathlib import Path

from exo.cluster.events import Entry, Event, InstanceCreated, NodeJoined, apply
from exo.cluster.placement import NodeResources
from exo.cluster.state import (
    ClusterState,
    Instance,
    InstanceMeta,
    LinkInfo,
    NodeInfo,
    Placement,
    Runner,
    RunnerStatus,
    Shard,
    Sharding,
)
from exo.device.profile import DeviceProfile
from exo.models.card import ModelCard
from exo.p2p.term import Term

TERM = Term(number=1, master_id="a")
GIB = 2**30


def device(kind: str = "cpu", flops: float = 1e11, bandwidth: float = 2e10) -> DeviceProfile:
    return DeviceProfile.model_validate(
        {
            "kind": kind,
            "name": "test",
            "cores": 2,
            "memory_total": 16 * GIB,
            "flops": {"float32": flops},
            "memory_bandwidth": bandwidth,
            "os": "Linux",
            "python": "3.11",
            "mlx": "0.32",
            "measured_at": "2026-01-01T00:00:00+00:00",
        }
    )


def resources(free: int = 8 * GIB, kind: str = "cpu", node_id: str = "a") -> NodeResources:
    return NodeResources(node_id, node_id, device(kind), free)


def card(model_id: str = "m", **fields: object) -> ModelCard:
    shape = {
        "family": "llama",
        "architecture": "llama",
        "n_layers": 4,
        "hidden_size": 64,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 16,
        "vocab_size": 100,
        "context_length": 2048,
        "storage_size": 1_000_000,
        "path": Path("/models/m"),
    }
    return ModelCard.model_validate({"model_id": model_id, **shape, **fields})


def placement(node_id: str = "a", layers: int = 4) -> Placement:
    shard = Shard(
        rank=0, node_id=node_id, start_layer=0, end_layer=layers, memory=1000, cast_float32=True
    )
    return Placement(
        model_id="m",
        sharding=Sharding.PIPELINE,
        instance_meta=InstanceMeta.LOCAL,
        context_length=2048,
        concurrency=4,
        kv_tokens=4096,
        shards=(shard,),
    )


def instance(instance_id: str = "i", node_id: str = "a") -> Instance:
    return Instance(
        instance_id=instance_id,
        card=card(),
        created_at="2026-01-01T00:00:00+00:00",
        placement=placement(node_id),
    )


def created(instance_id: str = "i", command_id: str = "c", node_id: str = "a") -> InstanceCreated:
    return InstanceCreated(instance=instance(instance_id, node_id), command_id=command_id)


def runner(instance_id: str = "i", status: RunnerStatus = RunnerStatus.READY, **fields) -> Runner:
    return Runner(runner_id="r", instance_id=instance_id, rank=0, status=status, **fields)


def node(node_id: str = "a", name: str = "a", **fields) -> NodeInfo:
    shape = {"version": "0", "address": "h:1", "started_at": "now"}
    return NodeInfo(node_id=node_id, name=name, **shape, **fields)


def entry(state: ClusterState, event: Event) -> Entry:
    return Entry(index=state.index + 1, term=TERM, time="2026-01-01T00:00:00+00:00", event=event)


def fold(*events: Event, state: ClusterState | None = None) -> ClusterState:
    """The state after these events, of a cluster with the node `a` if no state is given."""
    state = state or ClusterState(nodes={"a": node()})
    for event in events:
        state = apply(state, entry(state, event))
    return state


def link(
    node_id: str, peer_id: str, latency: float = 0.001, bandwidth: float | None = None
) -> LinkInfo:
    return LinkInfo(node_id=node_id, peer_id=peer_id, latency=latency, bandwidth=bandwidth)


JOINED_B = NodeJoined(node=node("b", "b"))
