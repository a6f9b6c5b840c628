"""Following a master: bring what this node has, then take in the log as it grows."""

import logging
from collections.abc import Callable
from contextlib import aclosing

from exo.cluster.events import Entry
from exo.cluster.remote import (
    ACKED,
    FOLLOW,
    Entries,
    Offer,
    Snapshot,
    pack,
    replicated_adapter,
    unpack,
)
from exo.cluster.replica import Replica
from exo.errors import ExoError, ProtocolError
from exo.p2p.network import Network
from exo.p2p.term import Term

# Seconds before the master is asked again, when nothing tells that it would answer now.
_PATIENCE = 0.5

log = logging.getLogger(__name__)


class Follower:
    """Keeps this node's replica like the master's, until its task is cancelled."""

    def __init__(
        self, term: Term, replica: Replica, network: Network, offer: Callable[[Term], Offer]
    ) -> None:
        self._term = term
        self._replica = replica
        self._network = network
        self._offer = offer

    async def run(self) -> None:
        """Follow for ever, over as many links as it takes."""
        master = self._term.master_id
        while True:
            await self._network.wait_for(lambda: self._network.is_linked(master))
            try:
                await self._follow()
            except ExoError as error:
                log.info("The log of the master does not come: %s", error)
            await self._network.wait_change(_PATIENCE)

    async def _follow(self) -> None:
        master = self._term.master_id
        stream = self._network.stream(master, FOLLOW, pack(self._offer(self._term)))
        async with aclosing(stream) as bodies:
            async for body in bodies:
                await self._take(unpack(replicated_adapter, body))
                self._network.notify(master, ACKED, self._replica.state.index)

    async def _take(self, message: Snapshot | Entries) -> None:
        match message:
            case Snapshot(state=state):
                await self._replica.reset(state)
            case Entries(entries=entries):
                await self._replica.append(lambda: self._next(entries))

    def _next(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Entries that go on where the log here ends. Others belong to another log: this node has
        written something since it made its offer, so it must make a new one."""
        index = self._replica.state.index
        if entries and entries[0].index != index + 1:
            raise ProtocolError(f"Entry {entries[0].index} of the log came after {index}.")
        return entries
