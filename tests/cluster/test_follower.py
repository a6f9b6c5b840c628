"""A node that follows a master, over a network that a test speaks for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from exo.cluster.events import Entry, MasterElected
from exo.cluster.follower import Follower
from exo.cluster.log import EventLog
from exo.cluster.remote import Entries, Offer, Snapshot, offer_adapter, pack, unpack
from exo.cluster.replica import Replica
from exo.cluster.state import ClusterState
from exo.p2p.network import Network
from exo.p2p.term import Term
from tests.cluster.factory import TERM, entry, node

NEXT = Term(number=TERM.number + 1, master_id="z")


class Stub:
    """Answers every offer with the next of `answers`, then with nothing for ever."""

    def __init__(self, answers: list[list[Any]]) -> None:
        self.answers = answers
        self.offers: list[Offer] = []
        self.acked: asyncio.Queue[int] = asyncio.Queue()

    async def wait_for(self, _: Callable[[], bool]) -> bool:
        return True

    async def wait_change(self, _: float) -> None:
        pass

    async def stream(self, _: str, __: str, body: Any) -> AsyncGenerator[Any]:
        self.offers.append(unpack(offer_adapter, body))
        for answer in self.answers.pop(0) if self.answers else []:
            yield pack(answer)
        if not self.answers:
            await asyncio.Event().wait()

    def notify(self, _: str, __: str, body: Any) -> None:
        self.acked.put_nowait(body)


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    made = Replica(EventLog(tmp_path / "state.db"), lambda _: None)
    yield made
    await made.close()


async def test_a_log_that_parts_from_its_own_is_not_taken_for_the_rest_of_it(replica: Replica):
    """The master's entry 2 is another than the one here, which was written after the offer: the
    node offers anew what it has, and takes the master's state."""
    election = MasterElected(term=TERM)
    await replica.append(lambda: [entry(replica.state, election)])
    theirs = entry(replica.state, MasterElected(term=NEXT))
    whole = ClusterState(index=2, term=NEXT)
    network = Stub([[Entries(entries=(theirs,))], [Snapshot(state=whole)]])
    await replica.append(lambda: [entry(replica.state, election)])

    def offer(term: Term) -> Offer:
        return Offer(term=term, node=node("a"), runners=(), state=replica.state)

    follower = Follower(NEXT, replica, cast("Network", network), offer)
    task = asyncio.create_task(follower.run())
    assert await network.acked.get() == 2
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert len(network.offers) == 2
    assert replica.state.term == NEXT


async def test_what_is_being_written_is_waited_for(replica: Replica):
    begun = asyncio.Event()

    def make() -> list[Entry]:
        begun.set()
        return [entry(replica.state, MasterElected(term=TERM))]

    writing = asyncio.create_task(replica.append(make))
    await begun.wait()
    await replica.settled()
    assert replica.state.index == 1
    await writing
