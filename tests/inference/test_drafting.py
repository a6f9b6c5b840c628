"""Drafts on real models: the answers are those without, on one runner and over several."""

from pathlib import Path
from typing import Any

import pytest

from exo.errors import ModelInvalid
from exo.inference.engine import Sampled
from exo.inference.messages import DraftStats, Failed, Finished
from exo.inference.mlx import loading
from exo.inference.mlx.engine import MlxEngine
from exo.inference.types import FinishReason, Sampling
from tests.inference.eager import EagerEngine
from tests.inference.ranks import Ranks
from tests.inference.test_mlx_engine import SAMPLINGS, ids, run, spec, tokens_of
from tests.inference.test_mlx_engine import load as load_engine
from tests.models_maker import END_ID, make_model

LAYERS = 3
GREEDY = Sampling(temperature=0)
# Few tokens are likely, so that what was said before is said again.
FEW = {70: 30.0, 71: 30.0, 72: 30.0}
REPEATING = Sampling(temperature=0.3, seed=5, top_k=3, logit_bias=FEW)
TEXTS = ["one two three one two three one two", "a", "Which word comes next? " * 8]
# What a whole model, one that is much like it and one that is not make of the same prompts.
DRAFTS = ["ngram", "same", "other"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "same", layers=LAYERS)
    make_model(folder / "other", layers=2, seed=9)
    return folder


def load(folder: Path, **changes: object) -> MlxEngine:
    return load_engine(folder, EagerEngine, **changes)


def drafts(models: Path, name: str) -> dict[str, Any]:
    return {"draft": name, "draft_path": None if name == "ngram" else models / name}


def whole(sampled: list[Sampled]) -> list[tuple[int, FinishReason | None]]:
    return [(one.token, one.finish_reason) for one in sampled]


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("sampling", [GREEDY, REPEATING, *SAMPLINGS], ids=range(2 + len(SAMPLINGS)))
def test_one_answer_is_as_without_drafts(models: Path, name: str, sampling: Sampling):
    plain, drafting = load(models / "same"), load(models / "same", **drafts(models, name))
    for text in TEXTS:
        prompt = tokens_of(plain, text)
        for most in (1, 2, 7, 40):
            expected = run(plain, spec(1, prompt, most, sampling=sampling))[1]
            assert whole(run(drafting, spec(1, prompt, most, sampling=sampling))[1]) == whole(
                expected
            )
    stats = drafting.draft_stats
    assert stats is not None
    assert 0 <= stats.accepted <= stats.guessed
    if name == "same":
        assert stats.accepted > 0.9 * stats.guessed > 50


@pytest.mark.parametrize("name", DRAFTS)
def test_answers_in_company_are_as_without_drafts(models: Path, name: str):
    plain, drafting = load(models / "same"), load(models / "same", **drafts(models, name))
    samplings = [GREEDY, REPEATING, GREEDY, *SAMPLINGS[2:]]
    specs = [
        spec(n, tokens_of(plain, TEXTS[n % 3]), 10 + 7 * n, sampling=sampling)
        for n, sampling in enumerate(samplings)
    ]
    expected = run(plain, *specs)
    found = run(drafting, *specs)
    assert {n: ids(each) for n, each in found.items()} == {
        n: ids(each) for n, each in expected.items()
    }
    assert drafting.draft_stats.guessed > 10


def test_logprobs_are_those_of_the_tokens_that_were_drawn(models: Path):
    plain, drafting = load(models / "same"), load(models / "same", **drafts(models, "same"))
    prompt = tokens_of(plain, TEXTS[0])
    expected = run(plain, spec(1, prompt, logprobs=3))[1]
    found = run(drafting, spec(1, prompt, logprobs=3))[1]
    assert [[t for t, _ in one.top] for one in found] == [
        [t for t, _ in one.top] for one in expected
    ]
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected])


def test_an_answer_ends_within_a_draft(models: Path):
    """The token that ends it is likely enough to come soon, and so to be guessed."""
    sampling = Sampling(temperature=1, seed=1, logit_bias={END_ID: 6.0})
    plain, drafting = load(models / "same"), load(models / "same", **drafts(models, "ngram"))
    drafting._planner.speculation._drafter = Ends()
    prompt = tokens_of(plain, TEXTS[0])
    ends = 0
    for seed in range(12):
        asked = sampling.model_copy(update={"seed": seed})
        expected = run(plain, spec(1, prompt, 60, sampling=asked))[1]
        assert whole(run(drafting, spec(1, prompt, 60, sampling=asked))[1]) == whole(expected)
        ends += expected[-1].finish_reason is FinishReason.STOP
    assert ends > 3
    assert drafting.draft_stats.guessed > 100


