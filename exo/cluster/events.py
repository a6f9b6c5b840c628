"""What has happened, and how the state follows from it.

`apply` is pure: every node folds the same log to the same state.
"""

from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, TypeAdapter

from exo.cluster.state import (
    ClusterState,
    Instance,
    Model,
    NodeInfo,
    Outcome,
    Runner,
    Term,
    runner_key,
)
from exo.device.profile import DeviceProfile

# Enough to recognise a command that is sent again after its answer was lost.
COMMANDS_KEPT = 256


class MasterElected(Model):
    type: Literal["MasterElected"] = "MasterElected"
    term: Term


class NodeJoined(Model):
    """A daemon has started; runners of its earlier life are gone."""

    type: Literal["NodeJoined"] = "NodeJoined"
    node: NodeInfo


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


class RunnerChanged(Model):
    type: Literal["RunnerChanged"] = "RunnerChanged"
    runner: Runner


Event = Annotated[
    MasterElected | NodeJoined | NodeMeasured | InstanceCreated | InstanceDeleted | RunnerChanged,
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
        event = self.event.model_dump(mode="json")
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
            known = state.nodes.get(node.node_id)
            if node.device is None and known is not None:
                node = node.model_copy(update={"device": known.device})
            gone = _runner_keys_on(state, node.node_id)
            return {
                "nodes": {**state.nodes, node.node_id: node},
                "runners": {key: r for key, r in state.runners.items() if key not in gone},
            }
        case NodeMeasured():
            node = state.nodes[event.node_id].model_copy(update={"device": event.device})
            return {"nodes": {**state.nodes, event.node_id: node}}
        case InstanceCreated(instance=instance):
            return {
                "instances": {**state.instances, instance.instance_id: instance},
                "commands": _remember(state, event.command_id, "created", instance.instance_id),
            }
        case InstanceDeleted(instance_id=instance_id):
            return {
                "instances": {k: v for k, v in state.instances.items() if k != instance_id},
                "runners": {k: r for k, r in state.runners.items() if r.instance_id != instance_id},
                "commands": _remember(state, event.command_id, "deleted", instance_id),
            }
        case RunnerChanged(runner=runner):
            if runner.instance_id not in state.instances:
                return {}
            key = runner_key(runner.instance_id, runner.rank)
            return {"runners": {**state.runners, key: runner}}
        case _:
            assert_never(event)


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
