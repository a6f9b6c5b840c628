"""How far an instance is on its way to be ready: pure."""

from exo.cluster.state import ClusterState, Instance, Runner, RunnerStatus


def progress_of(state: ClusterState, instance: Instance) -> str:
    """'starting', 'loading 45%', 'warming', 'ready' or 'failed'."""
    status = state.status(instance)
    if status != "loading":
        return status
    shards = instance.placement.shards
    done = total = 0.0
    for shard in shards:
        layers = shard.end_layer - shard.start_layer
        total += layers
        done += layers * _share(state.runner(instance.instance_id, shard.rank))
    return f"loading {int(100 * done / total)}%" if done and total else "starting"


def _share(runner: Runner | None) -> float:
    """The share of its layers that a runner has."""
    if runner is None:
        return 0.0
    if runner.status in {RunnerStatus.WARMING, RunnerStatus.READY}:
        return 1.0
    return runner.done / runner.total if runner.total else 0.0
