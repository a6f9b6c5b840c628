"""Which instance a request goes to."""

from types import SimpleNamespace

from exo.cluster.serving import Serving, ServingOptions
from exo.cluster.state import ClusterState, Instance, Runner, RunnerStatus
from tests.cluster.factory import instance, node


def ready(*instances: Instance) -> ClusterState:
    runners = {
        f"{each.instance_id}/0": Runner(
            runner_id="r", instance_id=each.instance_id, rank=0, status=RunnerStatus.READY
        )
        for each in instances
    }
    return ClusterState(
        nodes={"a": node()},
        instances={each.instance_id: each for each in instances},
        runners=runners,
    )


async def chosen(reached: set[str], loads: dict[str, int]) -> str:
    made = [instance().model_copy(update={"instance_id": name}) for name in loads]
    state = ready(*made)

    async def wait_for(_: object) -> ClusterState:
        return state

    asked = SimpleNamespace(
        state=state,
        wait_for=wait_for,
        load=lambda i: loads[i.instance_id],
        reaches=lambda i: i.instance_id in reached,
    )
    serving = Serving(asked, SimpleNamespace(), ServingOptions(auto_place=False, wait=1.0))
    return (await serving.instance_for(made[0].card.model_id)).instance_id


async def test_the_least_busy_instance_answers():
    assert await chosen({"one", "two"}, {"one": 2, "two": 1}) == "two"


async def test_one_that_cannot_be_reached_is_the_last_to_be_asked():
    assert await chosen({"one"}, {"two": 0, "one": 5}) == "one"
    assert await chosen(set(), {"one": 1, "two": 0}) == "two"
