"""A node's copy of the log, and those who watch it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from exo.cluster.events import Entry, Event, MasterElected
from exo.cluster.log import EventLog
from exo.cluster.replica import Replica
from exo.cluster.state import ClusterState
from tests.cluster.factory import TERM, entry


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    made = Replica(EventLog(tmp_path / "state.db"), lambda _: None)
    yield made
    await made.close()


async def append(replica: Replica, *events: Event) -> None:
    for event in events:
        await replica.append(lambda event=event: [entry(replica.state, event)])


async def first(batches: AsyncIterator[list[Entry]]) -> int:
    return (await anext(batches))[0].index


async def test_who_follows_gets_what_comes(replica: Replica):
    await append(replica, MasterElected(term=TERM), MasterElected(term=TERM))
    async with aclosing(replica.follow(1)) as batches:
        assert await first(batches) == 2
        await append(replica, MasterElected(term=TERM))
        assert await first(batches) == 3


@pytest.mark.parametrize("index", [1, 900])
async def test_who_follows_goes_on_where_another_log_begins(replica: Replica, index: int):
    await append(replica, *[MasterElected(term=TERM)] * 3)
    async with aclosing(replica.follow(0)) as batches:
        assert await first(batches) == 1
        await replica.reset(ClusterState(index=index, term=TERM))
        await append(replica, MasterElected(term=TERM))
        assert await first(batches) == index + 1


async def test_a_state_that_was_taken_over_is_on_the_disk(replica: Replica, tmp_path: Path):
    await append(replica, *[MasterElected(term=TERM)] * 3)
    taken = ClusterState(index=7, term=TERM)
    await replica.reset(taken)
    await append(replica, MasterElected(term=TERM))
    log = EventLog(tmp_path / "state.db")
    assert log.state == replica.state
    assert [e.index for e in log.read(0, 10)] == [8]
    log.close()


async def test_only_an_entry_that_is_here_says_that_histories_agree(replica: Replica):
    await append(replica, MasterElected(term=TERM))
    assert await replica.holds(1, TERM)
    assert not await replica.holds(2, TERM)
    assert not await replica.holds(1, TERM.model_copy(update={"number": 9}))
