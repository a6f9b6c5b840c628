"""What this node is in the cluster: the master, one that follows it, or neither for a moment."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from exo.cluster.commands import Command, CreateInstance, command_adapter, is_done
from exo.cluster.follower import Follower
from exo.cluster.master import Master
from exo.cluster.remote import (
    ACKED,
    COMMAND,
    FOLLOW,
    REPORT,
    Offer,
    Report,
    offer_adapter,
    pack,
    report_adapter,
    unpack,
)
from exo.cluster.replica import Replica
from exo.cluster.resources import ModelQuery, NodeSample
from exo.cluster.state import ClusterState
from exo.errors import MasterUnknown, NotMaster, PeerError
from exo.p2p.network import Body, Network
from exo.p2p.term import Term

# Seconds that a command waits: for a master to be known, for its answer, and for this node to see
# what came of it.
ELECTION_PATIENCE = 10.0
COMMAND_PATIENCE = 30.0
CATCH_UP_PATIENCE = 5.0
# Seconds from an election to a master that has taken over the log.
TAKE_OVER_PATIENCE = 5.0

log = logging.getLogger(__name__)

Samples = Callable[[ModelQuery], Awaitable[Mapping[str, NodeSample]]]


class Roles:
    """Takes the role that the election gives, and brings commands and reports to the master."""

    def __init__(
        self,
        network: Network,
        replica: Replica,
        offer: Callable[[Term], Offer],
        samples: Samples,
    ) -> None:
        self._network = network
        self._replica = replica
        self._offer = offer
        self._samples = samples
        self._master: Master | None = None
        self._task: asyncio.Task[None] | None = None
        self._role: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        network.services.streams[FOLLOW] = self._serve_follow
        network.services.notices[ACKED] = self._serve_acked
        network.services.requests[COMMAND] = self._serve_command
        network.services.requests[REPORT] = self._serve_report

    def start(self) -> None:
        self._task = self._spawn(self._take_roles())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._leave_role()

    # For this node.

    async def submit(self, command: Command) -> ClusterState:
        """Have the master carry out a command; return a state of this node that shows it.

        If the master is lost meanwhile, the next one is asked, once: the command's id makes sure
        that it is not carried out twice.

        Raises:
            MasterUnknown: no master answered; the message says what is known of the outcome.
            ExoError: the command is refused.
        """
        for _ in range(2):
            term = await self._known_term()
            try:
                await self._ask(term, command)
            except (PeerError, NotMaster) as error:
                log.warning("The master did not carry out a command: %s", error)
                # Who says that it is not the master will say so again, until another is elected.
                reached = isinstance(error, NotMaster)
                again = partial(self._worth_asking, term, reached=reached)
                await self._network.wait_for(again, ELECTION_PATIENCE)
                continue
            return await self._shown(command)
        raise MasterUnknown(
            "The master was lost while it worked on this. It may or may not have been done.",
            hint=f"Send it again with the header 'Idempotency-Key: {command.command_id}'.",
            retry_after=2,
        )

    async def report(self, report: Report) -> None:
        """Tell the master what was observed here. While there is none, nothing is told: a node
        that begins to follow brings how things are."""
        try:
            if self._master is not None:
                await self._master.report(report)
            elif (term := self._network.term) is not None:
                await self._network.request(term.master_id, REPORT, pack(report))
        except (PeerError, NotMaster) as error:
            log.info("The master was not told of a change: %s", error)

    # The role.

    async def _take_roles(self) -> None:
        taken: Term | None = None
        while True:
            await self._network.wait_for(lambda known=taken: self._network.term != known)
            taken = self._network.term
            await self._leave_role()
            if taken is None:
                continue
            if taken.master_id == self._network.peer_id:
                self._master = await self._lead(taken)
                self._role = self._spawn(self._mind_nodes(self._master))
            else:
                follower = Follower(taken, self._replica, self._network, self._offer)
                self._role = self._spawn(follower.run())
            self._tell()

    async def _lead(self, term: Term) -> Master:
        log.info("This node is the master of term %d.", term.number)
        master = Master(term, self._replica)
        await master.begin(self._offer(term), self._network.is_lost)
        return master

    async def _mind_nodes(self, master: Master) -> None:
        """Have the state say which nodes are gone."""
        while True:
            for node in list(self._replica.state.nodes.values()):
                if node.online and self._network.is_lost(node.node_id):
                    left = self._network.has_left(node.node_id)
                    await master.lose(node.node_id, left=left)
            await self._network.wait_change()

    async def _leave_role(self) -> None:
        if self._master:
            self._master.end()
            self._master = None
            # Its last entry may be on its way to the disk; the next role begins with all of them.
            await self._replica.settled()
        if self._role:
            self._role.cancel()
            await asyncio.wait([self._role])
            self._role = None
        self._tell()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_log_failure)
        return task

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # Commands.

    async def _known_term(self) -> Term:
        await self._network.wait_for(lambda: self._network.term is not None, ELECTION_PATIENCE)
        if self._network.term is None:
            raise MasterUnknown(
                "The cluster has no master yet.", hint="Try again shortly.", retry_after=2
            )
        return self._network.term

    async def _ask(self, term: Term, command: Command) -> None:
        if term.master_id == self._network.peer_id:
            await self._carry_out(command)
        else:
            await self._network.request(
                term.master_id, COMMAND, pack(command), patience=COMMAND_PATIENCE
            )

    def _worth_asking(self, asked: Term, *, reached: bool) -> bool:
        """Whether there is someone to ask again: another master than that of `asked`, or the same
        one, linked, if it was not `reached` and so refused nothing."""
        term = self._network.term
        if term is None:
            return False
        return term != asked or (not reached and self._network.is_linked(term.master_id))

    async def _carry_out(self, command: Command) -> ClusterState:
        master = await self._reign()
        samples: Mapping[str, NodeSample] = {}
        if isinstance(command, CreateInstance):
            samples = await self._samples(ModelQuery.of(command.card, command.wanted.draft))
        return await master.submit(command, samples)

    async def _reign(self) -> Master:
        """The master that this node is, once it has taken over the log.

        Raises:
            NotMaster: it is not.
        """
        try:
            async with asyncio.timeout(TAKE_OVER_PATIENCE):
                while self._master is None and self._is_elected():
                    await self._changed.wait()
        except TimeoutError:
            pass
        if self._master is None:
            raise NotMaster("This node is not the master.", retry_after=1)
        return self._master

    def _is_elected(self) -> bool:
        term = self._network.term
        return term is not None and term.master_id == self._network.peer_id

    async def _shown(self, command: Command) -> ClusterState:
        try:
            async with asyncio.timeout(CATCH_UP_PATIENCE):
                return await self._replica.wait_for(lambda state: is_done(state, command))
        except TimeoutError:
            raise MasterUnknown(
                "It is done, but this node has not heard of it from the master yet.",
                hint="`exo status` shows the cluster.",
                retry_after=2,
            ) from None

    # For other nodes.

    async def _serve_follow(self, peer_id: str, body: Body) -> AsyncGenerator[Body]:
        offer = unpack(offer_adapter, body)
        master = await self._reign()
        async with aclosing(master.follow(peer_id, offer)) as items:
            async for item in items:
                yield item

    def _serve_acked(self, peer_id: str, body: Body) -> None:
        if self._master is not None and isinstance(body, int):
            self._master.acked(peer_id, body)

    async def _serve_command(self, _: str, body: Body) -> Body:
        return (await self._carry_out(unpack(command_adapter, body))).index

    async def _serve_report(self, _: str, body: Body) -> Body:
        master = await self._reign()
        await master.report(unpack(report_adapter, body))
        return None


def _log_failure(task: asyncio.Task[None]) -> None:
    """A role has no one who waits for it: what no one foresaw is logged here."""
    if not task.cancelled() and (error := task.exception()):
        log.error("A part of the cluster ended: %s", error, exc_info=error)
