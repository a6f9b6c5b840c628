"""One model over two runners with a core each: micro-batches, lock-step, and what a hop costs.

    python -m benchmarks.ring [--scale 8] [--layers 8] [--streams 8] [--tokens 40] [--rounds 6]

The same greedy streams on the same random model, in turns: one runner on one core; two runners that
have nothing in common but the machine, with as many streams each, so that twice the one is what two
cores give at most; a ring of two in lock-step, one group of all streams that only one stage works
on at a time; and the ring with micro-batches, as exo does it. With MLX's own products a stage's
time grows with its rows; with exo's kernels it is bound by reading the weights, so there the
streams are doubled as well. Last, the same layers as a bare pipeline and in one process, with
nothing of exo but its products: what that pipeline gives is what the cores allowed at that time.
Ratios are of one round each, and then their median; where the cores' speed moves, many short rounds
tell more than a few long ones, and each way's best round, which others have disturbed least, tells
what is lost in the ring itself. Needs Linux.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare import BarePipeline, Work
from benchmarks.pinned import PinnedRanks, one_thread
from exo.inference.messages import Cancel, Finished, Load, RequestFailed, RingStats, Tokens
from exo.inference.micro_batches import MicroBatches
from exo.inference.mlx.engine import MlxEngine
from tests.inference.ranks import Ranks
from tests.models_maker import make_model

ENDLESS = 1500
# Seconds.
STATS_AFTER = 4.0
BARE_ONE = "one process, bare"
# With so many groups on their way.
BARE = {"bare, 2 groups": 2, "bare, 4 groups": 4}
LOCK_STEP = "benchmarks.ring:LockStep"
# By what computes.
KINDS = {
    "mlx": "MLX's own products",
    "openblas": "MLX with OpenBLAS",
    "kernels": "exo's kernels",
}
Rates = dict[tuple[str, int], list[float]]


class OneGroup(MicroBatches):
    def division(self, rows: int) -> tuple[int, ...]:
        return (rows,)


class LockStep(MlxEngine):
    """All rows in one group, so that one step of answers is in flight."""

    def load(self, load: Load, progress: Any) -> int:
        size = super().load(load, progress)
        if self._planner is not None:
            self._planner.batches = OneGroup(load.size)
        return size


async def measure(ranks: Ranks, streams: int, tokens: int) -> float:
    """Tokens per second over all streams while all of them run: from the first token of the last
    one on, until there are so many of each on average. Then they are given up."""
    head = ranks.ranks[0]
    seen = len(head.said)
    counts = {ranks.ask(f"stream {n}", max_tokens=ENDLESS): 0 for n in range(streams)}
    begun, before = 0.0, 0
    while not begun or sum(counts.values()) < before + streams * tokens:
        await head.heard()
        # Each is looked at once: what this process computes, the runners have to wait for.
        for message in head.said[seen:]:
            seen += 1
            assert not isinstance(message, RequestFailed), message
            for delta in message.deltas if isinstance(message, Tokens) else ():
                if delta.request_id in counts:
                    counts[delta.request_id] += len(delta.token_ids)
        if not begun and all(counts.values()):
            begun, before = time.perf_counter(), sum(counts.values())
    rate = (sum(counts.values()) - before) / (time.perf_counter() - begun)
    for request_id in counts:
        head.process.send(Cancel(request_id=request_id))
    await settled(ranks)
    return rate


async def settled(ranks: Ranks) -> None:
    """Return when the steps that were on their way are done: what is measured next would have to
    share its cores with them."""
    head = ranks.ranks[0]
    seen, last = len(head.said), ranks.ask("last", max_tokens=1)
    while True:
        end = await head.wait_for((Finished, RequestFailed), seen)
        if end.request_id == last:
            return
        seen = head.said.index(end, seen) + 1


async def stats_of(ranks: Ranks, streams: int, rate: float) -> RingStats | None:
    """What the ring tells of itself, every second, once the streams have run for some; all of them
    together at about this rate."""
    since = len(ranks.ranks[0].said)
    await measure(ranks, streams, round(STATS_AFTER * rate / streams))
    said = ranks.ranks[0].said[since:]
    found = [m for m in said if isinstance(m, RingStats) and any(m.seconds) and m.rows == streams]
    return found[-1] if found else None


async def idle_share(ranks: Ranks, seconds: float = 20.0) -> float:
    """Share of one core that the runners use while nobody asks anything."""
    # A request is cancelled at once, and still the steps that are on their way are computed.
    await asyncio.sleep(3.0)
    processes = [psutil.Process(rank.process.pid) for rank in ranks.ranks]

    def used() -> float:
        times = [process.cpu_times() for process in processes]
        return sum(each.user + each.system for each in times)

    before = used()
    await asyncio.sleep(seconds)
    return (used() - before) / seconds


async def compare(
    folder: Path, options: argparse.Namespace, environment: dict[str, str], counts: Sequence[int]
) -> None:
    layers, cut = options.layers, options.cut or options.layers // 2
    ring = PinnedRanks(folder, layers, [cut])
    ways: dict[str, tuple[Sequence[Ranks], str]] = {
        "one runner": ([PinnedRanks(folder, layers, [])], "mlx"),
        "two runners apart": ([PinnedRanks(folder, layers, [], first=n) for n in (0, 1)], "mlx"),
        "lock-step": ([PinnedRanks(folder, layers, [cut])], LOCK_STEP),
        "micro-batches": ([ring], "mlx"),
    }
    alone = BarePipeline(folder, None, environment)
    halves = BarePipeline(folder, cut, environment)
    bare = {BARE_ONE: (alone, 1), **{name: (halves, groups) for name, groups in BARE.items()}}
    found: Rates = {}
    try:
        for each, engine in ways.values():
            for ranks in each:
                await ranks.start([environment] * ranks.size, engine=engine)
                await measure(ranks, 2, 8)
        with alone, halves:
            for _ in range(options.rounds):
                for count in counts:
                    for name, (each, _) in ways.items():
                        rates = (measure(ranks, count, options.tokens) for ranks in each)
                        rate = sum(await asyncio.gather(*rates))
                        found.setdefault((name, count), []).append(rate)
                    for name, (pipeline, groups) in bare.items():
                        work = Work(-(-count // groups), min(groups, count), options.tokens)
                        rate = await asyncio.to_thread(pipeline.rate, work)
                        found.setdefault((name, count), []).append(rate)
        report(found, [*ways, *bare], counts)
        for count in counts:
            rate = statistics.median(found["micro-batches", count])
            if stats := await stats_of(ring, count, rate):
                tell(stats)
        print(f"idle, both runners together: {await idle_share(ring):.2%} of a core")
    finally:
        for each, _ in ways.values():
            for ranks in each:
                await ranks.stop()


def report(found: Rates, ways: Sequence[str], counts: Sequence[int]) -> None:
    """The table of medians, the ratios with their least and most, and that of the best rounds."""
    print(f"{'tok/s':18}" + "".join(f"{count:>6} streams" for count in counts))
    for name in ways:
        middle = [statistics.median(found[name, count]) for count in counts]
        print(f"{name:18}" + "".join(f"{rate:14.1f}" for rate in middle))
    ring, lock, one, apart = "micro-batches", "lock-step", "one runner", "two runners apart"
    _, some, *twice = counts
    pairs = [((ring, some), (under, some)) for under in (lock, one, apart)]
    for many in twice:
        pairs += [((ring, many), (lock, some)), ((ring, many), (one, some))]
        pairs += [((ring, many), (one, many)), ((apart, many), (one, some))]
    pairs += [((apart, some), (one, some))]
    for many in counts[1:]:
        for bare in BARE:
            pairs += [((bare, many), (BARE_ONE, some)), ((ring, many), (bare, many))]
    for over, under in pairs:
        ratios = [a / b for a, b in zip(found[over], found[under], strict=True)]
        print(
            f"{over[0]} with {over[1]} to {under[0]} with {under[1]}: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"best to best {max(found[over]) / max(found[under]):.2f}"
        )


def tell(stats: RingStats) -> None:
    stages = " and ".join(f"{seconds * 1e3:.2f}" for seconds in stats.seconds)
    busy = " and ".join(f"{share:.0%}" for share in stats.busy)
    print(
        f"{stats.rows} streams in {stats.groups} groups: stages {stages} ms, computing {busy} of "
        f"the time, a hop {stats.hop * 1e3:.3f} ms, encrypted"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=8, help="times the width of a tiny model")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--bits", type=int, help="of a weight; else they are float16")
    parser.add_argument("--cut", type=int, help="layers of the first stage; else half of them")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=40, help="of each stream in a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=["mlx", "kernels"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(
            Path(scratch) / "model",
            layers=options.layers,
            scale=options.scale,
            bits=options.bits,
            ends=False,
        )
        blas = one_thread(Path(scratch))
        off = {"EXO_KERNELS": "off"}
        environments = {"mlx": off, "openblas": {**blas, **off}, "kernels": blas}
        for kind in options.kinds:
            print(f"\n{KINDS[kind]}, one core each")
            streams = [1, options.streams]
            if kind == "kernels":
                streams.append(2 * options.streams)
            await compare(folder, options, environments[kind], streams)


if __name__ == "__main__":
    asyncio.run(main())
