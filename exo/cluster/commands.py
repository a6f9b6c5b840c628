"""What may be asked of the master, and what it decides: pure.

A command leads to events or is refused with an `ExoError`. One that was carried out already (its
id is in the state) leads to no events, so that it may safely be sent again.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, assert_never

from pydantic import Field, TypeAdapter

from exo.cluster.events import (
    Event,
    InstanceCreated,
    InstanceDeleted,
    InstancePinned,
    KeyCreated,
    KeyRevoked,
    NodeDraining,
)
from exo.cluster.keys import called_key, check_new
from exo.cluster.names import called
from exo.cluster.placement import LayerRange, NodeResources, Wanted, place
from exo.cluster.state import (
    ApiKey,
    ClusterState,
    Instance,
    Model,
    NodeInfo,
    Outcome,
    Placement,
    Sharding,
)
from exo.errors import InstanceNotFound, NodeNotFound, PlacementImpossible, RequestError
from exo.models.card import ModelCard


class CreateInstance(Model):
    """Place a model and serve it: where exo thinks best, or exactly as `placement` says."""

    type: Literal["create_instance"] = "create_instance"
    command_id: str
    instance_id: str
    card: ModelCard
    wanted: Wanted = Wanted()
    placement: Placement | None = None
    pinned: bool = True


class DeleteInstance(Model):
    type: Literal["delete_instance"] = "delete_instance"
    command_id: str
    instance_id: str


class DrainNode(Model):
    """Give a node no more instances, or again."""

    type: Literal["drain_node"] = "drain_node"
    command_id: str
    node_id: str
    draining: bool


class PinInstance(Model):
    """Have an instance stay until it is deleted, or not."""

    type: Literal["pin_instance"] = "pin_instance"
    command_id: str
    instance_id: str
    pinned: bool


class CreateKey(Model):
    """Take in a key: its secret stays with the node that made it."""

    type: Literal["create_key"] = "create_key"
    command_id: str
    key: ApiKey


class RevokeKey(Model):
    type: Literal["revoke_key"] = "revoke_key"
    command_id: str
    key_id: str


Command = Annotated[
    CreateInstance | DeleteInstance | PinInstance | DrainNode | CreateKey | RevokeKey,
    Field(discriminator="type"),
]
command_adapter: TypeAdapter[Command] = TypeAdapter(Command)


def decide(
    state: ClusterState, command: Command, nodes: Sequence[NodeResources], now: str
) -> list[Event]:
    """The events that carry out `command` at the time `now` (ISO 8601).

    Raises:
        PlacementImpossible: the model does not fit, or the placement is not one.
        InstanceNotFound, KeyNotFound: there is no such instance, or key.
        RequestError: the id is that of another command, or the name that of another key.
    """
    if done := state.commands.get(command.command_id):
        _check_same(command, done)
        return []
    match command:
        case CreateInstance():
            return [_created(state, command, nodes, now)]
        case DeleteInstance():
            find_instance(state, command.instance_id)
            return [InstanceDeleted(instance_id=command.instance_id, command_id=command.command_id)]
        case PinInstance(pinned=pinned):
            instance = find_instance(state, command.instance_id)
            if instance.pinned == pinned:
                return []
            return [InstancePinned(instance_id=instance.instance_id, pinned=pinned)]
        case DrainNode():
            node = find_node(state, command.node_id)
            if node.draining == command.draining:
                return []
            return [NodeDraining(node_id=node.node_id, draining=command.draining)]
        case CreateKey() | RevokeKey():
            return _decide_on_key(state, command)
        case _:
            assert_never(command)


def _created(
    state: ClusterState, command: CreateInstance, nodes: Sequence[NodeResources], now: str
) -> InstanceCreated:
    wanted = command.wanted
    if command.placement is not None:
        wanted = _confirmed(command, command.placement, nodes)
    instance = Instance(
        instance_id=command.instance_id,
        card=command.card,
        created_at=now,
        placement=place(command.card, wanted, nodes, state.links.values()),
        draft=command.wanted.draft,
        pinned=command.pinned,
    )
    return InstanceCreated(instance=instance, command_id=command.command_id)


def _decide_on_key(state: ClusterState, command: CreateKey | RevokeKey) -> list[Event]:
    match command:
        case CreateKey(key=key):
            if key.key_id in {*state.keys, *state.revoked}:
                return []
            check_new(state.keys.values(), key)
            return [KeyCreated(key=key)]
        case RevokeKey(key_id=key_id):
            if key_id in state.revoked:
                return []
            return [KeyRevoked(key_id=called_key(state.keys.values(), key_id).key_id)]
        case _:
            assert_never(command)


def is_done(state: ClusterState, command: Command) -> bool:
    """Whether the state shows that `command` was carried out."""
    match command:
        case DrainNode():
            node = state.nodes.get(command.node_id)
            return node is None or node.draining == command.draining
        case PinInstance():
            instance = state.instances.get(command.instance_id)
            return instance is None or instance.pinned == command.pinned
        case CreateKey():
            return command.key.key_id in {*state.keys, *state.revoked}
        case RevokeKey():
            return command.key_id in state.revoked
        case CreateInstance() | DeleteInstance():
            return command.command_id in state.commands


def find_node(state: ClusterState, name: str) -> NodeInfo:
    """The node that is called so; see `called`.

    Raises:
        NodeNotFound: there is none, or more than one.
    """
    found = called(state.nodes.values(), name)
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} nodes are called" if found else "There is no node"
    raise NodeNotFound(f"{what} '{name}'.", hint="`exo node list` shows them with their ids.")


def _check_same(command: Command, done: Outcome) -> None:
    """An id that comes again must be of the same command: it would seem to be carried out."""
    same = isinstance(command, CreateInstance) and done.kind == "created"
    if isinstance(command, DeleteInstance):
        same = done == Outcome(kind="deleted", instance_id=command.instance_id)
    if not same:
        raise RequestError(
            f"The idempotency key '{command.command_id}' was used for another command.",
            hint="Use a new key for each command.",
        )


def find_instance(state: ClusterState, instance_id: str) -> Instance:
    """The instance of that id.

    Raises:
        InstanceNotFound: there is none.
    """
    if instance := state.instances.get(instance_id):
        return instance
    raise InstanceNotFound(
        f"There is no instance '{instance_id}'.", hint="`exo instance list` shows them."
    )


def _confirmed(command: CreateInstance, asked: Placement, nodes: Sequence[NodeResources]) -> Wanted:
    """What a placement that a client sent asks for: its layers where it has them, with everything
    else computed anew."""
    card = command.card
    by_id = {node.node_id: node for node in nodes}
    if asked.model_id != card.model_id:
        raise _wrong(f"The placement is for {asked.model_id}, not for {card.model_id}.")
    shards = sorted(asked.shards, key=lambda shard: shard.rank)
    whole = asked.sharding is not Sharding.PIPELINE
    layers = [layer for s in shards for layer in range(s.start_layer, s.end_layer)]
    if whole and any(s.end_layer - s.start_layer != card.n_layers for s in shards):
        raise _wrong(f"With sharding {asked.sharding}, every shard must have all layers.")
    if not whole and layers != list(range(card.n_layers)):
        raise _wrong(f"The shards must cover layers 0 to {card.n_layers - 1} once each, in order.")
    for shard in shards:
        if shard.node_id not in by_id:
            raise _wrong(f"There is no node '{shard.node_id}' that takes instances.")
        if not by_id[shard.node_id].has_weights:
            name = by_id[shard.node_id].name
            raise _wrong(f"The weights of {card.model_id} are not on {name}.")
    ranges = tuple(
        LayerRange(node=s.node_id, start_layer=s.start_layer, end_layer=s.end_layer) for s in shards
    )
    ids = tuple(shard.node_id for shard in shards) if whole else ()
    return Wanted(
        sharding=asked.sharding,
        instance_meta=asked.instance_meta,
        context_length=asked.context_length,
        concurrency=asked.concurrency,
        kv_bits=command.wanted.kv_bits,
        draft=command.wanted.draft,
        nodes=ids,
        min_nodes=len(ids) or 1,
        max_nodes=len(ids) or None,
        layers=() if whole else ranges,
    )


def _wrong(message: str) -> PlacementImpossible:
    return PlacementImpossible(
        message, hint="GET /instance/placement computes one.", param="placement"
    )
