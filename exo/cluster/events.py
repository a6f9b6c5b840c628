"""What has happened, and how the state follows from it.

`apply` is pure: every node folds the same log to the same state.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, assert_never, cast

from pydantic import Field, TypeAdapter

from exo.cluster.state import (
    ApiKey,
    ClusterState,
    Instance,
    LinkInfo,
    Model,
    NodeInfo,
    Outcome,
    Runner,
    link_key,
    runner_key,
)
from exo.device.profile import DeviceProfile
from exo.p2p.term import Term

# Enough to recognise a command that is sent again after its answer was lost.
COMMANDS_KEPT = 256
# Enough to outlast the absence of a node that missed that they were deleted.
DELETED_KEPT = 4096
# What only the cluster itself needs to see of an event.
_UNTOLD = "hashed_secret"


class MasterElected(Model):
    type: Literal["MasterElected"] = "MasterElected"
    term: Term


class NodeJoined(Model):
    """A node is here (again). With another `boot` than before, its earlier runners are gone."""

    type: Literal["NodeJoined"] = "NodeJoined"
    node: NodeInfo


class NodeLost(Model):
    """A node has left, or cannot be reached any more."""

    type: Literal["NodeLost"] = "NodeLost"
    node_id: str
    left: bool


class NodeDraining(Model):
    """Whether a node gets new instances."""

    type: Literal["NodeDraining"] = "NodeDraining"
    node_id: str
    draining: bool


class NodeMeasured(Model):
    type: Literal["NodeMeasured"] = "NodeMeasured"
    node_id: str
    device: DeviceProfile


class InstanceCreated(Model):
    type: Literal["InstanceCreated"] = "InstanceCreated"
    instance: Instance
    command_id: str


class InstanceDeleted(Model):
    type: Literal["InstanceDeleted"] = "InstanceDeleted"
    instance_id: str
    command_id: str


class InstancePinned(Model):
    """Whether an instance stays until somebody deletes it."""

    type: Literal["InstancePinned"] = "InstancePinned"
    instance_id: str
    pinned: bool


class StateMerged(Model):
    """What a node brought that followed another master; see `merge`."""

    type: Literal["StateMerged"] = "StateMerged"
    instances: tuple[Instance, ...]
    deleted: tuple[str, ...]
    commands: dict[str, Outcome]
    keys: tuple[ApiKey, ...] = ()
    revoked: tuple[str, ...] = ()


class LinksMeasured(Model):
    type: Literal["LinksMeasured"] = "LinksMeasured"
    links: tuple[LinkInfo, ...]


class RunnerChanged(Model):
    type: Literal["RunnerChanged"] = "RunnerChanged"
    runner: Runner


class KeyCreated(Model):
    type: Literal["KeyCreated"] = "KeyCreated"
    key: ApiKey


class KeyRevoked(Model):
    type: Literal["KeyRevoked"] = "KeyRevoked"
    key_id: str


class KeysUsed(Model):
    """When keys were used last, by their ids, in ISO 8601."""

    type: Literal["KeysUsed"] = "KeysUsed"
    used: dict[str, str]


Event = Annotated[
    MasterElected
    | NodeJoined
    | NodeLost
    | NodeDraining
    | NodeMeasured
    | LinksMeasured
    | InstanceCreated
    | InstanceDeleted
    | InstancePinned
    | StateMerged
    | RunnerChanged
    | KeyCreated
    | KeyRevoked
    | KeysUsed,
    Field(discriminator="type"),
]
event_adapter: TypeAdapter[Event] = TypeAdapter(Event)


class Entry(Model):
    """One place in the log. `time` is ISO 8601, UTC, set by the master that appended it."""

    index: int
    term: Term
    time: str
    event: Event

    def to_api(self) -> dict[str, Any]:
        """The object of `GET /events`: the entry's fields, then the event's."""
        event: dict[str, Any] = _told(self.event.model_dump(mode="json"))
        head = {"index": self.index, "term": self.term.model_dump(), "time": self.time}
        return {**head, "type": event.pop("type"), **event}


def apply(state: ClusterState, entry: Entry) -> ClusterState:
    """The state after `entry`.

    Raises:
        ValueError: it is not the next entry.
    """
    if entry.index != state.index + 1:
        raise ValueError(f"entry {entry.index} does not follow {state.index}")
    changed = _changes(state, entry.event)
    return state.model_copy(update={**changed, "index": entry.index})


def _changes(state: ClusterState, event: Event) -> dict[str, Any]:
    match event:
        case MasterElected():
            return {"term": event.term}
        case NodeJoined(node=node):
            return _joined(state, node)
        case NodeLost():
            return _lost(state, event.node_id)
        case NodeDraining():
            return _with_node(state, event.node_id, draining=event.draining)
        case NodeMeasured():
            return _with_node(state, event.node_id, device=event.device)
        case LinksMeasured():
            known = [x for x in event.links if {x.node_id, x.peer_id} <= state.nodes.keys()]
            return {"links": {**state.links, **{link_key(x.node_id, x.peer_id): x for x in known}}}
        case InstanceCreated() | InstanceDeleted() | InstancePinned():
            return _of_instances(state, event)
        case StateMerged():
            return _merged(state, event)
        case RunnerChanged(runner=runner):
            if runner.instance_id not in state.instances:
                return {}
            key = runner_key(runner.instance_id, runner.rank)
            return {"runners": {**state.runners, key: runner}}
        case _:
            return _of_keys(state, event)


def _of_instances(
    state: ClusterState, event: InstanceCreated | InstanceDeleted | InstancePinned
) -> dict[str, Any]:
    match event:
        case InstanceCreated(instance=instance):
            return {
                "instances": {**state.instances, instance.instance_id: instance},
                "commands": _remember(state, event.command_id, "created", instance.instance_id),
            }
        case InstanceDeleted(instance_id=instance_id):
            return {
                **_without(state, (instance_id,)),
                "commands": _remember(state, event.command_id, "deleted", instance_id),
            }
        case InstancePinned(instance_id=instance_id, pinned=pinned):
            instance = state.instances.get(instance_id)
            if instance is None:
                return {}
            instance = instance.model_copy(update={"pinned": pinned})
            return {"instances": {**state.instances, instance_id: instance}}
        case _:
            assert_never(event)


def _of_keys(state: ClusterState, event: KeyCreated | KeyRevoked | KeysUsed) -> dict[str, Any]:
    match event:
        case KeyCreated(key=key):
            return {"keys": {**state.keys, key.key_id: key}}
        case KeyRevoked(key_id=key_id):
            return _without_keys(state, (key_id,))
        case KeysUsed(used=used):
            known = {k: key for k in used if (key := state.keys.get(k)) is not None}
            changed = {k: key.model_copy(update={"last_used": used[k]}) for k, key in known.items()}
            return {"keys": {**state.keys, **changed}}
        case _:
            assert_never(event)


def _without_keys(state: ClusterState, key_ids: tuple[str, ...]) -> dict[str, Any]:
    return {
        "keys": {k: key for k, key in state.keys.items() if k not in key_ids},
        "revoked": (*state.revoked, *key_ids)[-DELETED_KEPT:],
    }


def _told(value: Any) -> Any:
    """An event's JSON without what is not for everyone who may read the log."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _told(each) for name, each in fields.items() if name != _UNTOLD}
    return [_told(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


def _joined(state: ClusterState, node: NodeInfo) -> dict[str, Any]:
    known = state.nodes.get(node.node_id)
    if known is not None:
        kept = {"draining": known.draining, "device": node.device or known.device}
        node = node.model_copy(update=kept)
    changes: dict[str, Any] = {"nodes": {**state.nodes, node.node_id: node}}
    if known is None or known.boot != node.boot:
        gone = _runner_keys_on(state, node.node_id)
        changes["runners"] = {key: r for key, r in state.runners.items() if key not in gone}
    return changes


def _lost(state: ClusterState, node_id: str) -> dict[str, Any]:
    """A node is remembered for what is placed on it, and else forgotten."""
    links = {k: x for k, x in state.links.items() if node_id not in {x.node_id, x.peer_id}}
    if _placed_on(state.instances, node_id):
        return {**_with_node(state, node_id, online=False), "links": links}
    return {"nodes": {k: n for k, n in state.nodes.items() if k != node_id}, "links": links}


def _with_node(state: ClusterState, node_id: str, **changes: object) -> dict[str, Any]:
    if node_id not in state.nodes:
        return {}
    node = state.nodes[node_id].model_copy(update=changes)
    return {"nodes": {**state.nodes, node_id: node}}


def _without(state: ClusterState, instance_ids: tuple[str, ...]) -> dict[str, Any]:
    """The state without these instances, their runners, and nodes that only they kept."""
    instances = {k: v for k, v in state.instances.items() if k not in instance_ids}
    return {
        "instances": instances,
        "runners": {k: r for k, r in state.runners.items() if r.instance_id not in instance_ids},
        "nodes": {k: n for k, n in state.nodes.items() if n.online or _placed_on(instances, k)},
        "deleted": (*state.deleted, *instance_ids)[-DELETED_KEPT:],
    }


def _merged(state: ClusterState, event: StateMerged) -> dict[str, Any]:
    changes = _without(state, event.deleted)
    adopted = {instance.instance_id: instance for instance in event.instances}
    commands = {**event.commands, **state.commands}
    keys = _without_keys(state, event.revoked)
    adopted_keys = {key.key_id: key for key in event.keys}
    return {
        **changes,
        "keys": {**keys["keys"], **adopted_keys},
        "revoked": keys["revoked"],
        "instances": {**changes["instances"], **adopted},
        "commands": dict(list(commands.items())[-COMMANDS_KEPT:]),
    }


def _placed_on(instances: Mapping[str, Instance], node_id: str) -> bool:
    return any(s.node_id == node_id for i in instances.values() for s in i.placement.shards)


def _runner_keys_on(state: ClusterState, node_id: str) -> set[str]:
    return {
        runner_key(instance.instance_id, shard.rank)
        for instance in state.instances.values()
        for shard in instance.placement.shards
        if shard.node_id == node_id
    }


def _remember(
    state: ClusterState, command_id: str, kind: Literal["created", "deleted"], instance_id: str
) -> dict[str, Outcome]:
    kept = list(state.commands.items())[-(COMMANDS_KEPT - 1) :]
    return {**dict(kept), command_id: Outcome(kind=kind, instance_id=instance_id)}