class Ends:
    """Always guesses that the answer ends now, and then goes on."""

    seconds = 0.0

    def draft(self, _spec: object, _generated: object, count: int) -> tuple[int, ...]:
        return (END_ID, 7, 7)[:count]

    def forget(self, sequence_id: int) -> None:
        pass

    def clear(self) -> None:
        pass


def test_prefixes_are_reused_and_correct_after_drafts(models: Path):
    drafting = load(models / "same", **drafts(models, "same"))
    plain = load(models / "same")
    prompt = tokens_of(plain, TEXTS[2])
    answer = ids(run(drafting, spec(1, prompt, 50))[1])
    longer = [*prompt, *answer, *tokens_of(plain, "go on")]
    again = run(drafting, spec(2, longer))[2]
    assert again[0].cached_tokens >= len(prompt) + len(answer) - 1
    assert ids(again) == ids(run(plain, spec(2, longer))[2])


def test_a_model_without_batches_has_drafts_too(models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "can_batch", lambda _model: False)
    drafting = load(models / "same", **drafts(models, "other"))
    plain = load(models / "same")
    specs = [spec(n, tokens_of(plain, text), 30) for n, text in enumerate(TEXTS)]
    expected = run(plain, *specs)
    found = run(drafting, *specs)
    assert [ids(found[n]) for n in range(3)] == [ids(expected[n]) for n in range(3)]


def test_a_prompt_that_is_long_for_the_draft_model_is_caught_up_with(models: Path):
    drafting = load(models / "same", **drafts(models, "same"))
    prompt = [4 + n * 7 % 300 for n in range(700)]
    expected = ids(run(load(models / "same"), spec(1, prompt, 30))[1])
    assert ids(run(drafting, spec(1, prompt, 30))[1]) == expected
    assert drafting.draft_stats.accepted > 5


def test_a_draft_model_with_other_tokens_is_refused(models: Path, tmp_path: Path):
    other = make_model(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"<unk>"', '"<unknown>"'), "utf-8")
    with pytest.raises(ModelInvalid, match="other cannot draft for this model: their tokens"):
        load(models / "same", draft="other", draft_path=other)


def test_a_model_that_cannot_go_back_says_so_and_answers(
    models: Path, monkeypatch: pytest.MonkeyPatch
):
    """No cache of a tiny llama is like that, so it is said that they are."""
    monkeypatch.setattr(loading, "obstacle_to_cutting", lambda _model: "it has a window")
    engine = load(models / "same", draft="ngram")
    assert engine.draft_stats == DraftStats(
        off="This model cannot take back a wrong draft: it has a window."
    )
    assert len(run(engine, spec(1, [4, 5, 4, 5], 5))[1]) == 5


FIELDS = [
    {"max_tokens": 40},
    {"max_tokens": 40, "sampling": {"temperature": 0, "logit_bias": FEW}},
    {"max_tokens": 30, "sampling": REPEATING.model_dump(), "logprobs": 2},
    {"max_tokens": 30, "sampling": SAMPLINGS[3].model_dump()},
    {"max_tokens": 30, "n": 3, "sampling": SAMPLINGS[4].model_dump()},
    {"max_tokens": 60, "stop": ["e"]},
]


@pytest.mark.parametrize("cuts", [[1], [1, 2]], ids=["two", "three"])
@pytest.mark.parametrize("name", ["ngram", "same"])
async def test_over_several_runners_answers_are_as_without(
    models: Path, name: str, cuts: list[int]
):
    async def answers(ranks: Ranks) -> list[object]:
        try:
            await ranks.start(engine="tests.inference.eager:EagerEngine")
            alone = [await ranks.answer(TEXTS[0], **fields) for fields in FIELDS]
            asked = [ranks.ask(TEXTS[n % 3], **f) for n, f in enumerate(FIELDS)]
            for request_id in asked:
                assert isinstance(await ranks.outcome(request_id), Finished)
            together = [ranks.tokens(r, index) for r in asked for index in range(3)]
            logprobs = [d.logprobs for d in ranks.deltas(asked[1])]
            return [alone, together, [p.top[0].token for each in logprobs for p in each]]
        finally:
            await ranks.stop()

    plain = Ranks(models / "same", LAYERS, [])
    several = Ranks(models / "same", LAYERS, cuts, **drafts(models, name))
    assert await answers(several) == await answers(plain)
    stats = [said for said in several.ranks[0].said if isinstance(said, DraftStats)]
    assert stats[-1].accepted


async def test_a_runner_says_why_a_draft_model_is_refused(models: Path, tmp_path: Path):
    other = make_model(tmp_path / "other")
    (other / "config.json").unlink()
    ranks = Ranks(models / "same", LAYERS, [], draft="other", draft_path=other)
    rank = await ranks._start(0, {})
    try:
        failed = await rank.wait_for(Failed)
        assert failed.error.code == "model_invalid"
    finally:
        await rank.stop()
