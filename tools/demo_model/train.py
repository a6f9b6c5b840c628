"""Trains exo-demo from nothing and exports it: `python tools/demo_model/train.py --out DIR`."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import corpus
import export
import tokenizer as tokens
import torch
import torch.distributed as dist
from batches import Row, batches, encode
from model import Llama, Shape
from render import PAD, text
from tokenizers import Tokenizer
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional

SEED = 20
BATCH = 3072
PEAK = 3e-3
# Two processes of one thread each: two threads of one process wait for each other at
# every operation, which costs most of the time on a busy machine.
WORKERS = 2
# Of the weights of the phase before the last, in the exported ones.
KEPT = 0.25
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Phase:
    """A stretch of training: the learning rate warms up, holds, and falls towards zero."""

    steps: int
    seed: int
    style: str
    digits: bool
    peak: float
    warmup: int
    hold: int
    zero: int

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if step < self.hold:
            return self.peak
        return self.peak * max(0.01, (self.zero - step) / (self.zero - self.hold))


# The first phase teaches the formats and the answers, the second many more ways to ask, the
# third gives more room to sums, the fourth starts anew from there with all in proportion, the
# fifth asks in yet more ways, the sixth drills what must be copied exactly, and the last comes
# back to everything.
PHASES = (
    Phase(600, seed=21, style="narrow", digits=False, peak=PEAK, warmup=60, hold=510, zero=1700),
    Phase(200, seed=31, style="wide", digits=False, peak=0.9 * PEAK, warmup=20, hold=60, zero=900),
    Phase(560, seed=41, style="sums", digits=True, peak=0.8 * PEAK, warmup=20, hold=40, zero=560),
    Phase(800, seed=51, style="even", digits=True, peak=0.7 * PEAK, warmup=20, hold=100, zero=800),
    Phase(560, seed=61, style="last", digits=True, peak=0.6 * PEAK, warmup=20, hold=100, zero=560),
    Phase(600, seed=71, style="exact", digits=True, peak=0.5 * PEAK, warmup=20, hold=120, zero=600),
    Phase(720, seed=81, style="whole", digits=True, peak=0.5 * PEAK, warmup=20, hold=160, zero=720),
)


def optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    # Muon learns the matrices in far fewer steps than AdamW, and steps are what a CPU lacks.
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=PEAK, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rows(tokenizer: Tokenizer, phase: Phase, rank: int, limit: int) -> Iterator[Row]:
    for talk in corpus.write(phase.seed + rank, 1 << 40, phase.style):
        yield encode(tokenizer, talk, limit, phase.digits)


def backward(model: Llama, inputs: Tensor, targets: Tensor, weights: Tensor) -> float:
    """Adds the gradients of a batch; returns its mean loss on answers."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(inputs)
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none"
    )
    flat = weights.flatten()
    (torch.dot(losses, flat) / flat.sum()).backward()  # type: ignore[no-untyped-call]
    own = flat >= 1.0
    return float(losses.detach()[own].mean())


def share(model: Llama) -> None:
    """Replaces the gradients by their mean over the workers."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= WORKERS
    for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def fit(rank: int, model: Llama, tokenizer: Tokenizer, phase: Phase, out: Path) -> None:
    examples = rows(tokenizer, phase, rank, model.shape.max_position_embeddings)
    supply = batches(examples, BATCH, tokens.id_of(tokenizer, PAD), random.Random(SEED + rank))
    optims = optimizers(model)
    began, seen, mean = time.monotonic(), 0, 0.0
    for step in range(phase.steps):
        inputs, targets, weights = next(supply)
        loss = backward(model, inputs, targets, weights)
        share(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            for setting in optim.param_groups:
                setting["lr"] = phase.rate(step)
            optim.step()
            optim.zero_grad()
        seen += WORKERS * inputs.numel()
        mean = loss if step == 0 else 0.97 * mean + 0.03 * loss
        if rank == 0 and (step % 20 == 0 or step == phase.steps - 1):
            spent = time.monotonic() - began
            pace = f"tokens {seen} per second {seen / spent:.0f} spent {spent:.0f}s"
            print(f"step {step} loss {mean:.4f} {pace}", flush=True)
        if rank == 0 and (step % 80 == 79 or step == phase.steps - 1):
            export.save(model, tokenizer, out)


def work(rank: int, out: Path, first: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    dist.init_process_group(
        "gloo", init_method=f"file://{out.resolve()}.rendezvous", rank=rank, world_size=WORKERS
    )
    tokenizer = tokens.train(text(talk) for talk in corpus.write(SEED, 30_000))
    model = Llama(Shape(vocab_size=tokenizer.get_vocab_size()))
    if first:
        model.load_state_dict(torch.load(weights_after(out, first - 1)))
    for number, phase in enumerate(PHASES[first:], first):
        if rank == 0:
            print(f"phase {number}: {phase}", flush=True)
        fit(rank, model, tokenizer, phase, out)
        if rank == 0:
            torch.save(model.state_dict(), weights_after(out, number))
    if rank == 0:
        last = len(PHASES) - 1
        blend(model, torch.load(weights_after(out, last - 1)), torch.load(weights_after(out, last)))
        export.save(model, tokenizer, out)
    dist.destroy_process_group()


def blend(model: Llama, before: dict[str, Tensor], last: dict[str, Tensor]) -> None:
    """Mixes the weights of the last two phases, which generalises better than the last alone
    (https://arxiv.org/abs/2203.05482)."""
    mixed = {name: (1 - KEPT) * last[name] + KEPT * before[name] for name in last}
    model.load_state_dict(mixed)


def weights_after(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}-phase-{number}.pt")


def keep_memory() -> None:
    """Starts again with a C allocator that keeps its memory: page faults are slow."""
    if sys.platform == "linux" and any(os.environ.get(k) != v for k, v in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})  # noqa: S606


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="the phase to start with")
    options = parser.parse_args()
    keep_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    Path(f"{options.out.resolve()}.rendezvous").unlink(missing_ok=True)
    arguments = (options.out, options.first)
    start_processes(work, arguments, WORKERS, start_method="spawn")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
