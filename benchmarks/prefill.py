"""Long prompts: what they do to answers beside them, and what is saved when one comes again.

    python -m benchmarks.prefill [--scale 4] [--layers 6] [--nodes 1] [--rounds 3] [--tokens 4000]

Streams decode while a prompt of so many tokens is computed: the 95th percentile of the gap between
two tokens, to the quiet one of the same run. Then a prompt of 1,000 tokens is asked twice: the time
to the first token, first and second.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

from exo.device.blas import blas_environment
from exo.inference.messages import Tokens
from tests.inference.ranks import Ranks
from tests.models_maker import END_ID, make_model

CONTEXT = 16_384
LONG: dict[str, Any] = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}}
# Two tokens each, in the vocabulary of the tests' models.
WORD = " x"


def arrivals(ranks: Ranks, request_id: str) -> list[float]:
    """When each token of a request came."""
    head = ranks.ranks[0]
    return [
        at
        for message, at in zip(head.said, head.times, strict=True)
        if isinstance(message, Tokens)
        for delta in message.deltas
        if delta.request_id == request_id
    ]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def until(ranks: Ranks, request_id: str, tokens: int) -> None:
    while len(arrivals(ranks, request_id)) < tokens:
        await ranks.ranks[0].heard()


async def gaps(ranks: Ranks, number: int, tokens: int) -> tuple[float, float, float]:
    """The p95 gap of a stream in quiet and beside a long prompt, and that prompt's TTFT."""
    stream = ranks.ask(f"stream {number}", max_tokens=tokens, **LONG)
    await until(ranks, stream, 150)
    quiet = arrivals(ranks, stream)[20:]
    loop = asyncio.get_running_loop()
    asked = loop.time()
    prompt = ranks.ask(f"{number} " + WORD * (tokens // 2), max_tokens=4, **LONG)
    await until(ranks, prompt, 1)
    first = arrivals(ranks, prompt)[0]
    beside = [at for at in arrivals(ranks, stream) if asked <= at <= first]
    await ranks.outcome(prompt)
    await ranks.outcome(stream)

    def p95(times: list[float]) -> float:
        return percentile([b - a for a, b in itertools.pairwise(times)], 0.95)

    return p95(quiet), p95(beside), first - asked


async def again(ranks: Ranks, number: int) -> tuple[float, float]:
    """The TTFT of a prompt of 1,000 tokens, and of the same prompt again."""
    found: list[float] = []
    for _ in range(2):
        asked = asyncio.get_running_loop().time()
        request_id = ranks.ask(f"again {number} " + WORD * 500, max_tokens=2, **LONG)
        await ranks.outcome(request_id)
        found.append(arrivals(ranks, request_id)[0] - asked)
    return found[0], found[1]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(
            Path(scratch) / "model", layers=options.layers, scale=options.scale, context=CONTEXT
        )
        cuts = [options.layers * n // options.nodes for n in range(1, options.nodes)]
        ranks = Ranks(folder, options.layers, cuts, context_length=CONTEXT)
        await ranks.start([dict(blas_environment(Path(scratch)))] * ranks.size)
        stalls = [await gaps(ranks, number, options.tokens) for number in range(options.rounds)]
        repeats = [await again(ranks, number) for number in range(options.rounds)]
        await ranks.stop()
    for quiet, beside, ttft in stalls:
        print(
            f"p95 gap: quiet {quiet * 1e3:.1f} ms, beside a long prompt {beside * 1e3:.1f} ms, "
            f"{beside / quiet:.2f} times; the prompt's first token after {ttft:.2f} s"
        )
    print(f"median of the ratios: {statistics.median(b / q for q, b, _ in stalls):.2f}")
    for first, second in repeats:
        print(
            f"TTFT of 1,000 tokens: {first * 1e3:.0f} ms, again {second * 1e3:.1f} ms, "
            f"{first / second:.0f} times less"
        )


if __name__ == "__main__":
    asyncio.run(main())
