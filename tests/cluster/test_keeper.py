"""Nodes unload what nobody uses, and make room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from exo.cluster.catalogue import Catalogue
from exo.cluster.node import Node
from exo.cluster.serving import Serving, ServingOptions
from exo.cluster.state import Instance
from exo.errors import PlacementImpossible, Unavailable
from exo.inference.types import GenerateRequest
from exo.models.card import ModelCard
from tests.cluster.factory import card
from tests.cluster.lab import AnyModel, Lab


class Large(AnyModel):
    """Models of so many bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 1_000_000

    def resolve(self, name: str) -> ModelCard:
        return card(name, path=Path(f"/models/{name}"), storage_size=self.size, dtype="float32")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


def serving(node: Node, wait: float = 60) -> Serving:
    options = ServingOptions(auto_place=True, wait=wait, stream_wait=wait)
    return Serving(node, Catalogue(node), options)


def asked(text: str = "a b end") -> GenerateRequest:
    return GenerateRequest(request_id="r", messages=[{"role": "user", "content": text}])


async def gone(node: Node, instance: Instance) -> None:
    await node.wait_for(lambda state: instance.instance_id not in state.instances)


async def test_what_a_request_placed_goes_when_it_is_not_wanted_any_more(lab: Lab):
    one, other = await lab.start("one", "other")
    finder = serving(one.node)
    instance = await finder.instance_for("tiny")
    assert not instance.pinned

    # Asked on the node that does not compute it as well as on the one that does.
    for node in (one.node, other.node):
        await node.wait_for(lambda state: bool(state.instances))
        async with aclosing(node.generate(instance, asked("a stall"))) as outputs:
            await anext(outputs)
            await one.node.keeper.keep(instance, 0)
            assert instance.instance_id in node.state.instances, "it is in use"
        await gone(node, instance)
        instance = await finder.instance_for("tiny")


async def test_what_is_pinned_stays(lab: Lab):
    [member] = await lab.start("one")
    node = member.node
    instance = await serving(node).instance_for("tiny")
    pinned = await node.pin_instance(instance.instance_id, pinned=True)
    assert pinned.pinned

    await node.keeper.keep(instance, 0)
    assert not await node.keeper.unload(instance)
    assert [o async for o in node.generate(instance, asked())]
    assert node.idle(instance) is None

    await node.pin_instance(instance.instance_id, pinned=False)
    await gone(node, instance)


async def test_room_is_made_by_the_model_used_the_longest_ago(lab: Lab):
    registry = Large()
    member = lab.member("one", registry)
    node = await member.start()
    await lab.settled(member)
    budget = (await node.samples(card("probe")))[member.peer_id].budget
    registry.size = int(budget * 0.4)
    finder = serving(node)

    first = await finder.instance_for("first")
    assert [o async for o in node.generate(first, asked())]
    second = await finder.instance_for("second")
    assert [o async for o in node.generate(second, asked())]
    third = await finder.instance_for("third")
    assert set(node.state.instances) == {second.instance_id, third.instance_id}

    await node.pin_instance(second.instance_id, pinned=True)
    async with aclosing(node.generate(third, asked("a stall"))) as outputs:
        await anext(outputs)
        with pytest.raises(Unavailable, match="in use now") as refused:
            await finder.instance_for("fourth")
        assert refused.value.retry_after
    await node.pin_instance(third.instance_id, pinned=True)
    with pytest.raises(PlacementImpossible):
        await finder.instance_for("fourth")


async def test_who_waits_is_told_how_far_it_is(lab: Lab):
    [member] = await lab.start("one")
    told: list[str] = []
    heard = asyncio.Event()

    async def tell(text: str) -> None:
        told.append(text)
        heard.set()

    finder = serving(member.node)
    # A runner that takes its time to start.
    blocked = asyncio.Event()
    start = member.node.worker._take_process

    async def later():
        await blocked.wait()
        return await start()

    member.node.worker._take_process = later  # type: ignore[method-assign]
    waiting = asyncio.create_task(finder.instance_for("tiny", tell=tell))
    await heard.wait()
    assert told == ["starting"]
    blocked.set()
    instance = await waiting
    assert member.node.state.status(instance) == "ready"


async def test_what_is_not_ready_in_time_says_how_far_it_is(lab: Lab):
    [member] = await lab.start("one")
    with pytest.raises(Unavailable, match=r"not ready yet \(starting\)") as refused:
        await serving(member.node, wait=0).instance_for("tiny")
    assert refused.value.retry_after
