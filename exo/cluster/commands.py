"""What may be asked of the master, and what it decides: pure.

A command leads to events or is refused with an `ExoError`. One that was carried out already (its
id is in the state) leads to no events, so that it may safely be sent again.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, assert_never

from pydantic import Field, TypeAdapter

from exo.cluster.events import Event, InstanceCreated, InstanceDeleted, NodeDraining
from exo.cluster.names import called
from exo.cluster.placement import LayerRange, NodeResources, Wanted, place
from exo.cluster.state import (
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


Command = Annotated[CreateInstance | DeleteInstance | DrainNode, Field(discriminator="type")]
command_adapter: TypeAdapter[Command] = TypeAdapter(Command)


def decide(
    state: ClusterState, command: Command, nodes: Sequence[NodeResources], now: str
) -> list[Event]:
    """The events that carry out `command` at the time `now` (ISO 8601).

    Raises:
        PlacementImpossible: the model does not fit, or the placement is not one.
        InstanceNotFound: there is no such instance.
        RequestError: the id is that of another command.
    """
    if done := state.commands.get(command.command_id):
        _check_same(command, done)
        return []
    match command:
        case CreateInstance():
            if command.placement is None:
                placement = place(command.card, command.wanted, nodes, state.links.values())
            else:
                wanted = _confirmed(command, command.placement, nodes)
                placement = place(command.card, wanted, nodes, state.links.values())
            instance = Instance(
                instance_id=command.instance_id,
                card=command.card,
                created_at=now,
                placement=placement,
                draft=command.wanted.draft,
            )
            return [InstanceCreated(instance=instance, command_id=command.command_id)]
        case DeleteInstance():
            find_instance(state, command.instance_id)
            return [InstanceDeleted(instance_id=command.instance_id, command_id=command.command_id)]
        case DrainNode():
            node = find_node(state, command.node_id)
            if node.draining == command.draining:
                return []
            return [NodeDraining(node_id=node.node_id, draining=command.draining)]
        case _:
            assert_never(command)


def is_done(state: ClusterState, command: Command) -> bool:
    """Whether the state shows that `command` was carried out."""
    if isinstance(command, DrainNode):
        node = state.nodes.get(command.node_id)
        return node is None or node.draining == command.draining
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
