"""An image model on one node of a cluster, and over two, with real runners."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.cluster.placement import Wanted
from exo.cluster.state import Instance
from exo.inference.image.types import DrawFinished, Drawn, DrawRequest
from exo.models.card import ModelCard
from exo.models.image_folder import read_image_card
from tests.cluster.lab import AnyModel, Lab, Member
from tests.cluster.test_cluster import is_status
from tests.inference.image.conftest import Folders

VARIANT = "flux.2-klein-4b"


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


async def drawn(member: Member, instance: Instance) -> list[bytes]:
    """Two pictures, asked for on this node."""
    request = DrawRequest(
        request_id=f"{member.name}-{instance.instance_id}",
        prompt="a red circle",
        width=64,
        height=64,
        steps=3,
        seed=5,
        n=2,
    )
    await member.node.wait_for(is_status(instance, "ready"))
    said = [each async for each in member.node.draw([instance], request)]
    assert isinstance(said[-1], DrawFinished)
    return [each.png for each in said if isinstance(each, Drawn)]


async def test_any_node_has_one_or_two_draw_and_the_pictures_are_the_same(
    members: list[Member], folders: Folders
) -> None:
    one = await instance_of(members, folders(VARIANT), max_nodes=1)
    expected = await drawn(members[0], one)
    assert len(set(expected)) == 2
    assert await drawn(members[1], one) == expected
    two = await instance_of(members, folders(VARIANT), min_nodes=2)
    assert len(two.placement.shards) == 2
    for member in members:
        assert await drawn(member, two) == expected
