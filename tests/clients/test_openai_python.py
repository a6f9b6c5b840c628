"""The `openai` Python client: everything it can ask that exo honours, as its own types."""

import math
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

pytestmark = pytest.mark.e2e

MODEL = "exo-demo"
START: list[Any] = [{"role": "user", "content": "How do I start exo?"}]
# Any random model says much at temperature 1: what is drawn differs with the seed.
RANDOM = "tiny"


def ask(client: OpenAI, model: str = MODEL, **fields: Any) -> ChatCompletion:
    return client.chat.completions.create(
        model=model, messages=START, **{"temperature": 0, "max_tokens": 40, **fields}
    )


def stream(client: OpenAI, model: str = MODEL, **fields: Any) -> list[ChatCompletionChunk]:
    return list(
        client.chat.completions.create(
            model=model,
            messages=START,
            stream=True,
            **{"temperature": 0, "max_tokens": 40, **fields},
        )
    )


def text(completion: ChatCompletion, index: int = 0) -> str:
    assert completion.choices[index].message.content is not None
    return completion.choices[index].message.content


def joined(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {MODEL, "tiny", "tiny-4bit"} <= set(ids)
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "exo")
    assert model.created > 1_600_000_000


def test_chat(client: OpenAI) -> None:
    completion = ask(client)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == MODEL
    [choice] = completion.choices
    assert (choice.index, choice.message.role) == (0, "assistant")
    assert "exo" in text(completion)
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert ask(client).id != completion.id


def test_length(client: OpenAI) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        completion = ask(client, **{"max_tokens": None, field: 3})
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage
        assert completion.usage.completion_tokens == 3


def test_roles_and_text_parts(client: OpenAI) -> None:
    part = {"type": "text", "text": "How do I start exo?"}
    messages: list[Any] = [
        {"role": "developer", "content": "Answer shortly."},
        {"role": "user", "content": "Hello", "name": "someone"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "user", "content": [part]},
    ]
    asked = {"model": MODEL, "temperature": 0, "max_tokens": 30}
    in_parts = client.chat.completions.create(messages=messages, **asked)
    messages[0]["role"], messages[-1]["content"] = "system", part["text"]
    assert text(client.chat.completions.create(messages=messages, **asked)) == text(in_parts)


def test_stream(client: OpenAI) -> None:
    chunks = stream(client)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", None]
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert joined(chunks) == text(ask(client))
    assert len(chunks) > 5, "it comes in pieces"


def test_stream_with_usage(client: OpenAI) -> None:
    whole = ask(client, extra_body={"use_prefix_cache": False})
    options = {"stream_options": {"include_usage": True}}
    chunks = stream(client, extra_body={"use_prefix_cache": False}, **options)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert joined(chunks) == text(whole)


def test_stream_that_is_closed_early(client: OpenAI) -> None:
    with client.chat.completions.create(
        model=RANDOM, messages=START, stream=True, max_tokens=2000
    ) as chunks:
        assert next(iter(chunks))
    assert text(ask(client))


@pytest.mark.parametrize("model", [MODEL, RANDOM])
def test_two_answers(client: OpenAI, model: str) -> None:
    wanted = {"n": 2, "temperature": 1, "seed": 11}
    completion = ask(client, model, **wanted)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.usage
    chunks = stream(client, model, stream_options={"include_usage": True}, **wanted)
    assert [joined(chunks, i) for i in (0, 1)] == [text(completion, i) for i in (0, 1)]
    ends = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert sorted(ends) == [0, 1]
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == completion.usage.completion_tokens
    if model == RANDOM:
        assert text(completion, 0) != text(completion, 1)


def test_the_first_of_two_answers_is_the_one_alone(client: OpenAI) -> None:
    wanted = {"temperature": 1, "seed": 11}
    assert text(ask(client, RANDOM, n=2, **wanted)) == text(ask(client, RANDOM, **wanted))


def test_seed(client: OpenAI) -> None:
    wanted = {"temperature": 1, "max_tokens": 30}
    first, second = (text(ask(client, RANDOM, seed=7, **wanted)) for _ in range(2))
    assert first == second
    assert text(ask(client, RANDOM, seed=8, **wanted)) != first
    unseeded = {text(ask(client, RANDOM, **wanted)) for _ in range(3)}
    assert len(unseeded) > 1


