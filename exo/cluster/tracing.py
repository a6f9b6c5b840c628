"""Traces of requests: kept by the node that a request came in at, found from every node."""

import asyncio
import time

from pydantic import TypeAdapter

from exo.cluster.remote import pack, unpack
from exo.cluster.replica import utc_now
from exo.cluster.trace import Recording, Recordings, RequestTrace, Watcher, recording
from exo.errors import NotFound, PeerError
from exo.logs import request_id
from exo.p2p.network import Body, Network

TRACE = "cluster.trace"
# Seconds that another node gets to say whether it knows a request.
_PATIENCE = 3.0

_adapter: TypeAdapter[RequestTrace] = TypeAdapter(RequestTrace)


class Tracing:
    """The requests that came in here, and those of others for the asking."""

    def __init__(self, network: Network, watcher: Watcher) -> None:
        self._network = network
        self._watcher = watcher
        self._kept = Recordings()
        network.services.requests[TRACE] = self._serve

    def begin(self, name: str, method: str, route: str) -> Recording:
        """A request has come in, and is what this task works on from now on."""
        one = Recording(
            id=name,
            method=method,
            route=route,
            started_at=utc_now(),
            node_id=self._network.peer_id,
            came=time.monotonic(),
            watcher=self._watcher,
        )
        request_id.set(name)
        recording.set(one)
        return one

    def keep(self, one: Recording) -> None:
        """Have it found by `find`, as one of those that came in last."""
        self._kept.add(one)

    async def find(self, name: str) -> RequestTrace:
        """The trace of a request, by its id or that of its answer, wherever it came in.

        Raises:
            NotFound: no node that this one is linked with knows it (any more).
        """
        if one := self._kept.find(name):
            return one.trace()
        peers = [link.hello.peer_id for link in self._network.links()]
        for found in await asyncio.gather(*(self._ask(peer_id, name) for peer_id in peers)):
            if found is not None:
                return found
        raise NotFound(
            f"No node here knows the request {name}.",
            hint="The last 1000 that came in at a node are kept, until it stops.",
            param="request_id",
        )

    async def _ask(self, peer_id: str, name: str) -> RequestTrace | None:
        try:
            body = await self._network.request(peer_id, TRACE, name, patience=_PATIENCE)
            return unpack(_adapter, body) if body else None
        except PeerError:
            return None

    async def _serve(self, _: str, body: Body) -> Body:
        one = self._kept.find(body) if isinstance(body, str) else None
        return pack(one.trace()) if one else None
