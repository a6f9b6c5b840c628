"""From a model's name in a request to an instance that can answer it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from exo.cluster.catalogue import Catalogue
from exo.cluster.node import Node
from exo.cluster.placement import Wanted
from exo.cluster.progress import progress_of
from exo.cluster.room import create_with_room
from exo.cluster.state import ClusterState, Instance
from exo.errors import ModelNotFound, RequestError, Unavailable
from exo.inference.ids import new_id
from exo.models.card import ModelCard, Task

# How many models an error names.
NAMED = 6
# What a model is for, and what it cannot do, as an error says it.
_DOES = {
    Task.TEXT: "answers in words",
    Task.IMAGE: "makes images",
    Task.EMBEDDING: "makes vectors",
}
_DOES_NOT = {
    Task.TEXT: "does not answer in words",
    Task.IMAGE: "makes no images",
    Task.EMBEDDING: "makes no vectors",
}


@dataclass(frozen=True)
class ServingOptions:
    """Whether an unplaced model is placed at first use; how long a request waits, in seconds, and
    how long a stream does, which can be told how far the model is."""

    auto_place: bool
    wait: float
    stream_wait: float = 600.0


# Is told how far a model is that is waited for.
Tell = Callable[[str], Awaitable[None]]
# Seconds after which somebody who waits is told so, and then again if nothing changes.
_TELL_AFTER = 1.0
_TELL_EVERY = 10.0


class Serving:
    """Finds the instance for a request; places the model and waits if need be."""

    def __init__(self, node: Node, catalogue: Catalogue, options: ServingOptions) -> None:
        self._node = node
        self._catalogue = catalogue
        self._options = options
        self._placing = asyncio.Lock()

    async def card_for(self, name: str, task: Task) -> ModelCard:
        """The model called `name`, which must be one for this task.

        Raises:
            ModelNotFound, ModelInvalid: see `Catalogue.card`.
            RequestError: it is a model for something else.
        """
        found = self._present(name)
        card = found[0].card if found else await self._catalogue.card(name)
        if not card.does(task):
            cards = await self._catalogue.here()
            able = [one.model_id for one in cards if one.does(task)]
            raise RequestError(
                f"{card.model_id} {_DOES[card.tasks[0]]}; it {_DOES_NOT[task]}.",
                hint=f"These do: {', '.join(able[:NAMED])}." if able else None,
                param="model",
            )
        return card

    async def instance_for(
        self, name: str, task: Task = Task.TEXT, tell: Tell | None = None
    ) -> Instance:
        """A ready instance of the model called `name`: of those that this node is linked with, the
        least busy one. See `instances_for`."""
        return (await self.instances_for(name, task, tell))[0]

    async def instances_for(
        self, name: str, task: Task = Task.TEXT, tell: Tell | None = None
    ) -> list[Instance]:
        """All ready instances of the model called `name`, the least busy one first: those that
        this node is linked with, or, if there are none, the others. Where one is waited for, its
        progress is told to `tell`.

        Raises:
            ModelNotFound: no model has that name, or it is not placed and may not be.
            RequestError: it is not a model for this task.
            PlacementImpossible: it fits nowhere.
            Unavailable: it was not ready in time, failed to load, or does not fit beside models
                that are in use.
        """
        card = await self.card_for(name, task)
        found = self._present(name)
        if not found:
            async with self._placing:  # Two requests at once make one instance.
                found = self._present(name) or [await self._place(card, name)]
        model_id = found[0].card.model_id
        wait = self._options.wait if tell is None else self._options.stream_wait
        try:
            async with asyncio.timeout(wait):
                await self._wait(model_id, tell)
        except TimeoutError:
            pass
        return self._ready(model_id)

    async def _wait(self, model_id: str, tell: Tell | None) -> None:
        """Return when the model is ready or cannot be."""
        told, pause = None, _TELL_AFTER
        while not self._settled(self._node.state, model_id):
            if tell is None:
                await self._node.wait_for(partial(self._settled, model_id=model_id))
                return
            try:
                async with asyncio.timeout(pause):
                    await self._node.wait_for(partial(self._is_news, model_id, told))
            except TimeoutError:
                pass
            if not self._settled(self._node.state, model_id):
                told, pause = self._progress(self._node.state, model_id), _TELL_EVERY
                await tell(told)

    def _is_news(self, model_id: str, told: str | None, state: ClusterState) -> bool:
        if self._settled(state, model_id):
            return True
        return told is not None and self._progress(state, model_id) != told

    def _progress(self, state: ClusterState, model_id: str) -> str:
        """How far the first instance is that may come to be ready."""
        found = (progress_of(state, each) for each in self._instances(state, model_id))
        return next((one for one in found if one != "failed"), "failed")

    async def _place(self, card: ModelCard, name: str) -> Instance:
        if not self._options.auto_place:
            raise ModelNotFound(
                f"{card.model_id} is not running.",
                hint=f"`exo instance create {name}` starts it.",
                param="model",
            )
        command_id = new_id("auto")
        return await create_with_room(self._node, card, Wanted(), None, command_id, pinned=False)

    def _settled(self, state: ClusterState, model_id: str) -> bool:
        """Whether an instance is ready, or none can become so."""
        statuses = [state.status(i) for i in self._instances(state, model_id)]
        return "ready" in statuses or all(status == "failed" for status in statuses)

    def _ready(self, model_id: str) -> list[Instance]:
        state = self._node.state
        found = self._instances(state, model_id)
        ready = [instance for instance in found if state.status(instance) == "ready"]
        if ready:
            linked = [instance for instance in ready if self._node.reaches(instance)]
            return sorted(linked or ready, key=self._node.load)
        reason = next((r for i in found if (r := state.reason(i))), None)
        if found and all(state.status(instance) == "failed" for instance in found):
            raise Unavailable(
                f"{model_id} could not be loaded: {reason or 'no reason is known'}",
                hint=f"Delete it with `exo instance delete {found[0].instance_id}`.",
            )
        raise Unavailable(
            f"{model_id} is not ready yet ({self._progress(state, model_id)})."
            f"{' ' + reason if reason else ''}",
            hint="`exo instance list` shows how far it is.",
            retry_after=5,
        )

    def _present(self, name: str) -> list[Instance]:
        """The instances of the model called `name` whose nodes are here."""
        state = self._node.state
        return [i for i in self._instances(state, name) if not state.lost_nodes(i)]

    def _instances(self, state: ClusterState, name: str) -> list[Instance]:
        return [i for i in state.instances.values() if i.card.is_called(name)]
