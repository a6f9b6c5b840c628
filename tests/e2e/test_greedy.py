"""Greedy answers are `mlx_lm.generate`'s, token for token, for every layout of a model folder,
where it keeps keys and values in the type that exo keeps them in."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exo.models.registry import BUNDLED

from .daemon import DONE, Daemon, Json, content_of

pytestmark = pytest.mark.e2e

MODELS = ["tiny", "tiny-indexed", "tiny-4bit", "exo-demo"]
PROMPTS = ["Hello", "Which command shows the logs?", "word " * 300, "Grüße, 你好 🙂"]
TOKENS = 48


@pytest.fixture(scope="module")
def expected(shared: Daemon, models: Path) -> dict[tuple[str, str], str]:
    """What `mlx_lm.generate` says to each prompt, by model and prompt."""
    for model in MODELS:
        shared.text(model, max_tokens=1)  # It is placed now, if it was not.
    kept = {
        instance["model_id"]: instance["shards"][0]["kv_dtype"]
        for instance in shared.get("/instance")["data"]
    }
    pairs = [(model, prompt) for model in MODELS for prompt in PROMPTS]
    jobs = [
        {
            "path": str((BUNDLED if model == "exo-demo" else models) / model),
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "kv_dtype": kept[model],
        }
        for model, prompt in pairs
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("reference.py")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return dict(zip(pairs, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_identical(shared: Daemon, expected: dict[tuple[str, str], str], model: str) -> None:
    """Asked anew, asked again (from the prefix cache), streamed, and without the cache."""
    wanted = {prompt: expected[model, prompt] for prompt in PROMPTS}
    fields = {"temperature": 0, "max_tokens": TOKENS}
    assert len(set(wanted.values())) > 1, "else this shows nothing"
    for _ in range(2):
        assert {prompt: shared.text(model, prompt, **fields) for prompt in PROMPTS} == wanted
    streamed: dict[str, str] = {}
    for prompt in PROMPTS:
        with shared.stream(model, prompt, **fields) as lines:
            streamed[prompt] = "".join(content_of(data) for data in lines)
    assert streamed == wanted
    uncached = {p: shared.text(model, p, use_prefix_cache=False, **fields) for p in PROMPTS}
    assert uncached == wanted


@pytest.mark.parametrize("model", MODELS)
def test_sampling_that_leaves_one_choice_is_greedy(
    shared: Daemon, expected: dict[tuple[str, str], str], model: str
) -> None:
    for choice in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}, {"temperature": 0, "n": 2}):
        answer = shared.chat(model, "Hello", max_tokens=TOKENS, **{"temperature": 1, **choice})
        texts = {choice["message"]["content"] for choice in answer["choices"]}
        assert texts == {expected[model, "Hello"]}


def test_answers_computed_together_are_the_same(
    shared: Daemon, expected: dict[tuple[str, str], str]
) -> None:
    """Prompts of different lengths, in one batch, join and leave at different steps."""

    def ask(prompt: str) -> tuple[str, str]:
        return prompt, shared.text("exo-demo", prompt, temperature=0, max_tokens=TOKENS)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, PROMPTS * 4))
    assert {text == expected["exo-demo", prompt] for prompt, text in answers} == {True}


def test_conversation_goes_on_from_the_cache(shared: Daemon) -> None:
    """The second turn reuses the first one's tokens, question and answer, and changes nothing."""
    first = shared.chat("exo-demo", "How do I start exo?", temperature=0, max_tokens=TOKENS)
    messages = [
        {"role": "user", "content": "How do I start exo?"},
        first["choices"][0]["message"] | {"refusal": None},
        {"role": "user", "content": "Thank you"},
    ]
    answers: list[Json] = []
    for cache in (True, False):
        body = {
            "model": "exo-demo",
            "messages": messages,
            "temperature": 0,
            "max_tokens": TOKENS,
            "use_prefix_cache": cache,
        }
        answers.append(shared.post("/v1/chat/completions", body))
    with_cache, without = answers
    assert with_cache["choices"] == without["choices"]
    cached = [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in answers]
    assert cached[0] >= first["usage"]["total_tokens"] - 1
    assert cached[1] == 0


def test_bench_tells_how_it_was_computed(shared: Daemon) -> None:
    body = {
        "model": "exo-demo",
        "messages": [{"role": "user", "content": "Is the prefix cache of any use?"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    hits: list[str] = []
    for _ in range(2):
        answer = shared.post("/bench/chat/completions", body)
        stats = answer["generation_stats"]
        hits.append(stats["prefix_cache_hit"])
        assert stats["prompt_tokens"] == answer["usage"]["prompt_tokens"]
        assert stats["generation_tokens"] == answer["usage"]["completion_tokens"]
        assert min(stats["prompt_tps"], stats["generation_tps"], stats["ttft"]) > 0
        assert stats["peak_memory_usage"] > 0
    assert hits[1] == "exact"
    response = shared.http.post("/bench/chat/completions", json={**body, "stream": True})
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == f"data: {DONE}"
    assert json.loads(lines[-2].removeprefix("data: "))["generation_stats"]["ttft"] > 0
