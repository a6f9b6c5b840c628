"""Every architecture of mlx-lm in a size of a few layers with random weights: are the tokens over
several stages those of the whole model?

    python -m tests.inference.architectures [NAME …]     one line of JSON for each

Stages are built one by one from the same weights, as each rank would, and what travels between them
goes through bytes. The configurations are in architectures.json.
"""

import dataclasses
import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from exo.errors import ExoError
from exo.inference.mlx.adapter import as_batch, can_batch, extend, states
from exo.inference.mlx.split import SplitStage
from exo.inference.mlx.stage import Stage, WholeModel
from exo.inference.mlx.tensors import describe, from_buffer, to_buffers
from exo.inference.mlx.trace import layers_of, trace

FILE = Path(__file__).with_suffix(".json")
PROMPT, STEPS = 70, 32


def configurations() -> dict[str, dict[str, Any]]:
    """By name: the module of mlx-lm, and the model's arguments."""
    return {entry["name"]: entry for entry in json.loads(FILE.read_text("utf-8"))}


@dataclasses.dataclass
class Outcome:
    """What came of one architecture. `cuts` are those that are valid, of so many layers."""

    name: str
    layers: int = 0
    cuts: list[int] = dataclasses.field(default_factory=list)
    passed: list[str] = dataclasses.field(default_factory=list)
    refused: str | None = None
    wrong: str | None = None


def build(entry: dict[str, Any], weights: list[tuple[str, mx.array]] | None = None) -> nn.Module:
    """The model, with random weights or with these."""
    module = importlib.import_module(f"mlx_lm.models.{entry['module']}")
    model = module.Model(module.ModelArgs.from_dict(entry["config"]))
    if weights is not None:
        model.update(tree_unflatten(weights))
    return model


def random_weights(model: nn.Module) -> list[tuple[str, mx.array]]:
    """Weights that leave nothing at zero or one, where a mistake would not show."""
    mx.random.seed(1)
    found = []
    for name, array in tree_flatten(model.parameters()):
        is_float = array.dtype in (mx.float16, mx.bfloat16, mx.float32)
        noise = 0.02 * mx.random.normal(array.shape)
        found.append((name, array.astype(mx.float32) + noise if is_float else array))
    mx.eval(found)
    return found


def stages_of(
    entry: dict[str, Any], weights: list[tuple[str, mx.array]], cuts: Sequence[int]
) -> list[Stage]:
    bounds = [0, *cuts, len(layers_of(build(entry, weights)))]
    made: list[Stage] = []
    for start, end in itertools.pairwise(bounds):
        model = build(entry, weights)
        made.append(SplitStage(model, trace(model), start, end))
    return made


def through_bytes(tensors: Sequence[mx.array]) -> list[mx.array]:
    mx.eval(tensors)
    return from_buffer(describe(tensors), memoryview(b"".join(to_buffers(tensors))))


def forward(stages: Sequence[Stage], caches: Sequence[list[Any]], tokens: mx.array) -> mx.array:
    """Logits of the last position, (B, V)."""
    carried: list[mx.array] = []
    for stage, cache in zip(stages, caches, strict=True):
        carried = stage(tokens, carried, cache)
        if not stage.last:
            carried = through_bytes(carried)
        mx.eval(states(cache))
    logits = carried[0][:, -1, :]
    mx.eval(logits)
    return logits


def generate(stages: Sequence[Stage], chunks: Sequence[int]) -> list[mx.array]:
    """Greedy: the logits of each step, after a prompt in chunks of these sizes."""
    caches = [stage.make_cache() for stage in stages]
    prompt = [(7 * n) % 40 + 1 for n in range(PROMPT)]
    at = 0
    for size in chunks:
        logits = forward(stages, caches, mx.array([prompt[at : at + size]]))
        at += size
    found = [logits]
    for _ in range(STEPS - 1):
        found.append(forward(stages, caches, mx.argmax(found[-1], axis=-1)[:, None]))
    return found


def generate_batch(stages: Sequence[Stage]) -> list[mx.array]:
    """Two sequences of different lengths, as rows of one batch."""
    batches: list[list[Any]] = []
    for length in (5, 9):
        caches = [stage.make_cache() for stage in stages]
        forward(stages, caches, mx.array([[(3 * n) % 40 + 1 for n in range(length)]]))
        rows = [as_batch(cache) for cache in caches]
        for batch, row in zip(batches, rows, strict=False):
            extend(batch, row)
        batches = batches or rows
    found = [forward(stages, batches, mx.array([[3], [4]]))]
    for _ in range(5):
        found.append(forward(stages, batches, mx.argmax(found[-1], axis=-1)[:, None]))
    return found


def same(one: Sequence[mx.array], other: Sequence[mx.array]) -> bool:
    """Whether logits are the same bit for bit."""
    return all(mx.array_equal(a, b).item() for a, b in zip(one, other, strict=True))


def judge(entry: dict[str, Any]) -> Outcome:
    """Try an architecture over two and three stages."""
    outcome = Outcome(entry["name"])
    weights = random_weights(build(entry))
    model = build(entry, weights)
    outcome.layers = len(layers_of(model))
    whole = [WholeModel(model)]
    expected = {
        "whole prompt": generate(whole, [PROMPT]),
        "prompt in chunks": generate(whole, [33, 36, 1]),
    }
    batch = generate_batch(whole) if can_batch(model) else None
    try:
        valid = sorted(trace(build(entry, weights)).valid_cuts)
        outcome.cuts = valid
        if not valid:
            outcome.refused = "its layers share what cannot travel"
            return outcome
        middle = min(valid, key=lambda cut: abs(cut - outcome.layers / 2))
        plans = [[middle]] + ([[valid[0], valid[-1]]] if len(valid) > 1 else [])
        for cuts in plans:
            for name, logits in expected.items():
                what = f"{len(cuts) + 1} stages, {name}"
                if not same(generate(stages_of(entry, weights, cuts), chunks_of(name)), logits):
                    outcome.wrong = f"{what}: other logits"
                    return outcome
                outcome.passed.append(what)
            if batch is not None:
                if not same(generate_batch(stages_of(entry, weights, cuts)), batch):
                    outcome.wrong = f"{len(cuts) + 1} stages, in a batch: other logits"
                    return outcome
                outcome.passed.append(f"{len(cuts) + 1} stages, in a batch")
    except ExoError as error:
        outcome.refused = error.message
    return outcome


def chunks_of(name: str) -> list[int]:
    return [PROMPT] if name == "whole prompt" else [33, 36, 1]


def judged(names: Sequence[str]) -> Iterator[Outcome]:
    """Try architectures in another process, since some end the process that computes them."""
    left = list(names)
    while left:
        command = [sys.executable, "-m", "tests.inference.architectures", *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    outcome = Outcome(**json.loads(line))
                    left.remove(outcome.name)
                    yield outcome
        if left and process.returncode:
            yield Outcome(left.pop(0), refused="it cannot be computed here: the process ends")


def main(names: Sequence[str]) -> None:
    mx.disable_compile()
    known = configurations()
    for name in names or known:
        try:
            outcome = judge(known[name])
        except Exception as error:  # noqa: BLE001  whatever the model's own code does
            said = (str(error).strip().splitlines() or [""])[0][:100]
            outcome = Outcome(name, refused=f"it cannot be computed here: {said}")
        print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
