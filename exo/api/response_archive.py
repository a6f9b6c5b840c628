"""Where responses are found again: on this node, or on the one that made them.

response.load     request  id → Kept
response.delete   request  id
response.cancel   request  id → ResponseView
response.follow   stream   id, number of an event → the events after it
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from exo.api.response_events import Event, failure
from exo.api.response_ids import new_response_id, response_of, tag_in, tag_of
from exo.api.response_items import Item
from exo.api.response_runs import BackgroundRun, Run, stopped
from exo.api.response_store import ResponseStore
from exo.api.response_views import Kept, ResponseView
from exo.cluster.node import Node
from exo.errors import NotFound, PeerError, ProtocolError, RequestError, Unavailable
from exo.p2p.network import Body

LOAD = "response.load"
DELETE = "response.delete"
CANCEL = "response.cancel"
FOLLOW = "response.follow"
T = TypeVar("T")


class ResponseArchive:
    """The responses that this node keeps, and the way to those of others."""

    def __init__(self, node: Node, store: ResponseStore) -> None:
        self._node = node
        self._store = store
        self._runs: dict[str, BackgroundRun] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        services = node.network.services
        services.requests[LOAD] = self._serve_load
        services.requests[DELETE] = self._serve_delete
        services.requests[CANCEL] = self._serve_cancel
        services.streams[FOLLOW] = self._serve_follow

    @property
    def enabled(self) -> bool:
        """Whether this node stores any."""
        return self._store.enabled

    def new_id(self) -> str:
        return new_response_id(self._node.options.node_id)

    async def save(self, kept: Kept) -> None:
        """Store a response.

        Raises:
            StorageFull: it does not fit.
        """
        data = kept.model_dump_json().encode()
        await asyncio.to_thread(self._store.save, kept.response.id, data)

    async def begin(self, run: Run, *, streams: bool) -> BackgroundRun:
        """Compute it in the background, and keep it from now on.

        Raises:
            StorageFull: it does not fit.
        """
        await self.save(run.kept([] if streams else None))
        response_id = run.view.id
        begun = BackgroundRun(run, self.save, streams=streams)
        self._runs[response_id] = begun
        forgetting = asyncio.create_task(self._forget(response_id, begun))
        self._waiting.add(forgetting)
        forgetting.add_done_callback(self._waiting.discard)
        return begun

    async def close(self) -> None:
        """The node stops: what is computed in the background fails."""
        await asyncio.gather(*(run.stop() for run in self._runs.values()))

    async def _forget(self, response_id: str, run: BackgroundRun) -> None:
        await run.wait()
        del self._runs[response_id]

    # Whoever keeps it.

    async def load(self, response_id: str) -> Kept:
        """Raises:
        NotFound: there is no such response.
        Unavailable: the node that keeps it cannot be reached.
        """
        if (node_id := self._keeper(response_id)) is None:
            return await self._load(response_id)
        return _read(await self._ask(node_id, LOAD, response_id))

    async def find_item(self, item_id: str, conversation: Sequence[Item]) -> Item:
        """The item with that id: of the conversation that goes on, or of any response.

        Raises:
            RequestError: there is none.
            Unavailable: the node that keeps it cannot be reached.
        """
        found = next((item for item in conversation if item.id == item_id), None)
        response_id = response_of(item_id)
        if found is None and response_id is not None:
            try:
                kept = await self.load(response_id)
            except NotFound:
                kept = None
            items = [*kept.items, *kept.response.output] if kept else []
            found = next((item for item in items if item.id == item_id), None)
        if found is None:
            raise RequestError(f"There is no item '{item_id}' here.", param="input")
        return found

    async def delete(self, response_id: str) -> None:
        """As `load`; one that is being computed is cancelled."""
        if (node_id := self._keeper(response_id)) is None:
            await self._delete(response_id)
        else:
            await self._ask(node_id, DELETE, response_id)

    async def cancel(self, response_id: str) -> ResponseView:
        """Compute no more of a response in the background; what it is then.

        Raises:
            RequestError: it is none of those. Otherwise as `load`.
        """
        if (node_id := self._keeper(response_id)) is None:
            return await self._cancel(response_id)
        return _view(await self._ask(node_id, CANCEL, response_id))

    async def follow(self, response_id: str, after: int) -> AsyncGenerator[Event]:
        """The events with a number above `after`.

        Raises:
            RequestError: its events were not asked for. Otherwise as `load`.
        """
        if (node_id := self._keeper(response_id)) is None:
            events = self._follow(response_id, after)
        else:
            events = self._follow_away(node_id, response_id, after)
        async with aclosing(events):
            async for event in events:
                yield event

    def _keeper(self, response_id: str) -> str | None:
        """The node that keeps a response, None if that is this one.

        Raises:
            NotFound: no node that is or lately was in this cluster has made it.
        """
        tag = tag_in(response_id)
        me = self._node.options.node_id
        if tag == tag_of(me):
            return None
        found = next((each for each in self._names() if tag_of(each) == tag), None)
        if tag is None or found is None:
            raise _unknown(response_id)
        return found

    def _names(self) -> dict[str, str]:
        """Nodes' names by their ids. The state forgets a node that is lost; the network knows for
        a while that there was one."""
        members = {each: member.info.name for each, member in self._node.network.members.items()}
        return members | {each: node.name for each, node in self._node.state.nodes.items()}

    async def _ask(self, node_id: str, method: str, response_id: str) -> Body:
        try:
            return await self._node.network.request(node_id, method, response_id)
        except PeerError as error:
            raise self._unreachable(node_id) from error

    async def _follow_away(
        self, node_id: str, response_id: str, after: int
    ) -> AsyncGenerator[Event]:
        body = {"id": response_id, "after": after}
        try:
            async with aclosing(self._node.network.stream(node_id, FOLLOW, body)) as bodies:
                async for item in bodies:
                    yield cast("Event", item)
        except PeerError as error:
            raise self._unreachable(node_id) from error

    def _unreachable(self, node_id: str) -> Unavailable:
        name = self._names().get(node_id, node_id)
        return Unavailable(
            f"{name}, which keeps this response, cannot be reached.",
            hint="Try again when it is back.",
            retry_after=5,
        )

    # This node.

    async def _load(self, response_id: str) -> Kept:
        if run := self._runs.get(response_id):
            return run.kept()
        data = await asyncio.to_thread(self._store.load, response_id)
        if data is None:
            raise _unknown(response_id)
        kept = _read(data)
        if kept.response.status != "in_progress":
            return kept
        # The daemon was killed while it was computed.
        update = {"status": "failed", "error": failure(stopped())}
        return kept.model_copy(update={"response": kept.response.model_copy(update=update)})

    async def _delete(self, response_id: str) -> None:
        run = self._runs.get(response_id)
        if run is not None:
            await run.cancel()
        if not await asyncio.to_thread(self._store.delete, response_id) and run is None:
            raise _unknown(response_id)

    async def _cancel(self, response_id: str) -> ResponseView:
        if run := self._runs.get(response_id):
            return await run.cancel()
        view = (await self._load(response_id)).response
        if not view.background:
            raise RequestError(
                "Only a response in the background can be cancelled.",
                hint="Others end when their client closes the connection.",
            )
        return view

    async def _follow(self, response_id: str, after: int) -> AsyncGenerator[Event]:
        run = self._runs.get(response_id)
        if run is not None and run.streams:
            async with aclosing(run.follow(after)) as events:
                async for event in events:
                    yield event
            return
        kept = await self._load(response_id)
        if kept.events is None:
            raise RequestError(
                "Only what was created with background and stream can be streamed again.",
                param="stream",
            )
        for event in kept.events[after + 1 :]:
            yield event

    async def _serve_load(self, _: str, body: Body) -> Body:
        return (await self._load(str(body))).model_dump_json()

    async def _serve_delete(self, _: str, body: Body) -> Body:
        await self._delete(str(body))
        return None

    async def _serve_cancel(self, _: str, body: Body) -> Body:
        return (await self._cancel(str(body))).model_dump_json()

    async def _serve_follow(self, _: str, body: Body) -> AsyncGenerator[Body]:
        asked = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
        events = self._follow(str(asked.get("id")), int(asked.get("after", -1)))
        async with aclosing(events):
            async for event in events:
                yield event


def _unknown(response_id: str) -> NotFound:
    return NotFound(
        f"There is no response '{response_id}' here.",
        hint="Only those that were stored can be found, while the node that made them is in the "
        "cluster; and the oldest make room for new ones.",
    )


def _read(data: Any) -> Kept:
    return _validated(Kept.model_validate_json, data)


def _view(data: Any) -> ResponseView:
    return _validated(ResponseView.model_validate_json, data)


def _validated(read: Callable[[Any], T], data: Any) -> T:
    try:
        return read(data)
    except ValidationError as error:
        raise ProtocolError(
            "A response was stored by a version of exo that this one cannot read.",
            hint="Run the same version of exo on every node; `exo node list` shows them.",
        ) from error
