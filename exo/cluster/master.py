"""A master's reign: it decides on commands, appends to the log, and has the others follow it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from exo.cluster.commands import Command, CreateInstance, decide
from exo.cluster.events import (
    Entry,
    Event,
    KeysUsed,
    LinksMeasured,
    MasterElected,
    NodeJoined,
    NodeLost,
    NodeMeasured,
    RunnerChanged,
)
from exo.cluster.merge import merge
from exo.cluster.remote import Entries, Offer, Report, Snapshot, pack
from exo.cluster.replica import Replica, utc_now
from exo.cluster.resources import NodeSample, free_resources
from exo.cluster.state import ClusterState, NodeInfo, Runner
from exo.errors import NotMaster
from exo.p2p.term import Term

# Seconds that an answer waits for other nodes to have what it says on their disks.
REPLICATION_PATIENCE = 1.0

log = logging.getLogger(__name__)


@dataclass
class _Follower:
    """How far a node that follows has come."""

    index: int = 0


class Master:
    """From the election to the moment `end` is called; after that, every call raises NotMaster."""

    def __init__(self, term: Term, replica: Replica) -> None:
        self.term = term
        self._replica = replica
        self._ended = False
        self._followers: dict[str, _Follower] = {}
        self._heard = asyncio.Event()

    def end(self) -> None:
        self._ended = True

    async def begin(self, offer: Offer, lost: Callable[[str], bool]) -> None:
        """Take over the log: this node's own `offer` is in it then, and nodes that are `lost`
        are known to be."""

        def events() -> list[Event]:
            gone = [n for n in self._replica.state.nodes.values() if n.online and lost(n.node_id)]
            return [
                MasterElected(term=self.term),
                *self._news(offer.node, offer.runners),
                *(NodeLost(node_id=node.node_id, left=False) for node in gone),
            ]

        await self._commit(events)

    async def submit(self, command: Command, samples: Mapping[str, NodeSample]) -> ClusterState:
        """Carry out a command. It is on this disk, and on most of the others unless they are
        slow, when this returns.

        Raises:
            NotMaster: not any more.
            ExoError: the command is refused, as `decide` says.
        """

        def events() -> list[Event]:
            state = self._replica.state
            resources = free_resources(state, samples)
            return decide(state, _with_card(command, samples), resources, utc_now())

        state = await self._commit(events, durable=True)
        await self._replicated(state.index)
        return state

    async def report(self, report: Report) -> None:
        """Take in what a node observed."""

        def events() -> list[Event]:
            made: list[Event] = []
            if report.runner is not None:
                made.append(RunnerChanged(runner=report.runner))
            if report.device is not None:
                made.append(NodeMeasured(node_id=report.node_id, device=report.device))
            if report.links:
                made.append(LinksMeasured(links=report.links))
            if report.keys_used:
                made.append(KeysUsed(used=report.keys_used))
            return made

        await self._commit(events)

    async def lose(self, node_id: str, *, left: bool) -> None:
        """Take note that a node is gone."""

        def events() -> list[Event]:
            node = self._replica.state.nodes.get(node_id)
            return [NodeLost(node_id=node_id, left=left)] if node and node.online else []

        await self._commit(events)

    async def follow(self, peer_id: str, offer: Offer) -> AsyncGenerator[str]:
        """Let a node follow: take in what it brings, then give it the log for ever.

        Raises:
            NotMaster: not of the term that the node follows.
        """
        if offer.term != self.term:
            raise _not_master()
        at = await self._welcome(offer)
        since, snapshot = offer.state.index, True
        if offer.state.term is not None and since <= at:
            snapshot = not await self._replica.holds(since, offer.state.term)
        follower = self._followers[peer_id] = _Follower()
        try:
            while True:
                if snapshot:
                    state = self._replica.state
                    since, snapshot = state.index, False
                    yield pack(Snapshot(state=state))
                async with aclosing(self._replica.follow(since)) as batches:
                    async for entries in batches:
                        if self._ended:  # What is in the log now may be another master's.
                            raise _not_master()
                        if entries[0].index != since + 1:
                            snapshot = True  # The log is bounded, and this node was far behind.
                            break
                        since = entries[-1].index
                        yield pack(Entries(entries=tuple(entries)))
        finally:
            if self._followers.get(peer_id) is follower:  # It may follow anew already.
                del self._followers[peer_id]
            self._hear()

    def acked(self, peer_id: str, index: int) -> None:
        """A follower has the log up to `index`."""
        if follower := self._followers.get(peer_id):
            follower.index = max(index, follower.index)
            self._hear()

    async def _welcome(self, offer: Offer) -> int:
        def events() -> list[Event]:
            merged = merge(self._replica.state, offer.state)
            return [*([merged] if merged else []), *self._news(offer.node, offer.runners)]

        return (await self._commit(events)).index

    def _news(self, node: NodeInfo, runners: tuple[Runner, ...]) -> list[Event]:
        """What a node says of itself and the state does not have."""
        state = self._replica.state
        known = state.nodes.get(node.node_id)
        kept = {"draining": known.draining, "device": node.device or known.device} if known else {}
        made: list[Event] = []
        if known != node.model_copy(update=kept):
            made.append(NodeJoined(node=node))
        changed = (r for r in runners if state.runner(r.instance_id, r.rank) != r)
        return [*made, *(RunnerChanged(runner=runner) for runner in changed)]

    async def _commit(
        self, events: Callable[[], list[Event]], *, durable: bool = False
    ) -> ClusterState:
        """Decide and append, one after the other."""

        def entries() -> list[Entry]:
            if self._ended:
                raise _not_master()
            now, first = utc_now(), self._replica.state.index + 1
            return [
                Entry(index=index, term=self.term, time=now, event=event)
                for index, event in enumerate(events(), first)
            ]

        return await self._replica.append(entries, durable=durable)

    async def _replicated(self, index: int) -> None:
        """Wait, within a bound, until most of the nodes have the log up to `index`."""
        try:
            async with asyncio.timeout(REPLICATION_PATIENCE):
                while not self._most_have(index):
                    await self._heard.wait()
        except TimeoutError:
            log.warning("The change at %d is on this node only so far.", index)

    def _most_have(self, index: int) -> bool:
        have = 1 + sum(follower.index >= index for follower in self._followers.values())
        return 2 * have > 1 + len(self._followers)

    def _hear(self) -> None:
        self._heard.set()
        self._heard = asyncio.Event()


def _with_card(command: Command, samples: Mapping[str, NodeSample]) -> Command:
    """The weights may be on other nodes than the one that was asked: their card says more."""
    if not isinstance(command, CreateInstance) or command.card.path is not None:
        return command
    for sample in samples.values():
        if sample.card is not None and sample.card.path is not None:
            return command.model_copy(update={"card": sample.card})
    return command


def _not_master() -> NotMaster:
    return NotMaster(
        "This node is not the master any more.", hint="Try again shortly.", retry_after=1
    )
