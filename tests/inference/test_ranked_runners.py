"""One model over several real runner processes: the same answers as alone, and all kinds of end."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.inference.messages import (
    Accepted,
    Cancel,
    Failed,
    Finished,
    Listening,
    Ready,
    RequestFailed,
    RingLost,
)
from tests.inference.ranks import Ranks, running
from tests.models_maker import END_ID, make_model

LAYERS = 5
# The model's end of text is made unlikely, so that answers are as long as they may be.
LONG = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}, "max_tokens": 1500}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS)


@pytest.fixture
async def ranks(folder: Path) -> AsyncIterator[Ranks]:
    async for started in running(Ranks(folder, LAYERS, [1, 3])):
        yield started


TEXTS = ["a", "Which word comes next?", "One two three four five six. " * 12, "ünï ☃"]
SAMPLINGS = [
    {"temperature": 0},
    {"temperature": 0.9, "seed": 7, "top_p": 0.9},
    {"temperature": 0.8, "seed": 3, "top_k": 20, "frequency_penalty": 0.5},
    {"temperature": 0.8, "seed": 3, "repetition_penalty": 1.3, "logit_bias": {50: 2.0}},
]


@pytest.mark.parametrize("cuts", [[2], [1, 3], [1, 2, 3, 4]], ids=["two", "three", "five"])
async def test_answers_are_those_of_one_runner_whatever_the_plan(folder: Path, cuts: list[int]):
    async def answers(over: Ranks) -> list[object]:
        alone = [await over.answer(t, sampling=s, max_tokens=24) for t in TEXTS for s in SAMPLINGS]
        asked = [over.ask(text, max_tokens=24, n=2, logprobs=3) for text in TEXTS]
        for request_id in asked:
            assert isinstance(await over.outcome(request_id), Finished)
        together = [over.tokens(request_id, index) for request_id in asked for index in (0, 1)]
        logprobs = [
            [p.top[0].token for d in over.deltas(r) if not d.index for p in d.logprobs]
            for r in asked
        ]
        return [alone, together, logprobs]

    async for one in running(Ranks(folder, LAYERS, [])):
        expected = await answers(one)
    async for several in running(Ranks(folder, LAYERS, cuts)):
        assert await answers(several) == expected


async def test_a_repeated_prompt_is_not_computed_again_on_any_rank(ranks: Ranks):
    first = await ranks.answer(TEXTS[2], max_tokens=8)
    request_id = ranks.ask(TEXTS[2], max_tokens=8)
    end = await ranks.outcome(request_id)
    assert isinstance(end, Finished)
    assert end.stats.cached_tokens == end.stats.prompt_tokens - 1
    assert ranks.tokens(request_id) == first
    spent = end.stats.decode_stages
    assert len(spent) == len(ranks.ranks)
    assert all(0 < seconds < end.stats.total_time for seconds in spent)


@pytest.mark.parametrize("rank", [0, 1, 2])
async def test_a_rank_that_dies_ends_the_answers_and_the_others_keep_their_layers(
    ranks: Ranks, rank: int
):
    expected = await ranks.answer("a", max_tokens=8)
    request_id = ranks.ask("go on", **LONG)
    while len(ranks.tokens(request_id)) < 3:
        await ranks.ranks[0].heard()
    pids = [each.process.pid for each in ranks.ranks]
    marks = [len(each.said) for each in ranks.ranks]
    os.kill(pids[rank], signal.SIGKILL)
    if rank != 0:
        end = await ranks.outcome(request_id)
        assert isinstance(end, RequestFailed)
        assert end.error.code == "ring_broken"
    await ranks.lost(marks, rank)
    await ranks.restart(rank)
    assert [each.process.pid for each in ranks.ranks if each.process.pid in pids] == [
        pid for at, pid in enumerate(pids) if at != rank
    ]
    assert await ranks.answer("a", max_tokens=8) == expected


@pytest.mark.parametrize("rank", [1, 2])
async def test_a_rank_that_sleeps_ends_the_answers_and_is_taken_back_when_it_wakes(
    ranks: Ranks, rank: int
):
    request_id = ranks.ask("go on", **LONG)
    marks = [len(each.said) for each in ranks.ranks]
    pid = ranks.ranks[rank].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            end = await ranks.outcome(request_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert isinstance(end, RequestFailed)
    await ranks.lost(marks, rank)
    for each, mark in zip(ranks.ranks, marks, strict=True):
        await each.wait_for(Ready, mark)
    assert len(await ranks.answer("a", max_tokens=4)) == 4


async def test_a_cancelled_answer_leaves_the_ring_to_the_others(ranks: Ranks):
    expected = await ranks.answer("b", max_tokens=16)
    gone = ranks.ask("go on", **LONG)
    other = ranks.ask("b", max_tokens=16)
    ranks.ranks[0].process.send(Cancel(request_id=gone))
    assert isinstance(await ranks.outcome(other), Finished)
    assert ranks.tokens(other) == expected
    assert not any(isinstance(m, RingLost) for each in ranks.ranks for m in each.said[20:])


async def test_an_answer_can_be_given_up_before_the_ring_stands(folder: Path):
    ranks = Ranks(folder, LAYERS, [1, 3])
    ranks.ranks = [await ranks._start(rank, {}) for rank in range(3)]
    try:
        gone = ranks.ask("go on", **LONG)
        ranks.ranks[0].process.send(Cancel(request_id=gone))
        await ranks.connect()
        assert len(await ranks.answer("b", max_tokens=4)) == 4
        assert not ranks.deltas(gone)
    finally:
        await ranks.stop()


async def test_an_answer_can_be_given_up_while_its_prompt_is_computed(ranks: Ranks):
    expected = await ranks.answer("b", max_tokens=8)
    for number in range(3):
        # Another one each time: of what was computed before, nothing is computed again.
        gone = ranks.ask(f"word {number} " * 300, max_tokens=100)
        while not any(
            isinstance(said, Accepted) and said.request_id == gone for said in ranks.ranks[0].said
        ):
            await ranks.ranks[0].heard()
        ranks.ranks[0].process.send(Cancel(request_id=gone))
        assert await ranks.answer("b", max_tokens=8) == expected
        # Where this process was late to cancel, some tokens had come; no more do.
        said = len(ranks.tokens(gone))
        assert said < 100
        assert await ranks.answer("b", max_tokens=8) == expected
        assert len(ranks.tokens(gone)) == said
    assert not any(isinstance(m, RingLost) for each in ranks.ranks for m in each.said[20:])


async def test_messages_that_the_template_makes_nothing_of_are_refused(
    folder: Path, tmp_path: Path
):
    silent = tmp_path / "silent"
    shutil.copytree(folder, silent)
    config = silent / "tokenizer_config.json"
    settings = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**settings, "chat_template": "{{ '' }}"}), "utf-8")
    async for ranks in running(Ranks(silent, LAYERS, [2])):
        end = await ranks.outcome(ranks.ask("anything"))
        assert isinstance(end, RequestFailed)
        assert (end.error.code, end.error.param) == ("invalid_request", "messages")
        assert "makes nothing of these messages" in end.error.message


async def test_a_rank_without_layers_is_refused(folder: Path):
    ranks = Ranks(folder, LAYERS, [LAYERS])
    rank = await ranks._start(1, {})
    other = await ranks._start(0, {})
    ranks.ranks = [other, rank]
    waiting = asyncio.create_task(ranks.connect())
    try:
        failed = await rank.wait_for(Failed)
        assert "A model of 5 layers has no layers 5-5" in failed.error.message
    finally:
        waiting.cancel()
        await ranks.stop()


@pytest.mark.parametrize("rank", [1, 2])
async def test_a_rank_that_cannot_go_on_ends_the_answers_before_it_is_killed(
    folder: Path, rank: int
):
    ranks = Ranks(folder, LAYERS, [1, 3])
    try:
        for at in range(3):
            ranks._engine = "tests.inference.tight:NoRoomToCompute" if at == rank else "mlx"
            ranks.ranks.append(await ranks._start(at, {}))
        await ranks.connect()
        end = await ranks.outcome(ranks.ask("go on", **LONG))
        assert isinstance(end, RequestFailed)
        assert end.error.code == "ring_broken"
        assert "no memory left" in (await ranks.ranks[rank].wait_for(Failed)).error.message
    finally:
        await ranks.stop()


async def test_ranks_of_other_files_say_so_before_they_load(folder: Path, tmp_path: Path):
    other = make_model(tmp_path / "other", layers=LAYERS, seed=1)
    facts = []
    for path in (folder, other):
        over = Ranks(path, LAYERS, [2])
        rank = await over._start(1, {})
        facts.append((await rank.wait_for(Listening)).facts)
        await rank.stop()
    assert {name for name in facts[0] if facts[0][name] != facts[1][name]} == {"weights"}


async def test_a_rank_whose_files_are_broken_says_so(folder: Path, tmp_path: Path):
    broken = make_model(tmp_path / "broken", layers=LAYERS)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    ranks = Ranks(broken, LAYERS, [2])
    ranks.ranks = [await ranks._start(rank, {}) for rank in range(2)]
    waiting = asyncio.create_task(ranks.connect())
    assert (await ranks.ranks[1].wait_for(Failed)).error.code == "model_invalid"
    waiting.cancel()
    await ranks.stop()
