"""Several nodes: one state, one master, commands and requests from any of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from exo.api.meters import Meters
from exo.cluster.placement import Wanted
from exo.cluster.remote import COMMAND
from exo.cluster.state import ClusterState, Instance, Placement
from exo.cluster.tracing import Tracing
from exo.errors import (
    LinkClosed,
    MasterUnknown,
    ModelNotFound,
    NotFound,
    NotMaster,
    PlacementImpossible,
    RequestError,
    Unavailable,
)
from exo.inference.messages import Finished
from exo.inference.types import Delta, GenerateRequest
from tests.cluster.factory import card, placement
from tests.cluster.lab import Lab, Member, NoModel


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


def request(text: str, **fields: object) -> GenerateRequest:
    messages = [{"role": "user", "content": text}]
    return GenerateRequest.model_validate({"request_id": "r", "messages": messages, **fields})


def on(member: Member, model: str = "m") -> Placement:
    return placement(member.peer_id).model_copy(update={"model_id": model})


async def create(asked: Member, where: Member | None = None, command_id: str = "c") -> Instance:
    given = on(where) if where else None
    return await asked.node.create_instance(card(), Wanted(), given, command_id)


def is_status(instance: Instance, status: str) -> Callable[[ClusterState], bool]:
    return lambda state: (
        instance.instance_id in state.instances and state.status(instance) == status
    )


async def answer(member: Member, instance: Instance, text: str) -> str:
    outputs = [o async for o in member.node.generate(instance, request(text))]
    assert isinstance(outputs[-1], Finished)
    return "".join(output.text for output in outputs if isinstance(output, Delta))


def master_of(members: list[Member]) -> Member:
    (found,) = [m for m in members if m.network.term and m.network.term.master_id == m.peer_id]
    return found


async def test_nodes_that_start_become_one_cluster(lab: Lab):
    members = await lab.start("a", "b", "c")
    states = [member.node.state for member in members]
    assert {state.term for state in states} == {members[0].network.term}
    assert len({state.index for state in states}) == 1
    assert {n.name for n in states[0].nodes.values()} == {"a", "b", "c"}


async def test_a_command_given_to_any_node_is_seen_by_all(lab: Lab):
    members = await lab.start("a", "b", "c")
    follower = next(m for m in members if m is not master_of(members))
    instance = await create(follower)
    assert follower.node.state.instances[instance.instance_id] == instance, "it reads what it wrote"
    for member in members:
        await member.node.wait_for(is_status(instance, "ready"))
    await follower.node.delete_instance(instance.instance_id, "d")
    for member in members:
        await member.node.wait_for(lambda state: not state.instances)


async def test_a_refusal_of_the_master_reaches_the_one_who_asked(lab: Lab):
    members = await lab.start("a", "b")
    follower = next(m for m in members if m is not master_of(members))
    await create(follower, command_id="once")
    with pytest.raises(RequestError, match="used for another command"):
        await follower.node.delete_instance("x", "once")
    with pytest.raises(PlacementImpossible, match="the cluster has 2"):
        await follower.node.create_instance(card(), Wanted(min_nodes=5), None, "five")


async def test_a_request_goes_to_the_node_that_computes(lab: Lab):
    members = await lab.start("a", "b", "c")
    for number, where in enumerate(members):
        instance = await create(members[0], where, f"c{number}")
        for member in members:
            await member.node.wait_for(is_status(instance, "ready"))
            assert await answer(member, instance, "one two end") == "one two "
        runner = where.node.worker.runners[-1]
        assert where.node.state.runners[f"{instance.instance_id}/0"] == runner


async def test_a_request_is_traced_where_it_came_in(lab: Lab):
    one, two = await lab.start("a", "b")
    instance = await create(one, two)
    await one.node.wait_for(is_status(instance, "ready"))
    tracing = {member: Tracing(member.network, Meters()) for member in (one, two)}
    recorded = tracing[one].begin("req_1", "POST", "/v1/completions")
    tracing[one].keep(recorded)
    with pytest.raises(RequestError):
        await answer(one, instance, "refuse")
    assert await answer(one, instance, "one two end") == "one two "
    trace = await tracing[two].find("req_1")
    assert trace == recorded.trace()
    refused, finished = trace.generations
    assert (refused.outcome, refused.error) == ("failed", "invalid_request")
    assert (finished.outcome, finished.node_id) == ("finished", two.peer_id)
    assert (finished.prompt_tokens, finished.generated_tokens) == (3, 3)
    with pytest.raises(NotFound):
        await tracing[two].find("req_2")


async def test_every_field_of_a_request_crosses_a_link(lab: Lab):
    one, two = await lab.start("a", "b")
    instance = await create(one, two)
    await one.node.wait_for(is_status(instance, "ready"))
    full = request("one end", sampling={"logit_bias": {7: -1.5}, "seed": 3}, stop=["x"], n=2)
    seen = [o async for o in one.node.generate(instance, full)]
    assert {o.index for o in seen if isinstance(o, Delta)} == {0, 1}


async def test_an_answer_that_is_left_is_left_on_the_node_that_computes(lab: Lab):
    one, two = await lab.start("a", "b")
    instance = await create(one, two)
    await one.node.wait_for(is_status(instance, "ready"))
    async with aclosing(one.node.generate(instance, request("a stall"))) as outputs:
        async for output in outputs:
            if isinstance(output, Delta):
                break
        assert two.node.open_requests == 1
        assert one.node.load(instance) == 1
    await two.node.wait_idle()
    assert one.node.open_requests == 0


async def test_when_the_node_that_computes_dies_the_answer_ends_with_an_error(lab: Lab):
    one, two = await lab.start("a", "b")
    instance = await create(one, two)
    await one.node.wait_for(is_status(instance, "ready"))

    async def ask() -> None:
        async for output in one.node.generate(instance, request("a stall")):
            if isinstance(output, Delta):
                await two.kill()

    with pytest.raises(Unavailable, match="b, which computes this, is lost"):
        await ask()
    await one.node.wait_for(is_status(instance, "failed"))
    assert "b cannot be reached" in (one.node.state.reason(instance) or "")


async def test_a_model_is_placed_where_its_weights_are(lab: Lab):
    one, two = lab.member("a", NoModel()), lab.member("b")
    await asyncio.gather(one.start(), two.start())
    await lab.settled(one, two)
    instance = await one.node.create_instance(card(path=None), Wanted(), None, "c")
    assert instance.placement.shards[0].node_id == two.peer_id
    with pytest.raises(PlacementImpossible, match="weights of m are not on a"):
        await one.node.create_instance(card(path=None), Wanted(), on(one), "d")


async def test_a_model_whose_weights_are_nowhere_is_not_found(lab: Lab):
    one, two = lab.member("a", NoModel()), lab.member("b", NoModel())
    await asyncio.gather(one.start(), two.start())
    await lab.settled(one, two)
    with pytest.raises(ModelNotFound, match="on no node"):
        await one.node.create_instance(card(path=None), Wanted(), None, "c")


async def test_a_draining_node_gets_nothing_new(lab: Lab):
    one, two = await lab.start("a", "b")
    await one.node.drain("b", draining=True)
    instance = await create(two)
    assert instance.placement.shards[0].node_id == one.peer_id
    with pytest.raises(PlacementImpossible):
        await create(one, two, "d")
    await two.node.drain("b", draining=False)
    assert await create(one, two, "e")


async def test_a_node_that_leaves_is_gone_at_once_and_not_remembered(lab: Lab):
    one, two = await lab.start("a", "b")
    await two.stop()
    await one.node.wait_for(lambda state: set(state.nodes) == {one.peer_id})


async def test_a_node_that_is_killed_is_gone(lab: Lab):
    one, two = await lab.start("a", "b")
    await two.kill()
    await one.node.wait_for(lambda state: set(state.nodes) == {one.peer_id})


async def test_a_new_master_serves_what_was_loaded_without_a_restart(lab: Lab):
    members = await lab.start("a", "b", "c")
    master = master_of(members)
    one, two = (m for m in members if m is not master)
    instance = await create(one, one)
    await two.node.wait_for(is_status(instance, "ready"))
    before = one.node.worker.runners
    await master.kill()
    await lab.settled(one, two)
    assert master_of([one, two])
    assert await answer(two, instance, "still here end") == "still here "
    assert one.node.worker.runners == before


async def test_a_master_that_comes_back_is_the_same_node_and_follows(lab: Lab):
    members = await lab.start("a", "b", "c")
    master = master_of(members)
    rest = [m for m in members if m is not master]
    instance = await create(rest[0], master)
    await rest[0].node.wait_for(is_status(instance, "ready"))
    await master.kill()
    for member in rest:
        await member.node.wait_for(is_status(instance, "failed"))
    await master.start()
    await lab.settled(*members)
    assert master_of(members) is not master, "a join does not move the master"
    for member in members:
        await member.node.wait_for(is_status(instance, "ready"))
        assert len(member.node.state.nodes) == 3
    assert await answer(rest[0], instance, "back end") == "back "


async def test_a_command_during_an_election_is_carried_out_once(lab: Lab):
    members = await lab.start("a", "b", "c")
    master = master_of(members)
    rest = [m for m in members if m is not master]
    creating = asyncio.create_task(create(rest[0], rest[0]))
    await master.kill()
    instance = await creating
    await lab.settled(*rest)
    assert list(rest[1].node.state.instances) == [instance.instance_id]


async def test_a_command_waits_for_the_next_master_when_the_last_one_is_none_any_more(lab: Lab):
    """The node that commands has not heard of the election yet."""
    members = await lab.start("a", "b", "c")
    master = master_of(members)
    rest = [m for m in members if m is not master]
    refused = asyncio.Event()

    async def refuse(*_: object) -> None:
        refused.set()
        raise NotMaster("This node is not the master.")

    async def agree(*_: object) -> None:
        pass

    served = master.network.services.requests
    served[COMMAND], served["later"] = refuse, agree
    creating = asyncio.create_task(create(rest[0], rest[0]))
    await refused.wait()
    await rest[0].network.request(master.peer_id, "later")
    assert not creating.done()
    await master.kill()
    instance = await creating
    assert list(rest[0].node.state.instances) == [instance.instance_id]


async def test_a_node_with_an_old_history_gets_that_of_the_cluster(lab: Lab):
    one, two, three = await lab.start("a", "b", "c")
    first = await create(one, one, "c1")
    await two.node.wait_for(is_status(first, "ready"))
    await three.stop()
    await one.node.delete_instance(first.instance_id, "d1")
    second = await create(two, two, "c2")
    await three.start()
    await lab.settled(one, two, three)
    await three.node.wait_for(is_status(second, "ready"))
    assert list(three.node.state.instances) == [second.instance_id], "nothing comes back to life"


async def test_two_clusters_that_meet_have_the_instances_of_both(lab: Lab):
    """Each half goes on while it is alone, and nobody's runner is touched when they meet."""
    one, two = lab.member("a"), lab.member("b")
    lab.separate(one, two)
    await one.start()
    await two.start()
    await lab.settled(one)
    await lab.settled(two)
    mine, theirs = await create(one, one, "c1"), await create(two, two, "c2")
    await one.node.wait_for(is_status(mine, "ready"))
    await two.node.wait_for(is_status(theirs, "ready"))
    runners = [*one.node.worker.runners, *two.node.worker.runners]
    lab.join(one, two)
    await lab.settled(one, two)
    for member in (one, two):
        for instance in (mine, theirs):
            await member.node.wait_for(is_status(instance, "ready"))
            assert await answer(member, instance, "together end") == "together "
    assert [*one.node.worker.runners, *two.node.worker.runners] == runners
    assert one.node.state == two.node.state


