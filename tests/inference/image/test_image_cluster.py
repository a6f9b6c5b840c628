"""An image model on one node of a cluster, and over two, with real runners."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from exo.cluster.placement import Wanted
from exo.cluster.state import Instance
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest
from exo.models.card import ModelCard
from exo.models.image_folder import read_image_card
from tests.cluster.lab import AnyModel, Lab, Member
from tests.cluster.test_cluster import is_status
from tests.inference.image.conftest import Folders

VARIANT = "flux.2-klein-base-4b"


class Folder(AnyModel):
    """Has one image model, whatever it is called."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def resolve(self, name: str) -> ModelCard:
        del name
        return read_image_card(self._folder, "m")


@pytest.fixture
async def members(tmp_path: Path, folders: Folders) -> AsyncIterator[list[Member]]:
    lab = Lab(tmp_path)
    made = [lab.member(name, Folder(folders(VARIANT))) for name in "ab"]
    for member in made:
        member.engine = "mlx"
        await member.start()
        member.node.worker._hosts = lambda _: ("127.0.0.1",)
    await lab.settled(*made)
    yield made
    await lab.close()


async def instance_of(members: list[Member], folder: Path, **wanted: object) -> Instance:
    node = members[0].node
    card = read_image_card(folder, "m")
    instance = await node.create_instance(card, Wanted.model_validate(wanted), None, str(wanted))
    await node.wait_for(is_status(instance, "ready"))
    return instance


def asked(name: str, **fields: object) -> DrawRequest:
    known = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 3, "seed": 5}
    return DrawRequest.model_validate({"request_id": name, **known, **fields})


async def drawn(member: Member, *instances: Instance, n: int = 2) -> list[bytes]:
    """Pictures, asked for on this node."""
    for instance in instances:
        await member.node.wait_for(is_status(instance, "ready"))
    request = asked(f"{member.name}-{[i.instance_id for i in instances]}", n=n)
    said = [each async for each in member.node.draw(instances, request)]
    assert isinstance(said[-1], DrawFinished)
    assert said[-1].stats.images == n
    return in_order(said)


def in_order(said: Sequence[object]) -> list[bytes]:
    drawn = {each.index: each.png for each in said if isinstance(each, Drawn)}
    return [drawn[index] for index in range(len(drawn))]


async def test_any_node_has_one_or_two_draw_and_the_pictures_are_the_same(
    members: list[Member], folders: Folders
) -> None:
    one = await instance_of(members, folders(VARIANT), max_nodes=1)
    expected = await drawn(members[0], one)
    assert len(set(expected)) == 2
    assert await drawn(members[1], one) == expected
    two = await instance_of(members, folders(VARIANT), min_nodes=2)
    assert len(two.placement.shards) == 2
    guided = await instance_of(members, folders(VARIANT), sharding="guidance")
    assert [shard.end_layer for shard in guided.placement.shards] == [3, 3]
    for member in members:
        assert await drawn(member, two) == expected
        assert await drawn(member, guided) == expected


async def test_pictures_are_shared_out_and_outlive_one_of_those_who_draw(
    members: list[Member], folders: Folders
) -> None:
    """One on each node; what the one that dies has not drawn, the other one draws."""
    made = [await instance_of(members, folders(VARIANT), nodes=[m.peer_id]) for m in members]
    here, there = made
    expected = await drawn(members[0], here, n=4)
    assert await drawn(members[0], here, there, n=4) == expected
    killed = False
    said: list[object] = []
    async for each in members[0].node.draw(made, asked("long", n=4, steps=30)):
        said.append(each)
        # The first two are drawn here, and the others there.
        if isinstance(each, Drawing) and each.index == 2 and not killed:
            runner = members[0].node.state.runner(there.instance_id, 0)
            assert runner is not None
            assert runner.pid
            os.kill(runner.pid, signal.SIGKILL)
            killed = True
    assert killed
    steps = [(each.index, each.step) for each in said if isinstance(each, Drawing)]
    assert len(steps) == len(set(steps)) == 4 * 30, "none is told twice"
    whole = [each async for each in members[0].node.draw([here], asked("again", n=4, steps=30))]
    assert in_order(said) == in_order(whole)
    assert members[0].node.open_requests == members[1].node.open_requests == 0
