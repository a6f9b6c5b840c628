"""What drafts gain over a ring of three runners, one stream and several, by the latency of a hop.

    python -m benchmarks.drafts [--scale 8] [--layers 12] [--tokens 96] [--rounds 3] [--hops 0,2,10]

Each ratio is of the same answers with and without drafts, in turns in one run, greedy, and the
tokens are compared. Three cases:

    echo    a random model that, for lack of other likely tokens, says what it said before; ngram
    deep    a draft model of two layers, and a model that is the same with layers added that change
            nothing: always right, so this bounds what a draft model of that size can give
    demo    exo-demo, the bundled model, and an answer of its own; ngram

The milliseconds are added to every hop by the sender, as a network would; 0 is the loopback alone.
"""

import argparse
import asyncio
import json
import os
import queue
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from benchmarks.pinned import one_thread
from exo.errors import RingError
from exo.inference.messages import DraftStats
from exo.inference.mlx.engine import MlxEngine
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame
from exo.models.registry import Registry
from tests.inference.ranks import Ranks
from tests.models_maker import END_ID, make_model

HOP = "EXO_BENCHMARK_HOP_MS"
ENGINE = "benchmarks.drafts:FarEngine"
STAGES = 3
FEW = dict.fromkeys(range(70, 74), 40.0)


class FarRing:
    """A ring whose frames are under way for some time, one behind the other."""

    def __init__(self, ring: Ring, seconds: float) -> None:
        self._ring = ring
        self._seconds = seconds
        self._under_way: queue.SimpleQueue[tuple[float, Frame, int]] = queue.SimpleQueue()
        threading.Thread(target=self._deliver, daemon=True).start()

    def send(self, frame: Frame, life: int) -> None:
        self._under_way.put((time.monotonic() + self._seconds, frame, life))

    def give_up(self, reason: str) -> None:
        self._ring.give_up(reason)

    def _deliver(self) -> None:
        while True:
            due, frame, life = self._under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._ring.send(frame, life)
            except RingError:
                return


class FarEngine(MlxEngine):
    def start(self, ring: Ring, life: int) -> None:
        super().start(FarRing(ring, float(os.environ[HOP]) / 1e3), life)


@dataclass(frozen=True)
class Case:
    """A model, what drafts for it, and the answer that is asked for."""

    name: str
    folder: Path
    layers: int
    draft: dict[str, Any]
    text: str
    sampling: dict[str, Any]


def deep_and_draft(scratch: Path, layers: int, scale: int) -> tuple[Path, Path]:
    """A model whose layers from the third on add nothing, and one that has the first two only."""
    deep = make_model(scratch / "deep", layers=layers, scale=scale, dtype=mx.float32)
    file = deep / "model.safetensors"
    weights = mx.load(str(file))
    for name in list(weights):
        late = name.startswith("model.layers.") and int(name.split(".")[2]) >= 2
        if late and name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = mx.zeros_like(weights[name])
    draft = scratch / "draft"
    shutil.copytree(deep, draft)
    first = {
        name: weight
        for name, weight in weights.items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < 2
    }
    mx.eval(weights)
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})
    mx.save_safetensors(str(draft / file.name), first, metadata={"format": "mlx"})
    config = json.loads((draft / "config.json").read_text("utf-8"))
    (draft / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}), "utf-8")
    return deep, draft


def cases(scratch: Path, options: argparse.Namespace) -> list[Case]:
    deep, draft = deep_and_draft(scratch, options.layers, options.scale)
    echo = make_model(scratch / "echo", layers=options.layers, scale=options.scale)
    ngram = {"draft": "ngram"}
    long = {"temperature": 0, "logit_bias": {END_ID: -100}}
    demo = Registry(scratch).resolve("exo-demo")
    found = [
        Case("echo", echo, options.layers, ngram, "a", {**long, "logit_bias": FEW}),
        Case("deep", deep, options.layers, {"draft": "d", "draft_path": draft}, "a", long),
    ]
    if demo.path:
        count = {"temperature": 0}
        found.append(Case("demo", demo.path, demo.n_layers, ngram, "Count from 2 to 30", count))
    return found


async def measure(ranks: Ranks, case: Case, streams: int, tokens: int) -> tuple[float, list[Any]]:
    """Tokens per second after the first ones, and the answers."""
    fields = {"sampling": case.sampling, "max_tokens": tokens}
    asked = [ranks.ask(f"{case.text} " + "." * n, **fields) for n in range(streams)]
    head = ranks.ranks[0]
    while not all(ranks.tokens(request_id) for request_id in asked):
        await head.heard()
    begun, before = time.perf_counter(), sum(len(ranks.tokens(r)) for r in asked)
    for request_id in asked:
        await ranks.outcome(request_id)
    answers = [ranks.tokens(request_id) for request_id in asked]
    rate = (sum(map(len, answers)) - before) / (time.perf_counter() - begun)
    return rate, answers


async def compare(case: Case, hop: str, blas: dict[str, str], options: argparse.Namespace) -> None:
    cuts = [case.layers * n // STAGES for n in range(1, STAGES)]
    environment = {**blas, HOP: hop}
    ways = [
        Ranks(case.folder, case.layers, cuts),
        Ranks(case.folder, case.layers, cuts, **case.draft),
    ]
    for ranks in ways:
        await ranks.start([environment] * STAGES, engine=ENGINE)
        await measure(ranks, case, 1, options.tokens)
    shown = [f"{case.name:5} {hop:>4} ms"]
    for streams in (1, options.streams):
        rates: list[list[float]] = [[], []]
        same = True
        for _ in range(options.rounds):
            found = [await measure(ranks, case, streams, options.tokens) for ranks in ways]
            same = same and found[0][1] == found[1][1]
            for way, (rate, _) in zip(rates, found, strict=True):
                way.append(rate)
        plain, drafting = (statistics.median(way) for way in rates)
        ratio = statistics.median(b / a for a, b in zip(*rates, strict=True))
        shown.append(f"{plain:8.1f} {drafting:8.1f} {ratio:6.2f} {'same' if same else 'OTHER'}")
    stats = [said for said in ways[1].ranks[0].said if isinstance(said, DraftStats)][-1]
    print("  |".join(shown), f" | {stats.accepted / max(stats.guessed, 1):.0%} right", flush=True)
    for ranks in ways:
        await ranks.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=8, help="times the width of a tiny model")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hops", default="0,2,10", help="milliseconds, separated by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        blas = one_thread(scratch)
        many = f"{options.streams} streams"
        print(
            f"{'case':5} {'hop':>7}  |{'one stream: without, with, ratio':>30}  |  {many}: the same"
        )
        for case in cases(scratch, options):
            for hop in options.hops.split(","):
                await compare(case, hop, blas, options)


if __name__ == "__main__":
    asyncio.run(main())