async def test_free_memory_of_all_nodes_is_known_to_all(lab: Lab):
    members = await lab.start("a", "b")
    for member in members:
        for other in members:
            await member.network.wait_for(
                lambda m=member, o=other: m.node.memory_of(o.peer_id) is not None, 10
            )
            assert member.node.memory_of(other.peer_id)


async def test_if_the_master_is_lost_twice_the_client_is_told_how_to_ask_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    members = await lab.start("a", "b")
    follower = next(m for m in members if m is not master_of(members))
    asked: list[str] = []

    async def lost(peer_id: str, method: str, body: object, **_: object) -> None:
        asked.append(method)
        raise LinkClosed("The connection was lost.")

    monkeypatch.setattr(follower.network, "request", lost)
    with pytest.raises(MasterUnknown, match="Idempotency-Key: my-key"):
        await create(follower, command_id="my-key")
    assert asked == ["cluster.command"] * 2


async def test_an_answer_that_flows_does_not_notice_that_the_master_is_gone(lab: Lab):
    members = await lab.start("a", "b", "c")
    master = master_of(members)
    one, two = (m for m in members if m is not master)
    instance = await create(one, two)
    await one.node.wait_for(is_status(instance, "ready"))
    outputs = one.node.generate(instance, request("one two three end"))
    said = ""
    async for output in outputs:
        if isinstance(output, Delta):
            said += output.text
            if master.running:
                await master.kill()
    assert said == "one two three "
    await lab.settled(one, two)
