"""Long prompts: what they do to answers beside them, and what is saved when one comes again.

    python -m benchmarks.prefill [--scale 4] [--layers 6] [--heads 4] [--bits 4] [--nodes 1]
                                 [--rounds 3] [--tokens 4000]

A stream decodes while a prompt of so many tokens is computed: the 95th percentile of the gap
between two tokens, to the quiet one of the same stream, before the prompt and after it. (It grows
beside a long prompt, and with it what each of its steps takes.) Then a prompt of 1,000 tokens is
asked twice: the time to the first token, first and second.

`--scale 32 --layers 16 --heads 2 --bits 4` is a model of 0.6B.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from exo.device.blas import blas_environment
from exo.inference.messages import Cancel, Tokens
from tests.inference.ranks import Rank, Ranks
from tests.models_maker import END_ID, HIDDEN, make_model

CONTEXT = 16_384
CACHED = 4 * CONTEXT  # tokens of what was computed before
LONG: dict[str, Any] = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}}
# Two tokens each, in the vocabulary of the tests' models.
WORD = " x"
# Tokens of a stream from which a gap is taken in quiet, and those before them, which are not.
QUIET = 150
SKIPPED = 20


def arrivals(ranks: Ranks, request_id: str, since: int = 0) -> list[float]:
    """When each token of a request came, in the messages from number `since` on."""
    head = ranks.ranks[0]
    return [
        at
        for message, at in zip(head.said[since:], head.times[since:], strict=True)
        if isinstance(message, Tokens)
        for delta in message.deltas
        if delta.request_id == request_id
    ]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def until(ranks: Ranks, request_id: str, tokens: int) -> None:
    """Wait for so many tokens of a request. Each message is looked at once: who looks at all of
    them again for each token takes the runner's time."""
    looked = 0
    while True:
        said = len(ranks.ranks[0].said)
        tokens -= len(arrivals(ranks, request_id, looked))
        looked = said
        if tokens <= 0:
            return
        await ranks.ranks[0].heard()


class Gaps(NamedTuple):
    """The p95 gap of a stream before a long prompt, beside it and after it, and that prompt's
    TTFT, in seconds; and the length of the stream in tokens where the prompt ended."""

    before: float
    beside: float
    after: float
    ttft: float
    length: int


async def gaps(ranks: Ranks, number: int, tokens: int) -> Gaps:
    stream = ranks.ask(f"stream {number}", max_tokens=CONTEXT // 2, **LONG)
    await until(ranks, stream, SKIPPED + QUIET)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    prompt = ranks.ask(f"{number} " + WORD * (tokens // 2), max_tokens=1, **LONG)
    await ranks.outcome(prompt)
    first = arrivals(ranks, prompt)[0]
    length = len([at for at in arrivals(ranks, stream) if at <= first])
    await until(ranks, stream, length + SKIPPED + QUIET)
    ranks.ranks[0].process.send(Cancel(request_id=stream))
    times = arrivals(ranks, stream)

    def p95(some: list[float]) -> float:
        return percentile([b - a for a, b in itertools.pairwise(some)], 0.95)

    return Gaps(
        p95([at for at in times if at < asked][SKIPPED:]),
        p95([at for at in times if asked <= at <= first]),
        p95(times[length + SKIPPED : length + SKIPPED + QUIET]),
        first - asked,
        length,
    )


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
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--bits", type=int)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4000)
    options = parser.parse_args()
    Rank.patience = 3600  # Large models take their time.
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(
            Path(scratch) / "model",
            layers=options.layers,
            scale=options.scale,
            heads=options.heads,
            bits=options.bits,
            context=CONTEXT,
        )
        cuts = [options.layers * n // options.nodes for n in range(1, options.nodes)]
        # Two bytes each, of two heads' keys and values for every two heads.
        per_token = 2 * 2 * options.layers * HIDDEN // 2 * options.scale
        ranks = Ranks(
            folder,
            options.layers,
            cuts,
            context_length=CONTEXT,
            kv_dtype="float16",
            kv_bytes_per_token=per_token,
            prefix_cache_bytes=CACHED * per_token,
        )
        await ranks.start([dict(blas_environment(Path(scratch)))] * ranks.size)
        # First what waits for single messages, while those of streams do not lie before them.
        repeats = [await again(ranks, number) for number in range(options.rounds)]
        stalls = [await gaps(ranks, number, options.tokens) for number in range(options.rounds)]
        await ranks.stop()
    for one in stalls:
        print(
            f"p95 gap: {one.before * 1e3:.1f} ms before a long prompt, {one.beside * 1e3:.1f} "
            f"beside it, {one.after * 1e3:.1f} after it ({one.length} tokens long); "
            f"the prompt's first token after {one.ttft:.2f} s"
        )
    before = statistics.median(one.beside / one.before for one in stalls)
    after = statistics.median(one.beside / one.after for one in stalls)
    print(f"beside to before, median of the ratios: {before:.2f}; to after: {after:.2f}")
    for first, second in repeats:
        print(
            f"TTFT of 1,000 tokens: {first * 1e3:.0f} ms, again {second * 1e3:.1f} ms, "
            f"{first / second:.0f} times less"
        )


if __name__ == "__main__":
    asyncio.run(main())
