"""Real runner processes that draw: alone, as ranks of one ring, and all kinds of end."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, Preview
from exo.inference.messages import Accepted, Cancel, Draw, Failed, RequestFailed
from tests.inference.image.conftest import Folders, noise_png
from tests.inference.ranks import Ranks, running

VARIANT, BLOCKS = "flux.2-klein-base-4b", 3
FIELDS = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4, "seed": 7}


def ranks_of(folder: Path, cuts: list[int]) -> Ranks:
    return Ranks(folder, BLOCKS, cuts, variant=VARIANT)


def ask(ranks: Ranks, request_id: str, **fields: Any) -> None:
    request = DrawRequest(request_id=request_id, **{**FIELDS, **fields})
    ranks.ranks[0].process.send(Draw(request=request))


async def outcome(ranks: Ranks, request_id: str) -> list[Any]:
    """All that was said of a request, up to its end."""
    while True:
        said = [each for each in ranks.ranks[0].said if _id(each) == request_id]
        if said and isinstance(said[-1], DrawFinished | RequestFailed):
            return said
        assert ranks.ranks[0].process.alive
        await asyncio.wait_for(ranks.ranks[0].heard(), 60)


def _id(message: object) -> str | None:
    return getattr(message, "request_id", None)


async def begun(ranks: Ranks, request_id: str, step: int) -> None:
    """Wait until a picture has come so far."""
    while not any(
        isinstance(each, Drawing) and each.request_id == request_id and each.step >= step
        for each in ranks.ranks[0].said
    ):
        await asyncio.wait_for(ranks.ranks[0].heard(), 60)


async def picture(ranks: Ranks, request_id: str, **fields: Any) -> bytes:
    ask(ranks, request_id, **fields)
    said = await outcome(ranks, request_id)
    return next(each.png for each in said if isinstance(each, Drawn))


async def test_a_runner_draws_step_by_step(folders: Folders) -> None:
    async for one in running(ranks_of(folders(VARIANT), [])):
        ask(one, "two", n=2, partial_images=1)
        kinds = [type(each) for each in await outcome(one, "two")]
        each = [Drawing, Drawing, Preview, Drawing, Drawing, Drawn]
        assert kinds == [Accepted, *each, *each, DrawFinished]
        stats = (await outcome(one, "two"))[-1].stats
        assert (stats.images, stats.steps, stats.width) == (2, 4, 64)
        assert stats.peak_memory_usage > 0
        ask(one, "wrong", steps=4, width=40)
        assert (await outcome(one, "wrong"))[-1].error.param == "size"
        ask(one, "long", steps=90)
        await asyncio.wait_for(one.ranks[0].heard(), 60)
        one.ranks[0].process.send(Cancel(request_id="long"))
        assert await picture(one, "after") == await picture(one, "again")


async def test_a_ring_draws_what_one_draws_and_outlives_a_rank(folders: Folders) -> None:
    edit = {"images": (noise_png(1),), "guidance": 3.0}
    async for one in running(ranks_of(folders(VARIANT), [])):
        expected = [await picture(one, "a"), await picture(one, "b", **edit)]
    async for three in running(ranks_of(folders(VARIANT), [1, 2])):
        assert [await picture(three, "a"), await picture(three, "b", **edit)] == expected
        near = await picture(three, "near", patches=3)
        assert near != expected[0]
        ask(three, "given-up", steps=90, patches=3)
        await begun(three, "given-up", step=30)
        three.ranks[0].process.send(Cancel(request_id="given-up"))
        assert await picture(three, "again", patches=3) == near
        assert (await outcome(three, "again"))[-1].stats.approximate
        ask(three, "lost", steps=90, patches=3)
        await begun(three, "lost", step=30)
        os.kill(three.ranks[2].process.pid, signal.SIGKILL)
        assert (await outcome(three, "lost"))[-1].error.code == "ring_broken"
        await three.restart(2)
        assert await picture(three, "c") == expected[0]
        assert await picture(three, "d", patches=3) == near


async def test_what_is_no_model_is_given_up_with_the_reason(tmp_path: Path) -> None:
    rank = await Ranks(tmp_path, BLOCKS, [], variant=VARIANT)._start(0, {})
    try:
        failed = await rank.wait_for(Failed)
        assert failed.error.code == "model_invalid"
        assert "transformer" in failed.error.message
    finally:
        await rank.stop()
