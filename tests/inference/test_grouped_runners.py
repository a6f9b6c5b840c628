"""One model over real runner processes with a group of `mx.distributed`: the same answers as alone,
and what comes of a rank that is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.inference.messages import Failed, Finished, Listening, Ready
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
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS, scale=3)


@pytest.fixture
async def group(folder: Path) -> AsyncIterator[Group]:
    async for started in running(Group(folder, LAYERS, 2)):
        yield started


@pytest.mark.parametrize("cuts", [[], [1]], ids=["tensor", "pipeline"])
async def test_answers_are_those_of_one_runner(folder: Path, cuts: list[int]):
    async def answers(over: Ranks) -> list[object]:
        alone = [await over.answer(t, sampling=s, max_tokens=16) for t in TEXTS for s in SAMPLINGS]
        asked = [over.ask(text, max_tokens=16, n=2, logprobs=3) for text in TEXTS]
        for request_id in asked:
            assert isinstance(await over.outcome(request_id), Finished)
        held = {"kind": "regex", "text": "(ab|cd){6,9}[0-9]{3}"}
        alone.append(await over.answer("a", format=held, max_tokens=40))
        return [alone, [over.tokens(request_id, index) for request_id in asked for index in (0, 1)]]

    async for one in running(Ranks(folder, LAYERS, [])):
        expected = await answers(one)
    async for several in running(Group(folder, LAYERS, 2, cuts)):
        assert await answers(several) == expected


async def test_packed_weights_are_split_between_their_groups(tmp_path: Path):
    packed = make_model(tmp_path / "packed", layers=2, scale=2, bits=4)
    async for one in running(Ranks(packed, 2, [])):
        expected = await one.answer("a", max_tokens=12)
    async for several in running(Group(packed, 2, 2)):
        assert await several.answer("a", max_tokens=12) == expected


async def test_quantised_keys_and_values_are_split_between_heads(tmp_path: Path):
    wide = make_model(tmp_path / "wide", layers=2, scale=2, heads=2)
    async for one in running(Ranks(wide, 2, [], kv_bits=8)):
        expected = await one.answer("a", max_tokens=12)
    async for several in running(Group(wide, 2, 2, kv_bits=8)):
        assert await several.answer("a", max_tokens=12) == expected


async def test_drafts_change_nothing_about_the_answers(folder: Path):
    async for one in running(Ranks(folder, LAYERS, [])):
        expected = [await one.answer(TEXTS[2], sampling=s, max_tokens=24) for s in SAMPLINGS]
    guessing = Group(folder, LAYERS, 2, draft="ngram")
    async for several in running(guessing):
        found = [await several.answer(TEXTS[2], sampling=s, max_tokens=24) for s in SAMPLINGS]
    assert found == expected


async def test_three_ranks_answer_as_one(folder: Path):
    # Ranks that wait for each other keep a core busy, so more of them than cores are slow.
    async for one in running(Ranks(folder, LAYERS, [])):
        expected = await one.answer("a", max_tokens=6)
    async for several in running(Group(folder, LAYERS, 3)):
        assert await several.answer("a", max_tokens=6) == expected


async def test_a_repeated_prompt_is_not_computed_again_on_any_rank(group: Group):
    first = await group.answer(TEXTS[2], max_tokens=4)
    request_id = group.ask(TEXTS[2], max_tokens=4)
    end = await group.outcome(request_id)
    assert isinstance(end, Finished)
    assert end.stats.cached_tokens == end.stats.prompt_tokens - 1
    assert group.tokens(request_id) == first


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "sleeps"])
async def test_when_a_rank_is_lost_in_the_middle_of_an_answer_the_others_give_up(
    group: Group, rank: int, sign: signal.Signals
):
    expected = await group.answer("a", max_tokens=4)
    request_id = group.ask("go on", **LONG)
    while len(group.tokens(request_id)) < 3:
        await group.ranks[0].heard()
    os.kill(group.ranks[rank].process.pid, sign)
    async with asyncio.timeout(10):
        failed = await group.given_up(1 - rank)
    assert failed.error.code == "ring_broken"
    # Nothing is left that could not be formed again.
    await group.start_again()
    assert await group.answer("a", max_tokens=4) == expected


async def test_a_rank_that_is_lost_while_nothing_is_computed_is_noticed(group: Group):
    await group.ranks[1].stop()
    assert (await group.given_up(0)).error.code == "ring_broken"


async def test_a_group_that_is_not_formed_yet_waits_for_a_rank_that_dies(folder: Path):
    group = Group(folder, LAYERS, 2)
    group.ranks = [await group._start(rank, {}) for rank in range(2)]
    try:
        gone = await group.ranks[1].wait_for(Listening)
        os.kill(group.ranks[1].process.pid, signal.SIGKILL)
        await group.restart(1)
        assert gone.certificate != (await group.ranks[1].wait_for(Listening)).certificate
        assert not any(isinstance(message, Failed) for message in group.ranks[0].said)
        assert len(await group.answer("a", max_tokens=2)) == 2
    finally:
        await group.stop()


async def test_a_model_that_cannot_be_split_so_is_refused_with_the_reason(tmp_path: Path):
    narrow = make_model(tmp_path / "narrow", layers=LAYERS)
    group = Group(narrow, LAYERS, 3)
    group.ranks = [await group._start(rank, {}) for rank in range(3)]
    waiting = asyncio.create_task(group.connect())
    try:
        for rank in range(3):
            failed = await group.given_up(rank)
            assert failed.error.code in {"model_invalid", "ring_broken"}
            if failed.error.code == "model_invalid":
                assert "4 attention heads cannot be divided by 3" in failed.error.message
    finally:
        waiting.cancel()
        await group.stop()


async def test_a_rank_has_a_share_of_the_weights(folder: Path, group: Group):
    async for one in running(Ranks(folder, LAYERS, [])):
        whole = (await one.ranks[0].wait_for(Ready)).memory
    shares = [(await rank.wait_for(Ready)).memory for rank in group.ranks]
    assert shares[0] == shares[1]
    # The embedding and the head are on every rank.
    assert whole / 2 < shares[0] < whole * 0.75
