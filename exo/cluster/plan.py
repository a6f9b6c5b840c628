"""From what is wanted to what to do: pure.

`plan` compares the instances in the state with this node's runners and says what to start and
stop, and when to look again. A runner that dies is started again, at once the first time and then
with growing pauses; one whose model is invalid is not, until the instance is made anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from exo.cluster.state import ClusterState, Instance, Shard, runner_key

# Seconds before the second, third, … restart in a row.
_PAUSES = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)
# A runner that was ready for this long has not failed in a row.
STEADY_SECONDS = 60.0
# After so many failures in a row an instance says that it has failed. It is tried again all the
# same: memory may be freed, a device may come back.
_HOPELESS = 3


@dataclass(frozen=True)
class Slot:
    """What this node knows of one of its shards."""

    alive: bool
    failures: int = 0
    failed_at: float = 0.0
    permanent: bool = False


@dataclass(frozen=True)
class StartRunner:
    instance: Instance
    shard: Shard


@dataclass(frozen=True)
class StopRunner:
    key: str


@dataclass(frozen=True)
class WakeAt:
    """Plan again at this time, if nothing happens before."""

    time: float


Action = StartRunner | StopRunner | WakeAt


def plan(state: ClusterState, node_id: str, slots: Mapping[str, Slot], now: float) -> list[Action]:
    """What this node should do. Slots are by `id/rank`; `now` is in seconds, monotonic."""
    actions: list[Action] = []
    wanted: set[str] = set()
    for instance in state.instances.values():
        for shard in instance.placement.shards:
            if shard.node_id != node_id:
                continue
            key = runner_key(instance.instance_id, shard.rank)
            wanted.add(key)
            slot = slots.get(key, Slot(alive=False))
            if slot.alive or slot.permanent:
                continue
            due = slot.failed_at + restart_pause(slot.failures) if slot.failures else now
            actions.append(StartRunner(instance, shard) if due <= now else WakeAt(due))
    actions += [StopRunner(key) for key in slots if key not in wanted]
    return actions


def is_hopeless(failures: int) -> bool:
    """Whether a runner with so many failures in a row is not to be waited for."""
    return failures >= _HOPELESS


def restart_pause(failures: int) -> float:
    """Seconds between the last of `failures` failures in a row and the next start."""
    return _PAUSES[min(max(failures - 1, 0), len(_PAUSES) - 1)]
