"""One model over two nodes with real runners, and what their state says when it cannot be."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.cluster.placement import Wanted
from exo.cluster.state import ClusterState, Instance
from exo.errors import ExoError
from exo.inference.messages import Finished, Load
from exo.inference.mlx.engine import MlxEngine
from exo.models.card import ModelCard
from exo.models.folder import read_card
from tests.cluster.lab import AnyModel, Lab, Member
from tests.cluster.test_cluster import is_status, request
from tests.models_maker import END_ID, make_model

MLX = "exo.inference.mlx.engine:MlxEngine"
GREEDY = {"temperature": 0, "logit_bias": {END_ID: -100}}


class Folder(AnyModel):
    """Has one model, whatever it is called."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def resolve(self, name: str) -> ModelCard:
        del name
        return read_card(self._folder, "m")


class OlderEngine(MlxEngine):
    """Of a node that has not been updated."""

    def facts(self, load: Load) -> dict[str, str]:
        return {**super().facts(load), "mlx-lm": "0.0.1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


async def split(lab: Lab, folder: Path, engine: str = MLX, other: Path | None = None) -> Instance:
    """An instance over two nodes, of which the second has another engine or other files."""
    members = [
        lab.member("a", Folder(folder)),
        lab.member("b", Folder(other or folder)),
    ]
    for member, each in zip(members, (MLX, engine), strict=True):
        member.engine = each
        await member.start()
        member.node.worker._hosts = lambda _: ("127.0.0.1",)
    await lab.settled(*members)
    node = members[0].node
    placement = await layers(node_ids=[member.peer_id for member in members], folder=folder)
    return await node.create_instance(read_card(folder, "m"), placement, None, "c")


async def layers(node_ids: list[str], folder: Path) -> Wanted:
    cuts = [0, 1, read_card(folder).n_layers]
    ranges = [
        {"node": node_id, "start_layer": start, "end_layer": end}
        for node_id, start, end in zip(node_ids, cuts, cuts[1:], strict=False)
    ]
    return Wanted.model_validate({"layers": ranges})


async def failed(lab: Lab, instance: Instance) -> str:
    """Wait until it has failed; say why."""

    def has_failed(state: ClusterState) -> bool:
        return is_status(instance, "failed")(state) and state.reason(instance) is not None

    state = await lab.members[0].node.wait_for(has_failed)
    return state.reason(instance) or ""


async def test_nodes_with_other_weights_do_not_compute_together(
    lab: Lab, folder: Path, tmp_path: Path
):
    instance = await split(lab, folder, other=make_model(tmp_path / "m", seed=1))
    reason = await failed(lab, instance)
    assert "a and b have different weights" in reason
    assert "the same model files" in reason


async def test_nodes_with_another_mlx_lm_do_not_compute_together(lab: Lab, folder: Path):
    instance = await split(lab, folder, "tests.cluster.test_ring_faults:OlderEngine")
    reason = await failed(lab, instance)
    assert "a and b have different versions of mlx-lm" in reason
    assert "0.0.1" in reason


@pytest.mark.parametrize(
    ("engine", "reason"),
    [("NoRoomToLoad", "no memory for layers 1 to 2"), ("CrashesForWantOfMemory", "it crashed")],
)
async def test_a_node_without_memory_for_its_layers_fails_the_instance(
    lab: Lab, folder: Path, engine: str, reason: str
):
    instance = await split(lab, folder, f"tests.inference.tight:{engine}")
    assert reason in await failed(lab, instance)


async def test_a_node_that_runs_out_of_memory_ends_the_answers_and_comes_back(
    lab: Lab, folder: Path
):
    instance = await split(lab, folder, "tests.inference.tight:NoRoomToCompute")
    one = lab.members[0]
    await one.node.wait_for(is_status(instance, "ready"))
    with pytest.raises(ExoError) as error:
        await outputs(one, instance, max_tokens=500)
    assert error.value.status in {500, 503}
    await one.node.wait_for(is_status(instance, "ready"))
    assert isinstance((await outputs(one, instance, max_tokens=3))[-1], Finished)


async def outputs(member: Member, instance: Instance, max_tokens: int) -> list[object]:
    asked = request("go on", max_tokens=max_tokens, sampling=GREEDY)
    return [output async for output in member.node.generate(instance, asked)]
