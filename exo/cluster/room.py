"""Making room for a model: those that were used the longest ago are unloaded for it."""

import asyncio
from collections.abc import Iterable, Mapping

from exo.cluster.node import Node
from exo.cluster.placement import Wanted, place
from exo.cluster.resources import NodeSample, free_resources
from exo.cluster.state import ClusterState, Instance, Placement
from exo.errors import PlacementImpossible, Unavailable
from exo.models.card import ModelCard


def room_for(
    card: ModelCard,
    wanted: Wanted,
    state: ClusterState,
    samples: Mapping[str, NodeSample],
    idle: Mapping[str, float],
) -> tuple[str, ...] | None:
    """Which instances to unload so that the model can be placed: pure.

    `idle` are the instances that may go, with the seconds since their last use. Those used the
    longest ago go first, and none that need not. None if the model cannot be placed even then.
    """
    oldest = sorted(idle, key=lambda name: (-idle[name], name))
    gone: list[str] = []
    left = iter(oldest)
    while not _fits(card, wanted, state, samples, gone):
        name = next(left, None)
        if name is None:
            return None
        gone.append(name)
    for name in reversed(list(gone)):  # Of those that do not help, the last used stay first.
        others = [one for one in gone if one != name]
        if _fits(card, wanted, state, samples, others):
            gone = others
    return tuple(gone)


def _fits(
    card: ModelCard,
    wanted: Wanted,
    state: ClusterState,
    samples: Mapping[str, NodeSample],
    gone: Iterable[str],
) -> bool:
    without = set(gone)
    kept = {name: i for name, i in state.instances.items() if name not in without}
    then = state.model_copy(update={"instances": kept})
    try:
        place(card, wanted, free_resources(then, samples), then.links.values())
    except PlacementImpossible:
        return False
    return True


async def create_with_room(
    node: Node,
    card: ModelCard,
    wanted: Wanted,
    placement: Placement | None,
    command_id: str,
    *,
    pinned: bool,
) -> Instance:
    """`Node.create_instance`; where the model does not fit, after unloading what is not pinned and
    not in use, as far as that helps.

    Raises:
        PlacementImpossible: it would not fit even then.
        Unavailable: it would, but for instances that are in use.
        ExoError: as `Node.create_instance` says.
    """
    try:
        return await node.create_instance(card, wanted, placement, command_id, pinned=pinned)
    except PlacementImpossible:
        if placement is not None or not await _make_room(node, card, wanted):
            raise
    return await node.create_instance(card, wanted, placement, command_id, pinned=pinned)


async def _make_room(node: Node, card: ModelCard, wanted: Wanted) -> bool:
    """Whether there may be room now."""
    state = node.state
    known = {name: node.idle(instance) for name, instance in state.instances.items()}
    idle = {name: seconds for name, seconds in known.items() if seconds is not None}
    if not idle:
        return False
    samples = await node.samples(card, wanted.draft)
    free = {name: seconds for name, seconds in idle.items() if seconds > 0}
    chosen = room_for(card, wanted, state, samples, free)
    if chosen is None:
        if room_for(card, wanted, state, samples, idle) is None:
            return False
        raise Unavailable(
            f"{card.model_id} does not fit beside the models that are in use now.",
            hint="Try again when they are not.",
            retry_after=10,
        )
    await asyncio.gather(*(node.keeper.unload(state.instances[name]) for name in chosen))
    return True
