"""One model over two runners with a core each, by exo's own links and by `mx.distributed`.

    python -m benchmarks.groups [--scale 16] [--layers 16] [--tokens 60] [--rounds 8]

In turns, on the same random model: one runner on one core; a pipeline over exo's encrypted ring;
the same over `mx.distributed`; and the model split by tensors. One greedy stream, and a prompt of
some 1,200 tokens. Then what the runners hold in memory. Needs Linux.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil

from benchmarks.pinned import PinnedGroup, PinnedRanks
from exo.inference.messages import Finished, Ready
from tests.inference.ranks import Ranks
from tests.models_maker import END_ID, make_model

GREEDY: dict[str, Any] = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}}
PROMPT = "one two three " * 120


async def one_round(ranks: Ranks, number: int, tokens: int) -> tuple[float, float]:
    """Tokens per second of an answer, and of a prompt."""
    answer = await ranks.outcome(ranks.ask(f"go on {number}", max_tokens=tokens, **GREEDY))
    asked = ranks.ask(f"{PROMPT}{number}", max_tokens=1, use_prefix_cache=False)
    prompt = await ranks.outcome(asked)
    assert isinstance(answer, Finished)
    assert isinstance(prompt, Finished)
    return answer.stats.generation_tps, prompt.stats.prompt_tps


async def memory(ranks: Ranks) -> str:
    """Of each runner: the bytes of its weights, and all that it has in memory."""
    found: list[str] = []
    for rank in ranks.ranks:
        weights = (await rank.wait_for(Ready)).memory
        resident = psutil.Process(rank.process.pid).memory_info().rss
        found.append(f"{weights / 1e6:.0f} MB of weights, {resident / 1e6:.0f} MB in all")
    return "; ".join(found)


async def compare(folder: Path, arguments: argparse.Namespace) -> None:
    layers = arguments.layers
    kinds = {
        "one runner, one core": PinnedRanks(folder, layers, []),
        "pipeline, tcp": PinnedRanks(folder, layers, [layers // 2]),
        "pipeline, mlx_ring": PinnedGroup(folder, layers, 2, [layers // 2]),
        "tensor, mlx_ring": PinnedGroup(folder, layers, 2),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    held: dict[str, str] = {}
    try:
        for name, ranks in kinds.items():
            await ranks.start()
            held[name] = await memory(ranks)
            await one_round(ranks, -1, arguments.tokens)
        for number in range(arguments.rounds):
            for name, ranks in kinds.items():
                took[name].append(await one_round(ranks, number, arguments.tokens))
    finally:
        for ranks in kinds.values():
            await ranks.stop()
    for name, rounds in took.items():
        decode, prefill = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"{name:22} {decode:6.1f} tok/s, prompt {prefill:6.0f} tok/s; {held[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=16)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(
            Path(folder) / "model",
            layers=arguments.layers,
            scale=arguments.scale,
            dtype=mx.float16,
        )
        asyncio.run(compare(model, arguments))


if __name__ == "__main__":
    main()
