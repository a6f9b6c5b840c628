"""exo beside `mlx_lm.server`: the same model, prompts and streams, in the same run.

    python -m benchmarks.serving [--model FOLDER] [--streams 1 4 8 16] [--tokens 64] [--repeat 3]

The servers are up at the same time and take turns, so that what else the machine does hits both.
Prompts differ from each other (no prefix is reused) and are the same for all servers.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.servers import exo, float32_copy, mlx_lm
from exo.device.blas import blas_environment
from exo.models.registry import BUNDLED

WORDS = ("river", "stone", "lamp", "cloud", "garden", "train", "letter", "window", "music", "bread")


@dataclass
class Stream:
    """One stream as its client saw it: seconds to the first text, tokens in all."""

    ttft: float = 0.0
    tokens: int = 0


@dataclass
class Cell:
    """One server at one number of streams, over the repeats."""

    rates: list[float] = field(default_factory=list)
    ttfts: list[float] = field(default_factory=list)


def prompts(streams: int, seed: int) -> list[str]:
    """Each asks for a word of its own again and again, which makes long answers of any model."""
    rng = random.Random(seed)
    return [f"Repeat the word {rng.choice(WORDS)}{rng.randint(10, 99)} again and again"
            for _ in range(streams)]  # fmt: skip


async def one(
    session: aiohttp.ClientSession, base: str, model: str, prompt: str, tokens: int
) -> Stream:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    stream, begun = Stream(), time.perf_counter()
    async with session.post(f"{base}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            text = any(choice["delta"].get("content") for choice in chunk["choices"])
            if text and not stream.ttft:
                stream.ttft = time.perf_counter() - begun
            if chunk.get("usage"):
                stream.tokens = chunk["usage"]["completion_tokens"]
    return stream


async def measure(
    base: str, model: str, asked: list[str], tokens: int
) -> tuple[float, list[float]]:
    """Tokens/s over all streams, and each stream's time to first token in seconds."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        begun = time.perf_counter()
        streams = await asyncio.gather(*(one(session, base, model, p, tokens) for p in asked))
        spent = time.perf_counter() - begun
    return sum(stream.tokens for stream in streams) / spent, [s.ttft for s in streams]


def run(options: argparse.Namespace) -> dict[str, dict[int, Cell]]:
    found: dict[str, dict[int, Cell]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        best = float32_copy(options.model, folder / "float32")
        servers = {
            "exo": stack.enter_context(exo(options.model)),
            "mlx_lm.server": stack.enter_context(mlx_lm(options.model)),
            "mlx_lm.server, float32": stack.enter_context(mlx_lm(best)),
            "mlx_lm.server, float32, exo's BLAS": stack.enter_context(
                mlx_lm(best, **blas_environment(folder))
            ),
        }
        for repeat in range(-1, options.repeat):
            for streams in options.streams:
                asked = prompts(streams, seed=1000 * streams + repeat)
                for name, (base, model) in servers.items():
                    rate, ttfts = asyncio.run(measure(base, model, asked, options.tokens))
                    if repeat < 0:
                        continue  # The first round warms all of them up.
                    cell = found.setdefault(name, {}).setdefault(streams, Cell())
                    cell.rates.append(rate)
                    cell.ttfts += ttfts
    return found


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def show(found: dict[str, dict[int, Cell]]) -> None:
    print("| server | streams | tok/s | TTFT p50 | TTFT p95 | exo/it tok/s | exo/it TTFT |")
    print("|---|---|---|---|---|---|---|")
    for name, cells in found.items():
        for streams, cell in cells.items():
            ours = found["exo"][streams]
            rate, ttft = statistics.median(cell.rates), statistics.median(cell.ttfts)
            print(
                f"| {name} | {streams} | {rate:.0f} | {1e3 * ttft:.0f} ms "
                f"| {1e3 * quantile(cell.ttfts, 0.95):.0f} ms "
                f"| {statistics.median(ours.rates) / rate:.2f} "
                f"| {statistics.median(ours.ttfts) / ttft:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED / "exo-demo")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the raw figures to this file")
    options = parser.parse_args()
    found = run(options)
    show(found)
    if options.json:
        raw = {name: {s: vars(c) for s, c in cells.items()} for name, cells in found.items()}
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
