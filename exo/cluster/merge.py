"""Two states become one when a partition heals: pure.

Every node brings its copy of the state to a master it begins to follow. What the master does not
know of yet is taken in:

- An instance that was deleted on either side is deleted.
- Any other instance of either side stays. Two of one model are two replicas of it, so nothing
  that runs is unloaded.
- A command that was carried out on both sides (it was sent again to the other half, with the same
  idempotency key) made one instance too many. The master's stays; the other one goes if it never
  came to be ready, and stays as a replica if it did.
- A key that was revoked on either side is revoked; any other one of either side is good.
"""

from exo.cluster.events import StateMerged
from exo.cluster.state import ClusterState, Instance, Outcome


def merge(state: ClusterState, offered: ClusterState) -> StateMerged | None:
    """The event that takes what `offered` has into `state`; None if there is nothing new."""
    gone = set(state.deleted)
    deleted = {i for i in offered.deleted if i not in gone}
    adopted: list[Instance] = []
    for instance in offered.instances.values():
        known = instance.instance_id
        if known in state.instances or known in gone:
            continue
        if _is_twin(state, offered, instance) and offered.status(instance) != "ready":
            deleted.add(known)
        else:
            adopted.append(instance)
    commands: dict[str, Outcome] = {
        key: outcome for key, outcome in offered.commands.items() if key not in state.commands
    }
    void = set(state.revoked)
    revoked = sorted(set(offered.revoked) - void)
    keys = [k for k in offered.keys.values() if k.key_id not in {*state.keys, *void}]
    if not (deleted or adopted or commands or revoked or keys):
        return None
    return StateMerged(
        instances=tuple(adopted),
        deleted=tuple(sorted(deleted)),
        commands=commands,
        keys=tuple(keys),
        revoked=tuple(revoked),
    )


def _is_twin(state: ClusterState, offered: ClusterState, instance: Instance) -> bool:
    """Whether the command that made `instance` has made another one in `state`."""
    made = {k for k, o in offered.commands.items() if _created(o, instance.instance_id)}
    return any(
        outcome.kind == "created" and outcome.instance_id != instance.instance_id
        for key, outcome in state.commands.items()
        if key in made
    )


def _created(outcome: Outcome, instance_id: str) -> bool:
    return outcome.kind == "created" and outcome.instance_id == instance_id