@pytest.mark.parametrize("top", [None, 0, 3, 20])
def test_logprobs(client: OpenAI, top: int | None) -> None:
    completion = ask(client, RANDOM, logprobs=True, top_logprobs=top, max_tokens=12)
    found = completion.choices[0].logprobs
    assert found
    assert found.content
    assert completion.usage
    # The token that ends an answer is computed, and is no part of it.
    ends = completion.choices[0].finish_reason == "stop"
    assert len(found.content) == completion.usage.completion_tokens - ends
    assert b"".join(bytes(t.bytes or []) for t in found.content).decode(errors="replace") == text(
        completion
    )
    for token in found.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == (top or 0)
        order = [alternative.logprob for alternative in token.top_logprobs]
        assert order == sorted(order, reverse=True)
        assert sum(math.exp(value) for value in order) <= 1 + 1e-4
        if top:
            best = token.top_logprobs[0]
            assert (best.token, best.bytes) == (token.token, token.bytes), "greedy takes the best"
            assert best.logprob == pytest.approx(token.logprob, abs=1e-5)


def test_streamed_logprobs(client: OpenAI) -> None:
    wanted = {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    whole = ask(client, RANDOM, **wanted).choices[0].logprobs
    assert whole
    tokens = [
        token
        for chunk in stream(client, RANDOM, **wanted)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in tokens] == [token.token for token in whole.content or []]


def stop_cases(whole: str) -> list[str]:
    """Stop strings of several lengths from the middle of an answer: of a few characters and of
    many, so that they begin and end inside of tokens."""
    middle = len(whole) // 3
    return [whole[middle : middle + length] for length in (1, 2, 3, 7, 15)]


def test_stop(client: OpenAI) -> None:
    whole = text(ask(client, max_tokens=60))
    for stop in stop_cases(whole):
        completion = ask(client, stop=stop, max_tokens=60)
        assert text(completion) == whole[: whole.index(stop)], stop
        assert completion.choices[0].finish_reason == "stop"
        assert joined(stream(client, stop=[stop], max_tokens=60)) == text(completion), stop


def test_first_of_several_stops_counts(client: OpenAI) -> None:
    whole = text(ask(client, max_tokens=60))
    stops = [whole[20:24], whole[10:14], "never said"]
    cut = min(whole.index(stop) for stop in stops[:2])
    assert text(ask(client, stop=stops, max_tokens=60)) == whole[:cut]


def test_beginning_of_a_stop_that_never_comes_is_not_lost(client: OpenAI) -> None:
    whole = text(ask(client, max_tokens=60))
    stop = whole[-4:] + " and more"
    assert text(ask(client, stop=stop, max_tokens=60)) == whole
    assert joined(stream(client, stop=stop, max_tokens=60)) == whole


def test_logit_bias(client: OpenAI) -> None:
    def tokens(**fields: Any) -> list[str]:
        logprobs = ask(client, RANDOM, logprobs=True, max_tokens=5, **fields).choices[0].logprobs
        assert logprobs
        return [token.token for token in logprobs.content or []]

    usual = tokens()
    assert tokens(logit_bias={str(number): 0 for number in range(400)}) == usual
    forced = tokens(logit_bias={"70": 100})
    assert len(forced) == 5
    assert len(set(forced)) == 1
    assert set(tokens(logit_bias={"70": 100, "71": -100})) == set(forced)
    assert not set(tokens(logit_bias={"70": -100})) & set(forced)


def test_penalties_change_the_answer(client: OpenAI) -> None:
    plain = text(ask(client, RANDOM, max_tokens=60))
    assert text(ask(client, RANDOM, max_tokens=60, frequency_penalty=2)) != plain
    assert text(ask(client, RANDOM, max_tokens=60, presence_penalty=2)) != plain
    extra = {"repetition_penalty": 5.0}
    assert text(ask(client, RANDOM, max_tokens=60, extra_body=extra)) != plain


def test_what_is_for_the_records_only(client: OpenAI) -> None:
    noted = ask(client, user="someone", metadata={"purpose": "test"}, top_p=1)
    assert text(noted) == text(ask(client))
