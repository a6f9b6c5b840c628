"""64 streams at once, each asked to copy its own word: all complete, none mixed up."""

import asyncio
import json
from dataclasses import dataclass, field

import httpx
import pytest

from .daemon import DONE, PATIENCE, Daemon, chat_body, sse_data

pytestmark = pytest.mark.e2e

STREAMS, TOKENS = 64, 64
# The model knows how these are copied; that it copies at all is what its own tests are for.
CONSONANTS, VOWELS = "bdfgklmnprst", "aeiou"


def words() -> list[str]:
    """Short words that are all different, and none within another."""
    found = [a + b + c for a in CONSONANTS for b in VOWELS for c in CONSONANTS]
    return found[:: len(found) // STREAMS][:STREAMS]


@dataclass
class Answer:
    text: str = ""
    finish_reason: str | None = None
    ids: set[str] = field(default_factory=set[str])
    tokens: int = 0
    done: bool = False


async def ask(client: httpx.AsyncClient, word: str) -> Answer:
    answer = Answer()
    body = chat_body(
        "exo-demo",
        f"Repeat the word {word} 64 times",
        temperature=0,
        max_tokens=TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines()]
    for data in sse_data(lines):
        assert not answer.done, "nothing comes after [DONE]"
        if data == DONE:
            answer.done = True
            continue
        chunk = json.loads(data)
        answer.ids.add(chunk["id"])
        answer.tokens = (chunk["usage"] or {}).get("completion_tokens", 0)
        for choice in chunk["choices"]:
            answer.text += choice["delta"].get("content") or ""
            answer.finish_reason = choice["finish_reason"]
    return answer


async def test_64_streams(shared: Daemon) -> None:
    asked = words()
    assert len(set(asked)) == STREAMS
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=shared.base_url, timeout=PATIENCE, limits=limits, trust_env=False
    ) as client:
        answers = await asyncio.gather(*(ask(client, word) for word in asked))
        alone = [await ask(client, word) for word in asked[::8]]

    assert all(answer.done for answer in answers)
    assert all(answer.finish_reason in {"stop", "length"} for answer in answers)
    assert all(0 < answer.tokens <= TOKENS for answer in answers)
    assert len({tuple(answer.ids) for answer in answers}) == STREAMS, "one id per stream"
    for word, answer in zip(asked, answers, strict=True):
        said = answer.text.lower().split()
        assert not set(said) & (set(asked) - {word}), f"{word} got another one's words"
    assert [answer.text for answer in answers[::8]] == [answer.text for answer in alone]
    right = [word for word, answer in zip(asked, answers, strict=True) if word in answer.text]
    assert len(right) >= 0.9 * STREAMS
