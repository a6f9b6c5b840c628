"""One model over real runner processes with a group of `mx.distributed`: the same answers as alone,
and what comes of a rank that is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.inference.messages import Failed, Finished, Ready
from tests.inference.ranks import Group, Ranks, running
from tests.models_maker import END_ID, make_model

LAYERS = 3
LONG = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}, "max_tokens": 1500}
TEXTS = ["a", "Which word comes next?", "One two three four five six. " * 12, "ünï ☃"]
SAMPLINGS = [
    {"temperature": 0},
    {"temperature": 0.9, "seed": 7, "top_p": 0.9},
    {"temperature": 0.8, "seed": 3, "repetition_penalty": 1.3, "logit_bias": {50: 2.0}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS, scale=2)


@pytest.fixture
async def group(folder: Path) -> AsyncIterator[Group]:
    async for started in running(Group(folder, LAYERS, 2)):
        yield started


@pytest.mark.parametrize(
    ("size", "cuts"), [(2, []), (4, []), (2, [1])], ids=["two", "four", "pipeline"]
)
async def test_answers_are_those_of_one_runner(folder: Path, size: int, cuts: list[int]):
    async def answers(over: Ranks) -> list[object]:
        alone = [await over.answer(t, sampling=s, max_tokens=16) for t in TEXTS for s in SAMPLINGS]
        asked = [over.ask(text, max_tokens=16, n=2, logprobs=3) for text in TEXTS]
        for request_id in asked:
            assert isinstance(await over.outcome(request_id), Finished)
        return [alone, [over.tokens(request_id, index) for request_id in asked for index in (0, 1)]]

    async for one in running(Ranks(folder, LAYERS, [])):
        expected = await answers(one)
    async for several in running(Group(folder, LAYERS, size, cuts)):
        assert await answers(several) == expected


async def test_a_rank_has_a_share_of_the_weights(folder: Path, group: Group):
    async for one in running(Ranks(folder, LAYERS, [])):
        whole = (await one.ranks[0].wait_for(Ready)).memory
    shares = [(await rank.wait_for(Ready)).memory for rank in group.ranks]
    assert shares[0] == shares[1]
    # The embedding and the head are on every rank.
    assert whole / 2 < shares[0] < whole * 0.75
