"""A node with real runner processes, which have the fake engine in them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from exo.cluster.catalogue import Catalogue
from exo.cluster.log import EventLog
from exo.cluster.node import Node
from exo.cluster.placement import Wanted
from exo.cluster.requests import Output
from exo.cluster.serving import Serving, ServingOptions
from exo.cluster.state import ClusterState, Instance
from exo.errors import InstanceNotFound, ModelNotFound, RunnerDied, Unavailable
from exo.inference.messages import Accepted, Finished
from exo.inference.types import Delta, GenerateRequest
from exo.models.card import ModelCard
from tests.cluster.factory import card
from tests.cluster.lab import Lab, NoModel


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def node(lab: Lab) -> Node:
    (member,) = await lab.start("a")
    return member.node


def request(text: str, request_id: str = "r", **fields: object) -> GenerateRequest:
    messages = [{"role": "user", "content": text}]
    return GenerateRequest.model_validate(
        {"request_id": request_id, "messages": messages, **fields}
    )


async def create(node: Node, model: ModelCard | None = None, command_id: str = "c") -> Instance:
    return await node.create_instance(model or card(), Wanted(), None, command_id)


def is_status(instance: Instance, status: str) -> Callable[[ClusterState], bool]:
    return lambda state: state.status(instance) == status


def all_bytes(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir() if file.is_file()]


async def ready(node: Node, model: ModelCard | None = None) -> Instance:
    instance = await create(node, model)
    await node.wait_for(is_status(instance, "ready"))
    return instance


async def answer(node: Node, instance: Instance, text: str, **fields: object) -> str:
    outputs = [o async for o in node.generate(instance, request(text, **fields))]
    assert isinstance(outputs[0], Accepted)
    assert isinstance(outputs[-1], Finished)
    return "".join(output.text for output in outputs if isinstance(output, Delta))


async def first_delta(outputs: AsyncIterator[Output]) -> Delta:
    async for output in outputs:
        if isinstance(output, Delta):
            return output
    raise AssertionError("no delta")


async def test_an_instance_is_created_loaded_and_answers(node: Node):
    instance = await ready(node)
    assert await answer(node, instance, "one two end") == "one two "
    shown = [entry.event.type for entry in await node.events(0, 100)]
    assert shown[:3] == ["MasterElected", "NodeJoined", "InstanceCreated"]
    assert set(shown[3:]) == {"RunnerChanged"}


async def test_no_prompt_and_no_token_is_in_the_log(node: Node, lab: Lab, tmp_path: Path):
    instance = await ready(node)
    await answer(node, instance, "confidential end")
    await lab.close()
    assert not any(b"confidential" in content for content in all_bytes(tmp_path / "a"))


async def test_a_deleted_instance_is_gone_with_its_process(node: Node, lab: Lab):
    instance = await ready(node)
    pid = node.state.runners[f"{instance.instance_id}/0"].pid
    outputs = node.generate(instance, request("a stall"))
    await first_delta(outputs)
    await node.delete_instance(instance.instance_id, "d")
    with pytest.raises(RunnerDied, match="deleted"):
        async for _ in outputs:
            pass
    with pytest.raises(InstanceNotFound):
        await node.delete_instance(instance.instance_id, "e")
    await lab.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_killed_runner_fails_its_requests_and_comes_back_by_itself(node: Node):
    instance = await ready(node)
    key = f"{instance.instance_id}/0"
    before = node.state.runners[key]
    outputs = node.generate(instance, request("a stall"))
    await first_delta(outputs)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    with pytest.raises(RunnerDied, match="killed"):
        async for _ in outputs:
            pass
    await node.wait_for(lambda state: state.status(instance) != "ready")
    await node.wait_for(is_status(instance, "ready"))
    assert node.state.runners[key].restarts == 1
    assert await answer(node, instance, "again end") == "again "


async def test_an_invalid_model_fails_for_good_and_says_why(node: Node):
    instance = await create(node, card("bad", path=Path("/invalid")))
    await node.wait_for(is_status(instance, "failed"))
    assert "invalid" in (node.state.reason(instance) or "")
    assert node.state.runners[f"{instance.instance_id}/0"].restarts == 1
    good = await create(node, command_id="another")
    await node.wait_for(is_status(good, "ready"))


async def test_instances_come_back_when_the_node_does(lab: Lab):
    (member,) = await lab.start("a")
    instance = await ready(member.node)
    await member.stop()
    node = await member.start()
    await node.wait_for(is_status(instance, "loading"))
    await node.wait_for(is_status(instance, "ready"))
    assert await answer(node, instance, "back end") == "back "
    assert node.state.term is not None
    assert node.state.term.number == 2


async def test_a_command_that_is_repeated_makes_one_instance(node: Node):
    one, two = await asyncio.gather(create(node), create(node))
    assert one.instance_id == two.instance_id
    assert len(node.state.instances) == 1


async def test_a_command_whose_sender_has_gone_is_finished(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    loop, written = asyncio.get_running_loop(), node._replica._log

    def append(*args: object, **kwargs: object) -> ClusterState:
        loop.call_soon_threadsafe(sender.cancel)
        return EventLog.append(written, *args, **kwargs)

    monkeypatch.setattr(written, "append", append)
    sender = asyncio.create_task(create(node))
    await asyncio.wait({sender})
    assert sender.cancelled()
    state = await node.wait_for(lambda state: bool(state.instances))
    assert list(state.commands) == ["c"]


async def test_an_answer_that_is_left_frees_its_slot(node: Node):
    instance = await node.create_instance(card(), Wanted(concurrency=1), None, "c")
    await node.wait_for(is_status(instance, "ready"))
    async with aclosing(node.generate(instance, request("a b c", "left"))) as outputs:
        await first_delta(outputs)
    assert await answer(node, instance, "next end", request_id="next") == "next "
    assert node.worker.open_requests == 0


async def test_following_the_events_gives_all_of_them_in_order(node: Node):
    follow = node.follow(0)
    seen = [(await anext(follow)).index for _ in range(2)]
    instance = await ready(node)
    await node.delete_instance(instance.instance_id, "d")
    async for entry in follow:
        seen.append(entry.index)
        if entry.event.type == "InstanceDeleted":
            break
    assert seen == list(range(1, seen[-1] + 1))


async def test_what_is_planned_and_not_loaded_yet_is_not_given_twice(node: Node):
    (before,) = await node.resources(card())
    instance = await create(node)
    (after,) = await node.resources(card())
    planned = instance.placement.shards[0].memory
    assert before.free_memory - after.free_memory > planned * 0.5


# Serving: from a name to an instance.


def serving(node: Node, *, auto_place: bool = True, wait: float = 60) -> Serving:
    return Serving(node, Catalogue(node), ServingOptions(auto_place=auto_place, wait=wait))


async def test_a_model_is_placed_once_by_the_requests_that_want_it(node: Node):
    finder = serving(node)
    found = await asyncio.gather(*(finder.instance_for("tiny") for _ in range(3)))
    assert len({instance.instance_id for instance in found}) == 1
    assert node.state.status(found[0]) == "ready"


async def test_without_auto_place_an_unplaced_model_is_not_found(node: Node):
    with pytest.raises(ModelNotFound, match="exo instance create tiny"):
        await serving(node, auto_place=False).instance_for("tiny")


async def test_a_model_without_weights_says_so(lab: Lab):
    member = lab.member("a", NoModel())
    node = await member.start()
    await lab.settled(member)
    with pytest.raises(ModelNotFound, match="on no node"):
        await serving(node).instance_for("llama-3.2-1b")


async def test_the_wait_is_bounded(node: Node):
    with pytest.raises(Unavailable) as caught:
        await serving(node, wait=0).instance_for("tiny")
    assert caught.value.retry_after
    (instance,) = node.state.instances.values()
    await node.wait_for(is_status(instance, "ready"))
    assert await serving(node, wait=0).instance_for("tiny")


async def test_a_model_that_failed_to_load_says_why_at_once(node: Node):
    instance = await create(node, card("bad", path=Path("/invalid")))
    with pytest.raises(Unavailable, match="is invalid"):
        await serving(node).instance_for("bad")
    assert node.state.status(instance) == "failed"


async def test_of_two_instances_the_less_busy_one_is_taken(node: Node):
    one = await ready(node)
    two = await create(node, command_id="two")
    await node.wait_for(is_status(two, "ready"))
    finder = serving(node)
    async with aclosing(node.generate(one, request("a stall"))) as outputs:
        await first_delta(outputs)
        assert (await finder.instance_for("m")).instance_id == two.instance_id
