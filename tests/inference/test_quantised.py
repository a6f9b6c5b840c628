"""Quantised keys and values: alone, in batches, over several runners, and where they cannot be."""

from pathlib import Path

import mlx.core as mx
import pytest

from exo.errors import ModelInvalid
from exo.inference.messages import Failed, Finished
from exo.inference.mlx.adapter import (
    CacheList,
    KVCache,
    as_batch,
    cut_rows,
    extend,
    extract,
    make_prompt_cache,
)
from exo.inference.mlx.quantised import QuantisedCache, check_quantisable, quantised
from exo.inference.types import Sampling
from tests.inference.architectures import build, configurations
from tests.inference.eager import EagerEngine
from tests.inference.ranks import Ranks
from tests.inference.test_mlx_engine import PROMPTS, ids, load, run, spec, tokens_of
from tests.models_maker import make_model

LAYERS = 3
LONG = "one two three four five six seven. " * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS, heads=2)


def filled(bits: int, tokens: int, seed: int) -> QuantisedCache:
    cache = QuantisedCache(bits)
    parts = mx.random.normal((2, 1, 2, tokens, 64), key=mx.random.key(seed))
    cache.update_and_fetch(parts[0], parts[1])
    return cache


def numbers(cache: QuantisedCache) -> list[object]:
    """What attention would read."""
    parts = (*cache.keys, *cache.values)
    return [part[..., : cache.offset, :].tolist() for part in parts]


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_a_batch_are_what_they_were_alone(bits: int):
    caches = [filled(bits, tokens, seed) for seed, tokens in enumerate((3, 300, 1))]
    batch = as_batch([caches[0]])
    for cache in caches[1:]:
        extend(batch, as_batch([cache]))
    for row, cache in enumerate(caches):
        assert numbers(extract(batch, row)[0]) == numbers(cache)
    new = mx.random.normal((3, 2, 4, 64), key=mx.random.key(7))
    batch[0].update_and_fetch(new, new)
    cut_rows(batch, [1, 4, 2], 302)
    for row, (cache, kept) in enumerate(zip(caches, (3, 0, 2), strict=True)):
        cache.update_and_fetch(new[row : row + 1, :, :kept], new[row : row + 1, :, :kept])
        assert numbers(extract(batch, row)[0]) == numbers(cache)
    batch[0].filter([0, 2])
    assert batch[0].size() == 6
    assert numbers(extract(batch, 1)[0]) == numbers(caches[2])


def test_a_number_takes_the_bits_that_were_asked_for():
    plain, eight, four = KVCache(), QuantisedCache(8), QuantisedCache(4)
    keys = mx.random.normal((1, 2, 256, 64))
    for cache in (plain, eight, four):
        cache.update_and_fetch(keys, keys)
    assert eight.nbytes < plain.nbytes / 3
    assert four.nbytes < plain.nbytes / 6


def test_only_plain_caches_are_quantised():
    kinds = [KVCache(), CacheList(KVCache())]
    assert [type(cache).__name__ for cache in quantised(kinds, 8)] == [
        "QuantisedCache",
        "CacheList",
    ]
    assert quantised(kinds, None) == kinds


@pytest.mark.parametrize("bits", [4, 8])
def test_answers_alone_and_in_company_are_the_same(folder: Path, bits: int):
    engine = load(folder, kv_bits=bits)
    prompts = [tokens_of(engine, text) for text in (*PROMPTS, LONG)]
    samplings = [Sampling(temperature=0), Sampling(temperature=1, seed=4)] * 3
    asked = [
        spec(n, prompt, sampling=sampling, use_prefix_cache=False)
        for n, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=False))
    ]
    alone = [ids(run(engine, one)[n]) for n, one in enumerate(asked)]
    together = run(engine, *asked)
    assert [ids(together[n]) for n in range(len(asked))] == alone


def test_eight_bits_say_nearly_what_all_bits_say(folder: Path):
    plain, engine = load(folder), load(folder, kv_bits=8)
    prompt = tokens_of(plain, LONG)
    first = run(plain, spec(1, prompt, 1, logprobs=5))[1][0]
    other = run(engine, spec(1, prompt, 1, logprobs=5))[1][0]
    assert other.top[0][0] == first.top[0][0]
    assert other.logprob == pytest.approx(first.logprob, abs=0.05)


def test_a_reused_prefix_changes_nothing(folder: Path):
    engine = load(folder, kv_bits=8)
    prompt = tokens_of(engine, LONG)
    first = ids(run(engine, spec(1, prompt))[1])
    again = run(engine, spec(2, prompt))[2]
    assert again[0].cached_tokens == len(prompt) - 1
    assert ids(again) == first
    longer = [*prompt[:100], *tokens_of(engine, "and")]
    cut = run(engine, spec(3, longer))[3]
    assert cut[0].cached_tokens == 100
    assert ids(cut) == ids(run(load(folder, kv_bits=8), spec(3, longer))[3])


def test_drafts_change_nothing(folder: Path):
    engine = load(folder, kv_bits=8)
    drafting = load(folder, EagerEngine, kv_bits=8, draft="same", draft_path=folder)
    asked = [spec(n, tokens_of(engine, text), 40) for n, text in enumerate(PROMPTS)]
    expected, found = run(engine, *asked), run(drafting, *asked)
    assert [ids(found[n]) for n in range(4)] == [ids(expected[n]) for n in range(4)]
    assert drafting.draft_stats.accepted > 20


async def test_over_several_runners_answers_are_the_same(folder: Path):
    async def answers(ranks: Ranks) -> list[list[int]]:
        try:
            await ranks.start()
            asked = [ranks.ask(text, max_tokens=20, n=2) for text in (*PROMPTS, LONG)]
            for request_id in asked:
                assert isinstance(await ranks.outcome(request_id), Finished)
            return [ranks.tokens(request_id, n) for request_id in asked for n in range(2)]
        finally:
            await ranks.stop()

    alone = await answers(Ranks(folder, LAYERS, [], kv_bits=8))
    assert await answers(Ranks(folder, LAYERS, [1, 2], kv_bits=8)) == alone


def test_heads_of_a_size_that_does_not_divide_are_refused(tmp_path: Path):
    odd = make_model(tmp_path / "odd", heads=4)
    with pytest.raises(ModelInvalid, match="cannot be quantised: a head has 16 and 16 numbers"):
        load(odd, kv_bits=8)


@pytest.mark.parametrize("name", ["gpt_oss", "jamba"])
def test_models_that_keep_something_else_are_refused(name: str):

    model = build(configurations()[name])
    with pytest.raises(ModelInvalid, match="it keeps something else"):
        check_quantisable(model, make_prompt_cache(model), 8)


async def test_a_runner_says_why_it_cannot(tmp_path: Path):
    odd = make_model(tmp_path / "odd", heads=4)
    ranks = Ranks(odd, LAYERS, [], kv_bits=4)
    rank = await ranks._start(0, {})
    try:
        assert "cannot be quantised" in (await rank.wait_for(Failed)).error.message
    finally:
        await rank.stop()
