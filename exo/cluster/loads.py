"""What runners are started and loaded with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exo.cluster import groups
from exo.cluster.state import Instance, Shard, Sharding
from exo.inference.messages import Load


@dataclass(frozen=True)
class WorkerOptions:
    """What runners are started with; `environment` is added to the daemon's own. `mlx_links` says
    whether they may be linked by `mx.distributed`."""

    node_id: str
    engine: str
    environment: Mapping[str, str]
    spare_runners: int
    prefix_cache_bytes: int
    max_queue: int
    ring_host: str = "127.0.0.1"
    ring_encrypted: bool = True
    mlx_links: bool = False


def load_message(instance: Instance, shard: Shard, path: Path, options: WorkerOptions) -> Load:
    """What tells a runner which shard of an instance it has, and how it is to compute it."""
    placement = instance.placement
    layers = shard.end_layer - shard.start_layer
    wide = instance.card.dtype == "float32" or (shard.cast_float32 and not shard.kv_dtype)
    bits = placement.kv_bits
    whole = instance.card.kv_bytes_per_token(4 if wide else 2, bits)
    per_token = whole * layers // instance.card.n_layers
    load = Load(
        path=path,
        start_layer=shard.start_layer,
        end_layer=shard.end_layer,
        context_length=placement.context_length,
        max_concurrency=placement.concurrency,
        max_queue=options.max_queue,
        kv_tokens=placement.kv_tokens,
        kv_bytes_per_token=max(1, per_token // groups.kept_part(instance)),
        prefix_cache_bytes=options.prefix_cache_bytes,
        cast_float32=shard.cast_float32,
        kv_dtype=shard.kv_dtype,
        rank=shard.rank,
        size=len(placement.shards),
        ring_host=options.ring_host,
        ring_encrypted=options.ring_encrypted,
        plan=_plan(instance),
        kv_bits=int(bits) if bits else None,
        draft=instance.draft.name if instance.draft and shard.rank == 0 else None,
        variant=instance.card.architecture if instance.card.image else "",
        encoder=instance.card.encodes,
        guidance=placement.sharding is Sharding.GUIDANCE,
    )
    return load.model_copy(update=groups.fields(instance))


def _plan(instance: Instance) -> str:
    placement = instance.placement
    if placement.sharding is Sharding.GUIDANCE:
        return "one pass of a step for each"
    return " ".join(f"{s.start_layer}-{s.end_layer}" for s in placement.shards)
