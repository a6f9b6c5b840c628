"""Answers that are held to a form, by models with random weights: what they say is the grammar's
doing. The tokens are the same whatever the plan, and with drafts."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings

from exo.errors import RequestError
from exo.inference.engine import Sampled
from exo.inference.messages import Finished, RequestFailed
from exo.inference.mlx.engine import MlxEngine
from exo.inference.mlx.masking import masked
from exo.inference.types import FinishReason, Format, GenerateRequest, Sampling
from tests.inference.eager import EagerEngine
from tests.inference.grammars.schemas import schemas
from tests.inference.ranks import Ranks, running
from tests.inference.test_mlx_engine import ids, load, run, spec
from tests.models_maker import make_model

LAYERS = 3
FORMS = [
    Format(kind="json", text=json.dumps(schema))
    for schema in (
        {"type": "array", "items": {"enum": ["ab", "abc", 7, 71]}, "minItems": 3, "maxItems": 9},
        {
            "type": "object",
            "properties": {"on": {"type": "boolean"}, "name": {"type": "string", "maxLength": 9}},
            "required": ["on", "name"],
            "additionalProperties": False,
        },
    )
] + [
    Format(kind="regex", text=r"(ab|cd){8,20}\d{3}"),
    Format(kind="choice", text='["red", "green", "blue"]'),
    Format(kind="lark", text='start: pair{2,6}\npair: /[a-f]{1,4}/ "=" /[0-9]{1,3}/ ";"'),
]
SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=1, seed=3),
    Sampling(temperature=0.8, seed=5, top_k=5),
    Sampling(temperature=0.9, seed=7, top_p=0.8, frequency_penalty=0.5),
    Sampling(temperature=0.9, seed=9, repetition_penalty=1.3, min_p=0.05, logit_bias={70: 5.0}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", layers=LAYERS)


@pytest.fixture(scope="module")
def engine(folder: Path) -> MlxEngine:
    return load(folder)


def asked(form: Format | None, text: str = "Say it.") -> GenerateRequest:
    messages = [{"role": "user", "content": text}]
    return GenerateRequest(request_id="r", messages=messages, format=form)


def said(engine: MlxEngine, sampled: Sequence[Sampled]) -> str:
    detokenizer = engine.detokenizer()
    text = ""
    for one in sampled:
        if one.finish_reason is not FinishReason.STOP:
            detokenizer.add_token(one.token)
    detokenizer.finalize()
    return text + detokenizer.last_segment


def answers(
    engine: MlxEngine, form: Format, tokens: int = 200, bias: dict[int, float] | None = None
) -> list[tuple[str, bool]]:
    """What is said in each of three answers, and whether that is all of it."""
    prepared = engine.prepare(asked(form))
    samplings = [Sampling(seed=n, logit_bias=bias or {}) for n in range(3)]
    found = run(
        engine,
        *(
            spec(n, prepared.prompt, tokens, sampling=sampling, grammar=prepared.grammar)
            for n, sampling in enumerate(samplings)
        ),
    )
    assert not any(one.failure for each in found.values() for one in each)
    return [
        (said(engine, each), each[-1].finish_reason is FinishReason.STOP) for each in found.values()
    ]


def closing(engine: MlxEngine) -> dict[int, float]:
    """A bias to what ends a part of a JSON text, so that answers are about as short as can be."""
    marks = [GenerateRequest(request_id="r", prompt=mark, special=False) for mark in '"]}']
    return {engine.prepare(mark).prompt[0]: 8.0 for mark in marks}


def check_schema(engine: MlxEngine, schema: dict[str, Any]) -> None:
    form = Format(kind="json", text=json.dumps(schema))
    try:
        found = answers(engine, form)
    except RequestError as error:
        assert "cannot be used" in error.message  # noqa: PT017  it is not always raised
        return
    if not any(ended for _, ended in found):
        # Arrays of arrays may need more tokens. The shortest answers to all these schemas are far
        # shorter than what is asked for now.
        found = answers(engine, form, tokens=1500, bias=closing(engine))
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    assert any(ended for _, ended in found), f"no answer came to its end: {found[0][0]!r}"
    for text, ended in found:
        if ended:
            validator.validate(json.loads(text))


RANDOM = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@settings(RANDOM, max_examples=60)
@given(schemas())
def test_what_is_said_meets_its_schema(engine: MlxEngine, schema: dict[str, Any]):
    check_schema(engine, schema)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@settings(RANDOM, max_examples=500, derandomize=False)
@given(schemas())
def test_what_is_said_meets_any_of_many_schemas(engine: MlxEngine, schema: dict[str, Any]):
    check_schema(engine, schema)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=range(len(SAMPLINGS)))
def test_answers_do_not_depend_on_drafts_or_company(
    folder: Path, engine: MlxEngine, sampling: Sampling
):
    drafting = load(folder, EagerEngine, draft="ngram")
    forms = [*FORMS, None]
    prepared = [engine.prepare(asked(form, "ab ab cd " * 4)) for form in forms]
    specs = [
        spec(n, each.prompt, 40, sampling=sampling, grammar=each.grammar)
        for n, each in enumerate(prepared)
    ]
    alone = [ids(run(engine, one)[one.sequence_id]) for one in specs]
    assert [ids(each) for each in run(engine, *specs).values()] == alone
    assert [ids(each) for each in run(drafting, *specs).values()] == alone
    stats = drafting.draft_stats
    assert stats is not None
    assert stats.guessed > 10


def test_probabilities_are_those_of_what_is_drawn_from(engine: MlxEngine):
    """Of what the grammar allows, at temperature 1; what it does not allow is not listed."""
    prepared = engine.prepare(asked(FORMS[3]))
    sampling = Sampling(temperature=1, seed=1, top_k=2)
    sequence = spec(1, prepared.prompt, sampling=sampling, grammar=prepared.grammar, logprobs=10)
    first = run(engine, sequence)[1][0]
    texts = {engine.token_text(token)[0] for token, _ in first.top}
    assert all(any(word.startswith(text) for word in ("red", "green", "blue")) for text in texts)
    assert 3 <= len(first.top) < 10
    assert sum(math.exp(logprob) for _, logprob in first.top) == pytest.approx(1, abs=1e-4)
    assert first.logprob == dict(first.top)[first.token]


def test_an_answer_that_is_cut_short_says_so(engine: MlxEngine):
    prepared = engine.prepare(asked(FORMS[2]))
    [*_, last] = run(engine, spec(1, prepared.prompt, 4, grammar=prepared.grammar))[1]
    assert last.finish_reason is FinishReason.LENGTH


def test_prefixes_are_shared_between_answers_of_different_forms(engine: MlxEngine):
    prepared = [engine.prepare(asked(form, "One two three. " * 12)) for form in FORMS]
    for n, each in enumerate(prepared):
        found = run(engine, spec(n, each.prompt, grammar=each.grammar))[n]
        if n:
            assert found[0].cached_tokens == len(each.prompt) - 1


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 100])
def test_a_mask_is_a_bit_for_each_token(size: int, dtype: mx.Dtype):
    logits = mx.arange(2.0 * size).reshape(2, size).astype(dtype)
    bits = [n % 3 == 0 and n < 64 for n in range(size)]
    packed = bytearray(8)
    for n, bit in enumerate(bits[:64]):
        packed[n // 8] |= bit << n % 8
    found = masked(logits, [bytes(packed), None])
    assert found.dtype == dtype
    assert found[1].tolist() == logits[1].tolist()
    expected = [n if bit else -math.inf for n, bit in enumerate(bits)]
    assert found[0].tolist() == expected


async def test_over_several_ranks_the_answers_are_the_same(folder: Path, engine: MlxEngine):
    prepared = [engine.prepare(asked(form)) for form in FORMS]
    expected = [
        ids(run(engine, spec(1, each.prompt, 30, sampling=sampling, grammar=each.grammar))[1])
        for each in prepared
        for sampling in SAMPLINGS
    ]
    async for ranks in running(Ranks(folder, LAYERS, [1, 2], draft="ngram")):
        asked_for = [
            ranks.ask("Say it.", format=form.model_dump(), max_tokens=30, sampling=sampling)
            for form in FORMS
            for sampling in SAMPLINGS
        ]
        for request_id in asked_for:
            assert isinstance(await ranks.outcome(request_id), Finished)
        assert [ranks.tokens(request_id) for request_id in asked_for] == expected
        bad = ranks.ask("Say it.", format={"kind": "lark", "text": "start: ("})
        refused = await ranks.outcome(bad)
        assert isinstance(refused, RequestFailed)
        assert (refused.error.code, refused.error.param) == ("invalid_request", "response_format")
