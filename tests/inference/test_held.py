"""Keys and values in half precision beside float32: alone, in batches, over several runners."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.models.cache import BatchKVCache, KVCache, RotatingKVCache

from exo.inference.messages import Finished
from exo.inference.mlx.adapter import CacheList, as_batch, extend, extract, states
from exo.inference.mlx.held import KvForm
from exo.inference.mlx.quantised import QuantisedCache
from exo.inference.types import Sampling
from tests.inference.architectures import build, configurations
from tests.inference.eager import EagerEngine
from tests.inference.ranks import Ranks
from tests.inference.test_mlx_engine import PROMPTS, ids, load, run, spec, tokens_of
from tests.models_maker import make_model

LAYERS = 3
LONG = "one two three four five six seven. " * 40
HALF = KvForm(dtype=mx.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS, heads=2)


def new(tokens: int) -> mx.array:
    return mx.random.normal((1, 2, tokens, 16))


@pytest.mark.parametrize("plain", [KVCache(), RotatingKVCache(300)])
def test_what_is_kept_has_the_type_from_the_first_token_on_and_in_every_batch(plain: KVCache):
    (one,) = HALF.of([plain])
    (other,) = HALF.of([type(plain)(300) if isinstance(plain, RotatingKVCache) else type(plain)()])
    for tokens in (5, 290, 1):
        for part in one.update_and_fetch(new(tokens), new(tokens)):
            assert part.dtype == mx.bfloat16
    other.update_and_fetch(new(3), new(3))
    batch = as_batch([one])
    extend(batch, as_batch([other]))
    rows = mx.concatenate([new(1), new(1)])
    for part in batch[0].update_and_fetch(rows, rows):
        assert part.dtype == mx.bfloat16
    (left,) = extract(batch, 1)
    assert isinstance(left, type(plain))
    left.update_and_fetch(new(1), new(1))
    assert {part.dtype for part in left.state[:2]} == {mx.bfloat16}
    assert left.offset == 5


def test_an_empty_batch_keeps_what_comes_in_that_type():
    batch = as_batch(HALF.of([KVCache()]))
    assert isinstance(batch[0], BatchKVCache)
    keys, values = batch[0].update_and_fetch(new(4), new(4))
    assert keys.dtype == values.dtype == mx.bfloat16


def test_other_caches_stay_as_they_are():
    caches = build(configurations()["jamba"]).make_cache()
    kinds = [type(cache) for cache in caches]
    changed = [type(cache) is not kind for cache, kind in zip(HALF.of(caches), kinds, strict=True)]
    assert changed == [kind is KVCache for kind in kinds]
    assert {True, False} == set(changed)
    assert KvForm().of(caches) == caches
    (listed,) = HALF.of([CacheList(KVCache())])
    assert isinstance(listed, CacheList)
    assert type(listed.caches[0]).__name__ == "HeldKVCache"


def test_bits_go_before_a_type():
    (cache,) = KvForm(8, mx.float16).of([KVCache()])
    assert isinstance(cache, QuantisedCache)


def test_it_takes_half_of_the_memory(folder: Path):
    sizes: list[int] = []
    for dtype in ("", "float16"):
        stage = load(folder, kv_dtype=dtype)._executor._stage
        cache = stage.make_cache()
        stage(mx.zeros((1, 300), mx.int32), (), cache)
        mx.eval(states(cache))
        sizes.append(sum(each.nbytes for each in cache))
    assert sizes[1] * 2 == sizes[0]


def test_answers_are_nearly_those_of_float32(folder: Path):
    plain, engine = load(folder), load(folder, kv_dtype="float16")
    prompt = tokens_of(plain, LONG)
    first = run(plain, spec(1, prompt, 1, logprobs=5))[1][0]
    other = run(engine, spec(1, prompt, 1, logprobs=5))[1][0]
    assert other.top[0][0] == first.top[0][0]
    assert other.logprob == pytest.approx(first.logprob, abs=1e-3)


def test_answers_alone_in_company_and_with_drafts_are_the_same(folder: Path):
    engine = load(folder, kv_dtype="float16")
    drafting = load(folder, EagerEngine, kv_dtype="float16", draft="same", draft_path=folder)
    samplings = [Sampling(temperature=0), Sampling(temperature=1, seed=4)] * 3
    asked = [
        spec(n, tokens_of(engine, text), sampling=sampling, use_prefix_cache=False)
        for n, (text, sampling) in enumerate(zip((*PROMPTS, LONG), samplings, strict=False))
    ]
    alone = [ids(run(engine, one)[n]) for n, one in enumerate(asked)]
    for together in (run(engine, *asked), run(drafting, *asked)):
        assert [ids(together[n]) for n in range(len(asked))] == alone
    assert drafting.draft_stats.accepted > 20


def test_a_reused_prefix_changes_nothing(folder: Path):
    engine = load(folder, kv_dtype="bfloat16")
    prompt = tokens_of(engine, LONG)
    first = ids(run(engine, spec(1, prompt))[1])
    again = run(engine, spec(2, prompt))[2]
    assert again[0].cached_tokens == len(prompt) - 1
    assert ids(again) == first


async def test_over_several_runners_answers_are_the_same(folder: Path):
    async def answers(ranks: Ranks) -> list[list[int]]:
        try:
            await ranks.start()
            asked = [ranks.ask(text, max_tokens=20) for text in (*PROMPTS, LONG)]
            for request_id in asked:
                assert isinstance(await ranks.outcome(request_id), Finished)
            return [ranks.tokens(request_id, 0) for request_id in asked]
        finally:
            await ranks.stop()

    alone = await answers(Ranks(folder, LAYERS, [], kv_dtype="float16"))
    assert await answers(Ranks(folder, LAYERS, [1, 2], kv_dtype="float16")) == alone
