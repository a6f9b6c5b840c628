"""A master with its replica, and what those that follow it get."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from exo.cluster.commands import CreateInstance, DeleteInstance
from exo.cluster.events import Entry, apply
from exo.cluster.log import EventLog
from exo.cluster.master import Master
from exo.cluster.remote import (
    Entries,
    Offer,
    Report,
    Snapshot,
    replicated_adapter,
    unpack,
)
from exo.cluster.replica import Replica
from exo.cluster.resources import NodeSample
from exo.cluster.state import ClusterState, NodeInfo, RunnerStatus
from exo.errors import NotMaster
from exo.p2p.term import Term
from tests.cluster.factory import GIB, card, created, fold, node, runner

TERM = Term(number=5, master_id="a")


def offer(info: NodeInfo, state: ClusterState | None = None, **fields) -> Offer:
    return Offer(term=TERM, node=info, state=state or ClusterState(), **{"runners": (), **fields})


def create(command_id: str = "c", instance_id: str = "i") -> CreateInstance:
    return CreateInstance(command_id=command_id, instance_id=instance_id, card=card())


SAMPLES = {"a": NodeSample(budget=8 * GIB, card=card())}


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    made = Replica(EventLog(tmp_path / "state.db"), lambda _: None)
    yield made
    await made.close()


@pytest.fixture
async def master(replica: Replica) -> Master:
    made = Master(TERM, replica)
    await made.begin(offer(node("a")), lambda _: False)
    return made


async def test_a_reign_begins_with_its_term_and_its_own_node(master: Master, replica: Replica):
    assert replica.state.term == TERM
    assert set(replica.state.nodes) == {"a"}


async def test_nodes_that_were_lost_before_are_known_to_be(replica: Replica):
    first = Master(Term(number=1, master_id="b"), replica)
    await first.begin(offer(node("b")), lambda _: False)
    second = Master(TERM, replica)
    await second.begin(offer(node("a")), lambda node_id: node_id == "b")
    assert set(replica.state.nodes) == {"a"}


async def test_after_its_end_nothing_is_decided(master: Master):
    master.end()
    with pytest.raises(NotMaster):
        await master.submit(create(), SAMPLES)
    with pytest.raises(NotMaster):
        await master.report(Report(node_id="a", runner=runner()))


async def test_a_node_of_another_term_does_not_follow(master: Master):
    wrong = Offer(
        term=Term(number=4, master_id="a"), node=node("b"), runners=(), state=ClusterState()
    )
    with pytest.raises(NotMaster):
        await anext(master.follow("b", wrong))


async def test_a_new_node_gets_the_whole_state_then_what_comes(master: Master, replica: Replica):
    async with aclosing(master.follow("b", offer(node("b")))) as stream:
        first = unpack(replicated_adapter, await anext(stream))
        assert isinstance(first, Snapshot)
        assert set(first.state.nodes) == {"a", "b"}
        await master.report(Report(node_id="a", runner=runner()))
        then = unpack(replicated_adapter, await anext(stream))
        assert isinstance(then, Entries)
        assert fold_entries(first.state, then.entries) == replica.state


async def test_a_node_that_was_away_gets_only_what_it_missed(master: Master, replica: Replica):
    async with aclosing(master.follow("b", offer(node("b")))) as stream:
        await anext(stream)
    before = replica.state
    await master.submit(create(), SAMPLES)
    async with aclosing(master.follow("b", offer(node("b"), before))) as stream:
        missed = unpack(replicated_adapter, await anext(stream))
    assert isinstance(missed, Entries)
    assert fold_entries(before, missed.entries) == replica.state


async def test_a_node_that_has_another_history_gets_the_whole_state(master: Master):
    strange = ClusterState(index=2, term=Term(number=4, master_id="b"))
    async with aclosing(master.follow("b", offer(node("b"), strange))) as stream:
        assert isinstance(unpack(replicated_adapter, await anext(stream)), Snapshot)


async def test_a_node_that_is_ahead_gets_the_whole_state(master: Master):
    strange = ClusterState(index=900, term=TERM)
    async with aclosing(master.follow("b", offer(node("b"), strange))) as stream:
        assert isinstance(unpack(replicated_adapter, await anext(stream)), Snapshot)


async def test_what_a_follower_brings_is_adopted_before_it_gets_anything(master: Master):
    """Its runner must never see a state without its instance."""
    theirs = fold(created("j", "c2", node_id="b"), state=ClusterState(nodes={"b": node("b")}))
    brought = offer(node("b"), theirs, runners=(runner("j", RunnerStatus.READY, pid=7),))
    async with aclosing(master.follow("b", brought)) as stream:
        first = unpack(replicated_adapter, await anext(stream))
    assert isinstance(first, Snapshot)
    adopted = first.state.instances["j"]
    assert first.state.status(adopted) == "ready"
    assert first.state.runners["j/0"].pid == 7


async def test_a_follower_that_comes_back_as_it_was_is_no_news(master: Master, replica: Replica):
    async with aclosing(master.follow("b", offer(node("b")))) as stream:
        await anext(stream)
    index = replica.state.index
    async with aclosing(master.follow("b", offer(node("b"), replica.state))) as stream:
        following = asyncio.ensure_future(anext(stream))
        await master.lose("nobody", left=False)
        assert replica.state.index == index
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


async def test_an_answer_waits_until_most_nodes_have_the_change(master: Master, replica: Replica):
    async with aclosing(master.follow("b", offer(node("b")))) as stream:
        await anext(stream)
        answer = asyncio.ensure_future(master.submit(create(), SAMPLES))
        await anext(stream)
        assert not answer.done()
        master.acked("b", replica.state.index)
        assert (await answer).commands["c"].instance_id == "i"


async def test_a_follower_that_goes_does_not_hold_up_answers(master: Master):
    async with aclosing(master.follow("b", offer(node("b")))) as stream:
        await anext(stream)
        answer = asyncio.ensure_future(master.submit(create(), SAMPLES))
        await anext(stream)
    assert (await answer).commands["c"].kind == "created"


async def test_the_same_command_is_carried_out_once(master: Master):
    state = await master.submit(create(), SAMPLES)
    again = await master.submit(create(instance_id="other"), SAMPLES)
    assert again.commands["c"].instance_id == "i"
    assert again.index == state.index


async def test_the_card_of_a_node_that_has_the_weights_is_taken(master: Master):
    unknown = create().model_copy(update={"card": card(path=None, storage_size=1)})
    state = await master.submit(unknown, SAMPLES)
    assert state.instances["i"].card == card()


async def test_a_deleted_instance_is_not_brought_back_by_an_old_copy(master: Master):
    before = await master.submit(create(), SAMPLES)
    await master.submit(DeleteInstance(command_id="d", instance_id="i"), {})
    async with aclosing(master.follow("b", offer(node("b"), before))) as stream:
        first = unpack(replicated_adapter, await anext(stream))
    assert isinstance(first, Entries)
    assert fold_entries(before, first.entries).instances == {}


def fold_entries(state: ClusterState, entries: tuple[Entry, ...]) -> ClusterState:
    for entry in entries:
        state = apply(state, entry)
    return state
