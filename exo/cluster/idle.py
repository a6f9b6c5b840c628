"""Which instances are unloaded because nobody uses them, and when to look again: pure.

Only those that are not pinned: what a person created stays until they delete it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from exo.cluster.state import ClusterState, Instance

# What was placed for a request that has not begun yet is not unloaded before it can.
FIRST_USE_SECONDS = 30.0


@dataclass(frozen=True)
class Use:
    """Of an instance whose rank 0 is here: how many requests it is working on, when that changed
    last (seconds, monotonic), whether it ever had one, and the seconds that the last one wants it
    kept for (below 0: for ever; None: as the setting says). One that is `leaving` takes none."""

    since: float
    open: int = 0
    used: bool = False
    keep_alive: float | None = None
    leaving: bool = False


@dataclass(frozen=True)
class IdlePlan:
    """What to unload now, and when there may be more."""

    unload: tuple[str, ...]
    wake: float | None


def plan_idle(
    state: ClusterState, uses: Mapping[str, Use], keep_alive: float, now: float
) -> IdlePlan:
    """`keep_alive` is the setting, in seconds, below 0 for ever."""
    unload: list[str] = []
    wakes: list[float] = []
    for name, use in uses.items():
        instance = state.instances.get(name)
        if instance is None or use.leaving or use.open or not may_go(state, instance):
            continue
        limit = limit_of(use, keep_alive)
        if limit is None:
            continue
        if use.since + limit <= now:
            unload.append(name)
        else:
            wakes.append(use.since + limit)
    return IdlePlan(tuple(unload), min(wakes, default=None))


def limit_of(use: Use | None, keep_alive: float) -> float | None:
    """Seconds without a request after which an instance goes; None for never. Without a `use`, as
    the setting says."""
    limit = keep_alive if use is None or use.keep_alive is None else use.keep_alive
    if limit < 0:
        return None
    return max(limit, FIRST_USE_SECONDS) if use and not use.used else limit


def may_go(state: ClusterState, instance: Instance) -> bool:
    """Whether exo itself may unload an instance: it is not pinned, and not on its way either."""
    return not instance.pinned and is_settled(state, instance)


def is_settled(state: ClusterState, instance: Instance) -> bool:
    """Whether it is not on its way to be ready."""
    return state.status(instance) in {"ready", "failed"}
