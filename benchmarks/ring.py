"""One model over two runners with a core each: micro-batches, lock-step, and what a hop costs.

    python -m benchmarks.ring [--scale 8] [--layers 8] [--streams 8] [--tokens 64] [--rounds 3]

Three ways to compute the same greedy streams, on the same random model, in turns: one runner on one
core; two runners in lock-step, one group of all streams that only one stage works on at a time; and
two runners with micro-batches, as exo does it. With MLX's own BLAS a stage's time grows with its
rows; with exo's it is bound by reading the weights, so there the streams are doubled as well. Needs
Linux (`taskset`).
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from exo.device.blas import blas_environment
from exo.inference.messages import Load, RingStats
from exo.inference.micro_batches import MicroBatches
from exo.inference.mlx.engine import MlxEngine
from tests.inference.ranks import Ranks
from tests.models_maker import END_ID, make_model

LONG: dict[str, Any] = {"sampling": {"temperature": 0, "logit_bias": {END_ID: -100}}}


class OneGroup(MicroBatches):
    def groups(self, rows: int) -> int:
        del rows
        return 1


class LockStep(MlxEngine):
    """All rows in one group, and one step in flight."""

    def load(self, load: Load, progress: Any) -> int:
        size = super().load(load, progress)
        if self._planner is not None:
            self._planner.batches = OneGroup(load.size)
            self._planner.depth = 1
        return size


async def measure(ranks: Ranks, streams: int, tokens: int) -> float:
    """Tokens per second over all streams, from the first token of the last one on."""
    asked = [ranks.ask(f"stream {n}", max_tokens=tokens, **LONG) for n in range(streams)]
    head = ranks.ranks[0]
    while not all(ranks.tokens(request_id) for request_id in asked):
        await head.heard()
    begun = time.perf_counter()
    before = sum(len(ranks.tokens(request_id)) for request_id in asked)
    for request_id in asked:
        await ranks.outcome(request_id)
    total = sum(len(ranks.tokens(request_id)) for request_id in asked)
    return (total - before) / (time.perf_counter() - begun)


def stats_of(ranks: Ranks) -> RingStats | None:
    found = [m for m in ranks.ranks[0].said if isinstance(m, RingStats) and any(m.seconds)]
    return found[-1] if found else None


async def idle_share(ranks: Ranks, seconds: float = 10.0) -> float:
    """Share of one core that the runners use while nobody asks anything."""
    processes = [psutil.Process(rank.process.pid) for rank in ranks.ranks]

    def used() -> float:
        times = [process.cpu_times() for process in processes]
        return sum(each.user + each.system for each in times)

    before = used()
    await asyncio.sleep(seconds)
    return (used() - before) / seconds


async def compare(folder: Path, options: argparse.Namespace, environment: dict[str, str]) -> None:
    layers, half = options.layers, options.layers // 2
    ways = {
        "one runner": (Ranks(folder, layers, []), "mlx"),
        "lock-step": (Ranks(folder, layers, [half]), "benchmarks.ring:LockStep"),
        "micro-batches": (Ranks(folder, layers, [half]), "mlx"),
    }
    counts = [1, options.streams, 2 * options.streams]
    found: dict[tuple[str, int], list[float]] = {}
    for ranks, engine in ways.values():
        await ranks.start([environment] * ranks.size, engine=engine)
        for core, rank in enumerate(ranks.ranks):
            for task in psutil.Process(rank.process.pid).threads():
                psutil.Process(task.id).cpu_affinity([core])
        await measure(ranks, 2, 8)
    for _ in range(options.rounds):
        for name, (ranks, _) in ways.items():
            for count in counts:
                found.setdefault((name, count), []).append(
                    await measure(ranks, count, options.tokens)
                )
    middle = {key: statistics.median(values) for key, values in found.items()}
    base = middle["lock-step", options.streams]
    print(f"{'tok/s':16}" + "".join(f"{count:>6} streams" for count in counts))
    for name in ways:
        print(f"{name:16}" + "".join(f"{middle[name, count]:14.1f}" for count in counts))
    micro = [middle["micro-batches", count] for count in counts]
    print(f"micro-batches to lock-step, {options.streams} streams each: {micro[1] / base:.2f}")
    print(f"twice the streams to lock-step with {options.streams}: {micro[2] / base:.2f}")
    print(f"to one runner: {micro[1] / middle['one runner', options.streams]:.2f}")
    ranks, _ = ways["micro-batches"]
    await measure(ranks, 1, 200)
    if stats := stats_of(ranks):
        stages = " and ".join(f"{seconds * 1e3:.2f}" for seconds in stats.seconds)
        print(f"one stream: stages {stages} ms, a hop {stats.hop * 1e3:.3f} ms, encrypted")
    print(f"idle, both runners together: {await idle_share(ranks):.2%} of a core")
    for ranks, _ in ways.values():
        await ranks.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=8, help="times the width of a tiny model")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blas", choices=["mlx", "exo"], help="only with one of the two")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(Path(scratch) / "model", layers=options.layers, scale=options.scale)
        # More threads than the one core would wait for each other.
        blas = {**blas_environment(Path(scratch)), "OPENBLAS_NUM_THREADS": "1"}
        for name, environment in (("mlx", {}), ("exo", blas)):
            if options.blas in {None, name}:
                print(f"\nthe BLAS of {name}, one core each")
                await compare(folder, options, environment)


if __name__ == "__main__":
    asyncio.run(main())
