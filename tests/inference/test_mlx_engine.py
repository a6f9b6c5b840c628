"""The MLX engine against mlx-lm itself, on tiny models with random weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_map

from exo.errors import ModelInvalid, RequestError
from exo.inference.engine import Sampled, SequenceSpec
from exo.inference.kernels.use import use_kernels
from exo.inference.messages import Load
from exo.inference.mlx import loading
from exo.inference.mlx.engine import MlxEngine
from exo.inference.steps import Continue, Prefill
from exo.inference.types import FinishReason, Sampling
from tests.models_maker import make_model

TOKENS = 24
PROMPTS = ["Which word comes next?", "a", "One two three four five six seven. " * 3, "ünï ☃"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def engine(folder: Path) -> MlxEngine:
    return load(folder)


def load(folder: Path, make: Callable[[], MlxEngine] = MlxEngine, **changes: object) -> MlxEngine:
    settings = {
        "path": folder,
        "start_layer": 0,
        "end_layer": 3,
        "context_length": 2048,
        "max_concurrency": 8,
        "max_queue": 8,
        "kv_tokens": 10**6,
        "kv_bytes_per_token": 768,
        "prefix_cache_bytes": 10**8,
        "cast_float32": True,
    }
    engine = make()
    engine.load(Load.model_validate({**settings, **changes}), lambda _done, _total: None)
    engine.warm_up()
    return engine


def tokens_of(engine: MlxEngine, text: str) -> list[int]:
    return engine.tokenize([{"role": "user", "content": text}])


def run(engine: MlxEngine, *specs: SequenceSpec) -> dict[int, list[Sampled]]:
    """Compute the sequences together to their end."""
    engine.add(specs)
    found: dict[int, list[Sampled]] = {spec.sequence_id: [] for spec in specs}
    left = set(found)
    while left:
        for sampled in engine.step():
            found[sampled.sequence_id].append(sampled)
            if sampled.finish_reason:
                left.discard(sampled.sequence_id)
    return found


def spec(
    sequence_id: int, prompt: Sequence[int], max_tokens: int = TOKENS, **fields: object
) -> SequenceSpec:
    sampling = fields.pop("sampling", Sampling(temperature=0))
    return SequenceSpec(sequence_id, prompt, max_tokens, sampling, **fields)  # type: ignore[arg-type]


def ids(sampled: Sequence[Sampled]) -> list[int]:
    return [one.token for one in sampled]


def reference(folder: Path, prompt: list[int], cast: bool = True) -> list[int]:
    """What mlx-lm itself generates, greedily."""
    model, tokenizer = mlx_lm.load(str(folder), lazy=True)
    if cast:
        half = (mx.float16, mx.bfloat16)
        model.update(
            tree_map(lambda a: a.astype(mx.float32) if a.dtype in half else a, model.parameters())
        )
    stream = mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=TOKENS)
    return [response.token for response in stream]


@pytest.mark.parametrize(
    "shape",
    [
        {"dtype": mx.float16},
        {"dtype": mx.bfloat16, "files": 3},
        {"dtype": mx.bfloat16, "bits": 4},
        {"dtype": mx.float16, "bits": 8},
        {"dtype": mx.float32},
    ],
    ids=["half", "indexed", "4bit", "8bit", "float32"],
)
def test_greedy_answers_are_those_of_mlx_lm_alone_and_in_company(tmp_path: Path, shape: dict):
    folder = make_model(tmp_path / "model", **shape)
    engine = load(folder)
    prompts = [tokens_of(engine, text) for text in PROMPTS]
    expected = [reference(folder, prompt) for prompt in prompts]
    alone = [ids(run(engine, spec(n, prompt))[n]) for n, prompt in enumerate(prompts)]
    assert alone == expected
    together = run(engine, *(spec(n, p, use_prefix_cache=False) for n, p in enumerate(prompts)))
    assert [ids(together[n]) for n in range(len(prompts))] == expected


def test_without_the_cast_it_is_mlx_lm_without_the_cast(folder: Path):
    engine = load(folder, cast_float32=False)
    prompt = tokens_of(engine, PROMPTS[0])
    assert ids(run(engine, spec(1, prompt))[1]) == reference(folder, prompt, cast=False)


def test_a_reused_prefix_changes_nothing_but_the_work(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[2])
    first = ids(run(engine, spec(1, prompt))[1])
    again = run(engine, spec(2, prompt))[2]
    assert again[0].cached_tokens == len(prompt) - 1
    assert ids(again) == first


def test_a_prompt_that_is_wholly_cached_is_computed_again_from_its_end(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    first = ids(run(engine, spec(1, prompt, max_tokens=1))[1])
    again = run(engine, spec(2, prompt, max_tokens=1))[2]
    assert again[0].cached_tokens == len(prompt) - 1
    assert ids(again) == first


def test_the_answer_is_a_prefix_of_the_next_turn(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    answer = ids(run(engine, spec(1, prompt))[1])
    longer = [*prompt, *answer, *tokens_of(engine, "and then?")]
    first = run(engine, spec(2, longer))[2][0]
    assert first.cached_tokens >= len(prompt) + len(answer) - 1


def test_the_prefix_cache_can_be_declined(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    run(engine, spec(1, prompt))
    assert run(engine, spec(2, prompt, use_prefix_cache=False))[2][0].cached_tokens == 0


SAMPLINGS = [
    Sampling(temperature=1, seed=7),
    Sampling(temperature=0.8, seed=7, top_p=0.9, min_p=0.02),
    Sampling(temperature=0.8, seed=7, top_k=20, top_p=0.9),
    Sampling(temperature=0.8, seed=7, presence_penalty=1, frequency_penalty=1),
    Sampling(temperature=0.8, seed=7, repetition_penalty=1.3, logit_bias={50: 2.0}),
    Sampling(temperature=0.8, seed=7, logit_bias={50: 4.0, 51: -3.0}),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=range(len(SAMPLINGS)))
def test_a_seed_gives_the_same_answer_alone_and_in_company(engine: MlxEngine, sampling: Sampling):
    prompts = [tokens_of(engine, text) for text in PROMPTS]
    alone = ids(run(engine, spec(1, prompts[0], sampling=sampling))[1])
    other = Sampling(temperature=1, seed=8)
    company = [spec(n, p, sampling=other) for n, p in enumerate(prompts[1:], 10)]
    together = run(engine, *company[:2], spec(1, prompts[0], sampling=sampling), *company[2:])
    assert ids(together[1]) == alone


def test_other_seeds_and_other_answers_differ(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    hot = [Sampling(temperature=1, seed=seed) for seed in (1, 2)]
    one = run(engine, spec(1, prompt, sampling=hot[0]), spec(2, prompt, index=1, sampling=hot[0]))
    two = run(engine, spec(3, prompt, sampling=hot[1]))
    assert len({tuple(ids(s)) for s in (one[1], one[2], two[3])}) == 3


def test_a_strong_bias_forces_and_forbids_a_token(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    forced = run(engine, spec(1, prompt, sampling=Sampling(temperature=0, logit_bias={77: 100})))
    assert set(ids(forced[1])) == {77}
    free = ids(run(engine, spec(2, prompt))[2])[0]
    banned = Sampling(temperature=0, logit_bias={free: -100})
    assert ids(run(engine, spec(3, prompt, sampling=banned))[3])[0] != free


def test_a_frequency_penalty_counts_the_answer_only(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    free = ids(run(engine, spec(1, prompt))[1])
    heavy = Sampling(temperature=0, frequency_penalty=2, presence_penalty=2)
    penalised = ids(run(engine, spec(2, [*prompt, *prompt], sampling=heavy))[2])
    same_prompt = ids(run(engine, spec(3, [*prompt, *prompt]))[3])
    assert penalised[0] == same_prompt[0]  # Nothing is answered yet, so nothing is penalised.
    assert len(free) == TOKENS


def test_logprobs_are_of_the_chosen_and_the_likeliest(engine: MlxEngine):
    prompt = tokens_of(engine, PROMPTS[0])
    for sampled in run(engine, spec(1, prompt, logprobs=5))[1]:
        tokens = [token for token, _ in sampled.top]
        values = [value for _, value in sampled.top]
        assert values == sorted(values, reverse=True)
        assert tokens[0] == sampled.token  # Greedy takes the likeliest.
        assert sampled.logprob == values[0] <= 0


def test_a_removed_sequence_does_not_disturb_the_others(engine: MlxEngine):
    prompts = [tokens_of(engine, text) for text in PROMPTS[:2]]
    expected = ids(run(engine, spec(1, prompts[1], use_prefix_cache=False))[1])
    engine.add([spec(2, prompts[0]), spec(3, prompts[1], use_prefix_cache=False)])
    found = engine.step() + engine.step() + engine.step()
    engine.remove([2])
    while not any(sampled.finish_reason for sampled in found):
        found += engine.step()
    assert ids([sampled for sampled in found if sampled.sequence_id == 3]) == expected


def test_a_model_that_cannot_be_batched_is_computed_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """No cache of a tiny llama is like that, so it is said that they are."""
    monkeypatch.setattr(loading, "can_batch", lambda _model: False)
    engine = load(folder)
    prompts = [tokens_of(engine, text) for text in PROMPTS]
    found = run(engine, *(spec(n, prompt) for n, prompt in enumerate(prompts)))
    assert [ids(found[n]) for n in range(4)] == [reference(folder, p) for p in prompts]
    engine.add([spec(9, prompts[0])])
    engine.step()
    engine.remove([9])
    assert all(engine.step() == [] for _ in range(4))
    assert engine.waiting


def test_text_comes_whole_though_tokens_cut_characters(engine: MlxEngine):
    detokenizer = engine.detokenizer()
    text = "naïve ☃ 漢字 🙂"
    prompt = engine._tokenizer.encode(text, add_special_tokens=False)  # type: ignore[union-attr]
    pieces = []
    for token in prompt:
        detokenizer.add_token(token)
        pieces.append(detokenizer.last_segment)
    detokenizer.finalize()
    assert "".join(pieces) + detokenizer.last_segment == text
    assert "�" not in "".join(pieces)
    assert b"".join(engine.token_text(token)[1] for token in prompt) == text.encode()


def test_the_template_may_refuse_and_goes_on_with_an_open_answer(engine: MlxEngine):
    with pytest.raises(RequestError, match="needs its call"):
        engine.tokenize([{"role": "tool", "content": "7"}])
    asked = engine.tokenize([{"role": "user", "content": "hi"}])
    begun = engine.tokenize(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}],
        continues=True,
    )
    assert begun[: len(asked)] == asked
    assert begun[-1] != adapter_end(engine)


def adapter_end(engine: MlxEngine) -> int:
    (end,) = engine._tokenizer.eos_token_ids  # type: ignore[union-attr]
    return end


def test_progress_counts_the_layers_and_the_size_is_that_of_the_weights(folder: Path):
    seen: list[tuple[int, int]] = []
    engine = MlxEngine()
    message = Load.model_validate(
        {
            "path": folder,
            "start_layer": 0,
            "end_layer": 3,
            "context_length": 10,
            "max_concurrency": 1,
            "max_queue": 1,
            "kv_tokens": 10,
            "kv_bytes_per_token": 768,
            "prefix_cache_bytes": 0,
            "cast_float32": True,
        }
    )
    size = engine.load(message, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    on_disk = (folder / "model.safetensors").stat().st_size
    # Half precision is read as it is by the CPU kernels, and becomes float32 without them.
    assert size == pytest.approx(on_disk if use_kernels() else 2 * on_disk, rel=0.15)


def test_the_end_of_text_ends_the_sequence(engine: MlxEngine):
    end = adapter_end(engine)
    ends = Sampling(temperature=0, logit_bias={end: 100})
    (last,) = run(engine, spec(1, tokens_of(engine, "hi"), sampling=ends))[1]
    assert (last.token, last.finish_reason) == (end, FinishReason.STOP)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"hidden_size": 32, "head_dim": 8}, "shape"),
        ({"model_file": "evil.py"}, "custom module"),
    ],
    ids=["unknown architecture", "wrong shapes", "remote code"],
)
def test_what_is_no_model_for_mlx_lm_is_said(tmp_path: Path, change: dict, match: str):
    folder = make_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelInvalid, match=match):
        load(folder)


def chunks_of(engine: MlxEngine, monkeypatch: pytest.MonkeyPatch) -> list[Prefill | Continue]:
    """Everything of prompts that the engine computes from now on."""
    works: list[Prefill | Continue] = []
    planner = engine._planner
    assert planner is not None
    following = planner.next

    def spied(now: float):
        step = following(now)
        if step is not None and isinstance(step.work, Prefill | Continue):
            works.append(step.work)
        return step

    monkeypatch.setattr(planner, "next", spied)
    return works


LONG_PROMPT = [(7 * n) % 300 + 20 for n in range(900)]


@pytest.mark.parametrize("fields", [{}, {"kv_dtype": "float16"}, {"kv_bits": 8}], ids=str)
def test_a_long_prompt_in_parts_and_the_stream_beside_it_are_each_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
):
    # Heads wide enough to be quantised.
    engine = load(make_model(tmp_path / "model", layers=6, heads=2), end_layer=6, **fields)
    long = spec(2, LONG_PROMPT, use_prefix_cache=False)
    stream = spec(1, tokens_of(engine, PROMPTS[0]), 400, use_prefix_cache=False)
    alone = {n: ids(run(engine, each)[n]) for n, each in ((1, stream), (2, long))}
    works = chunks_of(engine, monkeypatch)
    engine.add([stream])
    found = [engine.step() for _ in range(10)]
    engine.add([long])
    while not any(one.sequence_id == 2 and one.finish_reason for some in found for one in some):
        found.append(engine.step())
    assert any(isinstance(work, Continue) for work in works)
    said = [one for some in found for one in some]
    assert [one.token for one in said if one.sequence_id == 2] == alone[2]
    beside = [one.token for one in said if one.sequence_id == 1]
    assert beside == alone[1][: len(beside)]


def test_a_long_prompt_given_up_between_two_parts_is_of_use_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = load(make_model(tmp_path / "model", layers=6), end_layer=6)
    expected = ids(run(engine, spec(2, LONG_PROMPT, use_prefix_cache=False))[2])
    works = chunks_of(engine, monkeypatch)
    engine.add([spec(1, tokens_of(engine, PROMPTS[0]), 400)])
    for _ in range(10):
        engine.step()
    engine.add([spec(3, LONG_PROMPT)])
    while not any(isinstance(work, Continue) and not work.last for work in works):
        engine.step()
    begun = works[-1]
    assert isinstance(begun, Continue)
    engine.remove([3])
    engine.add([spec(4, LONG_PROMPT)])
    again: list[Sampled] = []
    while not (again and again[-1].finish_reason):
        again += [one for one in engine.step() if one.sequence_id == 4]
    assert again[0].cached_tokens == begun.position + begun.size
    assert ids(again) == expected
