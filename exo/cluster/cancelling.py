"""Ending a request by its id, on whichever node it was asked for."""

import asyncio
from collections.abc import Callable

from exo.cluster.node import Node
from exo.cluster.remote import CANCEL
from exo.errors import PeerError, ProtocolError
from exo.p2p.network import Body

# Ends the requests of an id, of one API key or of any; whether there were any.
Cancel = Callable[[str, str | None], bool]
_PATIENCE = 3.0


class Cancelling:
    """Asks this node's API, then those of the others."""

    def __init__(self, node: Node, here: Cancel) -> None:
        self._node = node
        self._here = here

    def open(self) -> None:
        """Hear what other nodes are asked."""
        self._node.network.services.requests[CANCEL] = self._serve

    async def cancel(self, name: str, lane: str | None) -> bool:
        """End the request of that id, if it is of the API key `lane` or that is None; whether there
        was one on any node."""
        if self._here(name, lane):
            return True
        me, nodes = self._node.options.node_id, self._node.state.nodes.values()
        others = [node.node_id for node in nodes if node.online and node.node_id != me]
        return any(await asyncio.gather(*(self._there(node, name, lane) for node in others)))

    async def _there(self, node_id: str, name: str, lane: str | None) -> bool:
        try:
            body: Body = [name, lane]
            found = await self._node.network.request(node_id, CANCEL, body, patience=_PATIENCE)
        except PeerError:
            return False
        return found is True

    async def _serve(self, _: str, body: Body) -> Body:
        match body:
            case [str(name), str() | None as lane]:
                return self._here(name, lane)
            case _:
                raise ProtocolError("What is to be cancelled cannot be read.")
