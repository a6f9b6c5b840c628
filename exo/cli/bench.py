"""`exo bench`: how fast a model answers."""

import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Annotated

import typer

from exo.cli.client import Client, JsonObject, connect, model_argument, path_segment
from exo.cli.instance import ModelArgument, ring_text
from exo.cli.output import JsonOption, bytes_text, out, rate_text, seconds_text, table
from exo.cli.ready import ensure_ready
from exo.errors import EngineError

# One token each in most vocabularies.
WORDS = """
air arm art bag ball bank bed bird boat body book box boy car cat city class cold cup day dog door
eye face farm fire fish food foot game girl gold hair hand head hill home horse house ice king lake
land life light line man map milk moon night paper road room sea ship song sun table tree water
""".split()  # noqa: SIM905  as a list, three times as long


def bench(
    model: ModelArgument,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of each prompt.")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of each answer.")] = 128,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Requests at the same time.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Times to measure.")] = 3,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes that the model is to lie on.")
    ] = None,
    _json: JsonOption = False,
) -> None:
    """Measure how fast a model answers.

    Each prompt is new, so that no cache helps. An answer ends early where the model ends it. For a
    model over several nodes it also says what each of them and each hop takes.
    """
    with connect() as api:
        instance = ensure_ready(api, model_argument(model), nodes)
        bencher = Bencher(api, instance["model_id"], max_tokens)
        out.note("Warming up.")
        words = bencher.words_for(prompt_tokens)
        runs: list[JsonObject] = []
        for number in range(1, repeat + 1):
            out.note(f"Measuring, {number} of {repeat}.")
            runs.append(bencher.measure(words, streams))
        ring = api.get(f"/instance/{path_segment(instance['instance_id'])}").get("ring")
    result = {
        "model": instance["model_id"],
        "instance_id": instance["instance_id"],
        "prompt_tokens": prompt_tokens,
        "max_tokens": max_tokens,
        "streams": streams,
        "runs": runs,
        "median": summary(runs),
        "ring": ring,
    }
    out.result(result, lambda: "\n\n".join([render(runs), *([ring_text(ring)] if ring else [])]))


class Bencher:
    """Sends prompts of a wanted length to one model."""

    def __init__(self, api: Client, model_id: str, max_tokens: int) -> None:
        self._api = api
        self._model_id = model_id
        self._max_tokens = max_tokens

    def words_for(self, tokens: int) -> int:
        """How many words make a prompt of `tokens` tokens; also warms the model up.

        The chat template adds tokens and a word may take several, so two prompts are measured
        and the line through them is followed.
        """
        few, many = 1, tokens + 1
        low = self._ask(few, 1)["prompt_tokens"]
        high = self._ask(many, min(self._max_tokens, 8))["prompt_tokens"]
        per_word = max((high - low) / (many - few), 0.01)
        return max(1, round(few + (tokens - low) / per_word))

    def measure(self, words: int, streams: int) -> JsonObject:
        """Ask `streams` prompts at the same time; what each took, and all together."""
        began = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            stats = list(pool.map(self._ask, [words] * streams, [self._max_tokens] * streams))
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "total_tps": sum(one["generation_tokens"] for one in stats) / seconds,
            "streams": stats,
        }

    def _ask(self, words: int, max_tokens: int) -> JsonObject:
        prompt = " ".join(secrets.choice(WORDS) for _ in range(words))
        body = {
            "model": self._model_id,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        answer = self._api.post("/bench/chat/completions", body, timeout=None)
        stats = answer.get("generation_stats")
        if not stats:
            raise EngineError(f"{self._model_id} answered without generation_stats.")
        return stats


_MEASURES = ("ttft", "prompt_tokens", "prompt_tps", "generation_tokens", "generation_tps")


def summary(runs: Sequence[JsonObject]) -> JsonObject:
    """The median of each measure over all requests; the highest memory."""
    every = [stats for run in runs for stats in run["streams"]]
    middle: JsonObject = {name: _median([one.get(name) for one in every]) for name in _MEASURES}
    peaks = [one["peak_memory_usage"] for one in every if one.get("peak_memory_usage") is not None]
    middle["peak_memory_usage"] = max(peaks, default=None)
    middle["total_tps"] = _median([run["total_tps"] for run in runs])
    middle["seconds"] = _median([run["seconds"] for run in runs])
    return middle


def render(runs: Sequence[JsonObject]) -> str:
    """One row per run, and the median of all if there are several."""
    rows = [(str(number), summary([run])) for number, run in enumerate(runs, 1)]
    if len(runs) > 1:
        rows.append(("median", summary(runs)))
    columns = ["run", "first token", "prompt", "speed", "answer", "speed", "all streams", "memory"]
    return table(columns, [_row(name, stats) for name, stats in rows], empty="")


def _row(name: str, stats: JsonObject) -> Sequence[object]:
    return (
        name,
        seconds_text(stats["ttft"]),
        _tokens(stats["prompt_tokens"]),
        rate_text(stats["prompt_tps"]),
        _tokens(stats["generation_tokens"]),
        rate_text(stats["generation_tps"]),
        rate_text(stats["total_tps"]),
        bytes_text(stats["peak_memory_usage"]),
    )


def _tokens(count: float | None) -> str | None:
    return None if count is None else f"{count:.0f} tok"


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
