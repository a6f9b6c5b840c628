"""A request for pictures over several instances: in time, and with all ways to end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from exo.cluster.drawings import able, draw, drawers
from exo.cluster.requests import Output
from exo.cluster.spread import Drawer, Spread
from exo.cluster.state import ClusterState, Instance, Sharding
from exo.errors import RequestError, RunnerDied
from exo.inference.image.types import DrawFinished, Drawn, DrawRequest
from exo.inference.messages import Accepted
from tests.api.painter import stats
from tests.cluster.factory import device, instance, node


class Studio:
    """Instances that draw when they are told to. A picture is the name of its drawer."""

    def __init__(self) -> None:
        self.may = {name: asyncio.Event() for name in "ab"}
        self.fails: dict[str, Exception] = {}
        self.begun = {name: asyncio.Event() for name in "ab"}
        self.open = 0

    async def run(self, at: str, request: DrawRequest) -> AsyncGenerator[Output]:
        self.open += 1
        try:
            yield Accepted(request_id=request.request_id, prompt_tokens=0)
            self.begun[at].set()
            for index in range(request.first, request.first + request.n):
                await self.may[at].wait()
                if error := self.fails.get(at):
                    raise error
                yield Drawn(request_id=request.request_id, index=index, png=at.encode())
            yield DrawFinished(request_id=request.request_id, stats=stats(request))
        finally:
            self.open -= 1


def spread(n: int) -> Spread:
    request = DrawRequest(request_id="r", prompt="", width=16, height=16, steps=1, seed=5, n=n)
    return Spread(request, [Drawer("a", 1), Drawer("b", 1)])


async def pictures(studio: Studio, n: int) -> dict[int, bytes]:
    """By their numbers, in the order in which they came."""
    said = [each async for each in draw(spread(n), studio.run)]
    assert isinstance(said[0], Accepted)
    assert isinstance(said[-1], DrawFinished)
    assert said[-1].stats.images == n
    return {each.index: each.png for each in said if isinstance(each, Drawn)}


async def test_all_draw_at_the_same_time():
    studio = Studio()
    drawing = asyncio.create_task(pictures(studio, 4))
    for begun in studio.begun.values():
        await begun.wait()
    studio.may["b"].set()
    studio.may["a"].set()
    assert await drawing == {0: b"a", 1: b"a", 2: b"b", 3: b"b"}
    assert studio.open == 0


async def test_what_one_cannot_finish_the_other_one_draws():
    studio = Studio()
    studio.fails["a"] = RunnerDied("gone")
    for may in studio.may.values():
        may.set()
    assert await pictures(studio, 4) == dict.fromkeys(range(4), b"b")
    assert studio.open == 0


@pytest.mark.parametrize("error", [RunnerDied("gone"), ZeroDivisionError()])
async def test_an_error_of_all_ends_the_request(error: Exception):
    studio = Studio()
    studio.fails = dict.fromkeys("ab", error)
    for may in studio.may.values():
        may.set()
    with pytest.raises(type(error)):
        await pictures(studio, 4)
    assert studio.open == 0


async def test_one_that_stops_without_an_end_has_failed():
    async def run(_: str, request: DrawRequest) -> AsyncGenerator[Output]:
        yield Accepted(request_id=request.request_id, prompt_tokens=0)

    with pytest.raises(Exception, match="without finishing"):
        assert [each async for each in draw(spread(1), run)]


async def test_closing_it_cancels_all_parts():
    studio = Studio()
    async with aclosing(draw(spread(4), studio.run)) as outputs:
        assert isinstance(await anext(outputs), Accepted)
        for begun in studio.begun.values():
            await begun.wait()
        assert studio.open == 2
    assert studio.open == 0


def test_a_drawer_is_as_fast_as_its_devices_and_as_busy_as_is_known():
    state = ClusterState(
        nodes={
            "a": node("a", device=device(flops=4e11)),
            "b": node("b", device=device(flops=1e11)),
        }
    )
    fast, slow = instance("i", "a"), instance("j", "b")
    one, other = drawers(state, [fast, slow], lambda i: int(i is slow))
    assert one.pace == pytest.approx(4 * other.pace)
    assert (one.backlog, other.backlog) == (0, 1)
    other = slow.placement.shards[0].model_copy(update={"rank": 1})
    shards = fast.placement.shards
    guided = {"sharding": Sharding.GUIDANCE, "shards": (*shards, other)}
    both = fast.model_copy(update={"placement": fast.placement.model_copy(update=guided)})
    (two,) = drawers(state, [both], lambda _: 0)
    assert two.pace == pytest.approx(one.pace / 2), "twice the slower one's"
    beside = drawers(state, [fast, instance("k", "a")], lambda _: 0)
    assert [each.pace for each in beside] == [pytest.approx(one.pace / 2)] * 2


def test_patches_are_drawn_by_models_that_are_split_over_nodes():
    one = instance("one")
    shards = (one.placement.shards[0],) * 2
    made = {
        "one": one,
        "split": _placed("split", shards=shards),
        "passes": _placed("passes", shards=shards, sharding=Sharding.GUIDANCE),
    }
    whole = DrawRequest(request_id="r", prompt="", width=64, height=64, steps=1, seed=5)
    patches = whole.model_copy(update={"patches": 2})
    assert list(able([*made.values()], whole)) == [*made.values()]
    assert list(able([*made.values()], patches)) == [made["split"]]
    with pytest.raises(RequestError) as caught:
        able([made["one"], made["passes"]], patches)
    assert caught.value.param == "advanced_params.patches"


def _placed(instance_id: str, **fields: object) -> Instance:
    made = instance(instance_id)
    placement = made.placement.model_copy(update=fields)
    return made.model_copy(update={"placement": placement})
