"""The replicated state: what the log of events folds to.

What is in it: nodes, instances (desired) and runners (actual). What is never in it: prompts,
tokens, secrets, and what changes all the time (free memory is asked for when it is needed). Of an
API key it has what was made of its secret, which proves the secret and does not tell it.
"""

from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from exo.device.profile import DeviceProfile
from exo.models.card import ModelCard
from exo.p2p.term import Term


class Model(BaseModel):
    """Base of everything in the state and the log: immutable, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NodeInfo(Model):
    """A device that runs the daemon.

    `address` is where its API listens, `links` are the multiaddrs that other nodes reach it at;
    `boot` is unlike in any other run of a daemon. An offline node is kept while something is
    placed on it. A draining node gets no new instances.
    """

    node_id: str
    name: str
    version: str
    address: str
    started_at: str
    boot: str = ""
    links: tuple[str, ...] = ()
    device: DeviceProfile | None = None
    online: bool = True
    draining: bool = False


class LinkInfo(Model):
    """What `node_id` measured of its link to `peer_id`: round trip in seconds, bytes/s."""

    node_id: str
    peer_id: str
    latency: float
    bandwidth: float | None = None


class _Named(StrEnum):
    """Read in any case, and without the underscores: clients of others write `MlxRing`."""

    @classmethod
    def _missing_(cls, value: object) -> "_Named | None":
        plain = str(value).lower().replace("_", "")
        return next((each for each in cls if each.value.replace("_", "") == plain), None)


class Sharding(_Named):
    """Each node some of the layers, or a part of every layer; or, of an image model with guidance,
    all of them for one of the two passes that a step is."""

    PIPELINE = "pipeline"
    TENSOR = "tensor"
    GUIDANCE = "guidance"


class InstanceMeta(_Named):
    """What carries the activations between the shards: exo's own encrypted links, or a backend of
    `mx.distributed`."""

    LOCAL = "local"
    TCP = "tcp"
    MLX_RING = "mlx_ring"
    MLX_JACCL = "mlx_jaccl"
    MLX_NCCL = "mlx_nccl"

    @property
    def group(self) -> Literal["", "ring", "jaccl", "nccl"]:
        """The backend, as `mx.distributed` calls it."""
        match self:
            case InstanceMeta.MLX_RING:
                return "ring"
            case InstanceMeta.MLX_JACCL:
                return "jaccl"
            case InstanceMeta.MLX_NCCL:
                return "nccl"
            case _:
                return ""


class Shard(Model):
    """The layers [start_layer, end_layer) of one rank, and the bytes they need on their node:
    weights, KV cache and working space. Half precision becomes float32 with `cast_float32`, but for
    keys and values if they have a `kv_dtype`."""

    rank: int
    node_id: str
    start_layer: int
    end_layer: int
    memory: int
    cast_float32: bool = False
    kv_dtype: Literal["", "float16", "bfloat16"] = ""


class KvBits(IntEnum):
    """Bits of a number in a quantised KV cache."""

    FOUR = 4
    EIGHT = 8


class Draft(Model):
    """What guesses tokens ahead, on the node of rank 0: the model of `card`, or, without one, what
    was said before (`NGRAM`)."""

    name: str
    card: ModelCard | None = None


NGRAM = "ngram"


class Placement(Model):
    """The plan for an instance: which node computes which layers.

    `kv_tokens` is the KV memory in tokens, over all sequences, of `kv_bits` if it is
    quantised. The speeds are predictions in tokens/s for one stream, None where a node has not been
    measured.
    """

    model_id: str
    sharding: Sharding
    instance_meta: InstanceMeta
    context_length: int
    concurrency: int
    kv_tokens: int
    shards: tuple[Shard, ...]
    prefill_tps: float | None = None
    decode_tps: float | None = None
    kv_bits: KvBits | None = None

    @property
    def memory_by_node(self) -> dict[str, int]:
        return {shard.node_id: shard.memory for shard in self.shards}


class Instance(Model):
    """A model placed and served: what is wanted. One that is not `pinned` is unloaded when nobody
    uses it, or to make room."""

    instance_id: str
    card: ModelCard
    created_at: str
    placement: Placement
    draft: Draft | None = None
    pinned: bool = True


class RunnerStatus(StrEnum):
    """A runner of several is `connecting` while it waits for the others of its ring."""

    STARTING = "starting"
    CONNECTING = "connecting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


class RingEnd(Model):
    """Where a runner takes the link of the rank before: its port, the certificate (PEM) that it
    shows there, and what all ranks must have in common."""

    port: int
    certificate: str
    facts: dict[str, str]


class Runner(Model):
    """The process that computes one shard: what is. Progress counts layers while loading;
    `memory` are the bytes of its weights once they are loaded."""

    runner_id: str
    instance_id: str
    rank: int
    status: RunnerStatus
    done: int = 0
    total: int = 0
    memory: int = 0
    pid: int | None = None
    error: str | None = None
    restarts: int = 0
    ring: RingEnd | None = None


class Scope(StrEnum):
    """What an API key is good for: to use models, or for everything."""

    INFERENCE = "inference"
    ADMIN = "admin"


class ApiKey(Model):
    """A key of the API, without its secret.

    `models` are names of the only models it may use, all if there are none; `rate` is how many
    requests a minute may ask for answers. Times are ISO 8601, `last_used` to the hour.
    """

    key_id: str
    name: str
    scope: Scope
    hashed_secret: str
    created_at: str
    models: tuple[str, ...] = ()
    rate: int | None = None
    last_used: str | None = None


class Outcome(Model):
    """What became of a command that was carried out."""

    kind: Literal["created", "deleted"]
    instance_id: str


InstanceStatus = Literal["downloading", "loading", "warming", "ready", "failed"]


class ClusterState(Model):
    """The fold of the log up to `index`, whose last entry is of `term`.

    Runners are by (instance_id, rank), as `id/rank`; links by the two node ids, as `id/id`.
    `deleted` are ids of instances, `revoked` of API keys, so that a copy of the state that is older
    does not bring them back.
    """

    index: int = 0
    term: Term | None = None
    nodes: dict[str, NodeInfo] = {}
    links: dict[str, LinkInfo] = {}
    instances: dict[str, Instance] = {}
    runners: dict[str, Runner] = {}
    commands: dict[str, Outcome] = {}
    deleted: tuple[str, ...] = ()
    keys: dict[str, ApiKey] = {}
    revoked: tuple[str, ...] = ()

    def runner(self, instance_id: str, rank: int) -> Runner | None:
        return self.runners.get(runner_key(instance_id, rank))

    def status(self, instance: Instance) -> InstanceStatus:
        """The status of the least advanced shard; one that failed fails the instance, and so
        does a node that is gone."""
        if self.lost_nodes(instance):
            return "failed"
        runners = [self.runner(instance.instance_id, s.rank) for s in instance.placement.shards]
        found = {RunnerStatus.STARTING if runner is None else runner.status for runner in runners}
        if RunnerStatus.FAILED in found:
            return "failed"
        if found & {RunnerStatus.STARTING, RunnerStatus.CONNECTING, RunnerStatus.LOADING}:
            return "loading"
        return "warming" if RunnerStatus.WARMING in found else "ready"

    def lost_nodes(self, instance: Instance) -> list[str]:
        """Names of the instance's nodes that are not in the cluster now."""
        lost: list[str] = []
        for shard in instance.placement.shards:
            node = self.nodes.get(shard.node_id)
            if node is None or not node.online:
                lost.append(node.name if node else shard.node_id)
        return lost

    def reason(self, instance: Instance) -> str | None:
        """Why an instance failed, or why it is not ready again yet."""
        if lost := self.lost_nodes(instance):
            return f"{' and '.join(lost)} cannot be reached; it comes back with its node."
        runners = [self.runner(instance.instance_id, s.rank) for s in instance.placement.shards]
        troubled = [runner for runner in runners if runner is not None and runner.error]
        # The others only say that they cannot reach the one that failed.
        troubled.sort(key=lambda runner: runner.status is not RunnerStatus.FAILED)
        return troubled[0].error if troubled else None


def runner_key(instance_id: str, rank: int) -> str:
    return f"{instance_id}/{rank}"


def link_key(node_id: str, peer_id: str) -> str:
    return f"{node_id}/{peer_id}"
