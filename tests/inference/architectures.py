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
from exo.inference.mlx.adapter import as_batch, can_batch, extend, extract, keep_rows, states
from exo.inference.mlx.plan import SplitPlan
from exo.inference.mlx.split import SplitStage
from exo.inference.mlx.stage import Stage, WholeModel
from exo.inference.mlx.tensors import describe, from_buffer, to_buffers
from exo.inference.mlx.trace import layers_of, trace
from exo.models.cuts import cuts

FILE = Path(__file__).with_suffix(".json")
STEPS = 32
PROMPT = 70
PROMPTS = {"whole prompt": [PROMPT], "prompt in chunks": [33, 36, 1]}
# The lengths of two sequences of a batch: the longer one is longer than most sliding windows.
ROWS = (9, 30)


def configurations() -> dict[str, dict[str, Any]]:
    """By name: the module of mlx-lm, and the model's arguments."""
    return {entry["name"]: entry for entry in json.loads(FILE.read_text("utf-8"))}


@dataclasses.dataclass
class Outcome:
    """What came of one architecture. `cuts` are those that are valid, of so many layers, and
    `obstacles` why others are not; it is `refused` if it cannot be split, `failed` if even the
    whole model cannot be computed here, `wrong` if the stages compute something else."""

    name: str
    layers: int = 0
    cuts: list[int] = dataclasses.field(default_factory=list)
    obstacles: list[str] = dataclasses.field(default_factory=list)
    passed: list[str] = dataclasses.field(default_factory=list)
    unbatched: str | None = None
    refused: str | None = None
    failed: str | None = None
    wrong: str | None = None


def build(entry: dict[str, Any], weights: list[tuple[str, mx.array]] | None = None) -> nn.Module:
    """The model, with random weights or with these."""
    module = importlib.import_module(f"mlx_lm.models.{entry['module']}")
    if entry["module"] == "bitnet" and not mx.metal.is_available():
        module.BitLinear.execute_matmul_kernel = _ternary_matmul
    model = module.Model(module.ModelArgs.from_dict(entry["config"]))
    if weights is not None:
        model.update(tree_unflatten(weights))
    return model


def _ternary_matmul(layer: Any, x: mx.array, packed: mx.array) -> mx.array:
    """What a kernel for Metal computes, elsewhere: four weights of -1, 0 or 1 are in each byte."""
    rows = [((packed >> shift) & 3).astype(x.dtype) - 1 for shift in (0, 2, 4, 6)]
    return x @ mx.concatenate(rows)[: layer.out_features].T * layer.weight_scale


def random_weights(model: nn.Module) -> list[tuple[str, mx.array]]:
    """Weights that leave nothing at zero or one, where a mistake would not show."""
    mx.random.seed(1)
    found = [(name, _noisy(array)) for name, array in tree_flatten(model.parameters())]
    mx.eval(found)
    return found


def _noisy(array: mx.array) -> mx.array:
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    return array.astype(mx.float32) + 0.02 * mx.random.normal(array.shape)


def stages_of(
    entry: dict[str, Any], weights: list[tuple[str, mx.array]], cuts: Sequence[int]
) -> list[Stage]:
    """Stages that share nothing, each built as its rank would."""
    made: list[Stage] = []
    n_layers = len(layers_of(build(entry)))
    for start, end in itertools.pairwise([0, *cuts, n_layers]):
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
    return [logits, *steps(stages, caches, logits, STEPS - 1)]


def generate_batch(stages: Sequence[Stage]) -> list[mx.array]:
    """Two sequences of different lengths as rows of one batch, then one of them as the only row,
    then alone."""
    batches: list[list[Any]] = []
    for length in ROWS:
        caches = [stage.make_cache() for stage in stages]
        forward(stages, caches, mx.array([[(3 * n) % 40 + 1 for n in range(length)]]))
        rows = [as_batch(cache) for cache in caches]
        for batch, row in zip(batches, rows, strict=False):
            extend(batch, row)
        batches = batches or rows
    found = [forward(stages, batches, mx.array([[3], [4]]))]
    found += steps(stages, batches, found[-1], 5)
    for batch in batches:
        keep_rows(batch, [1])
    found += steps(stages, batches, found[-1][1:], 3)
    alone = [extract(batch, 0) for batch in batches]
    return found + steps(stages, alone, found[-1], 3)


def steps(
    stages: Sequence[Stage], caches: Sequence[list[Any]], logits: mx.array, count: int
) -> list[mx.array]:
    """The logits of so many more steps, greedy."""
    found: list[mx.array] = []
    for _ in range(count):
        logits = forward(stages, caches, mx.argmax(logits, axis=-1)[:, None])
        found.append(logits)
    return found


def same(one: Sequence[mx.array], other: Sequence[mx.array]) -> bool:
    """Whether logits are the same bit for bit."""
    return all(mx.array_equal(a, b).item() for a, b in zip(one, other, strict=True))


def judge(entry: dict[str, Any], *, every_cut: bool = True) -> Outcome:
    """Try an architecture over two and three stages and, with `every_cut`, over as many as there
    can be."""
    outcome = Outcome(entry["name"])
    weights = random_weights(build(entry))
    model = build(entry, weights)
    outcome.layers = len(layers_of(model))
    whole = [WholeModel(model)]
    expected = {name: generate(whole, chunks) for name, chunks in PROMPTS.items()}
    if can_batch(model):
        try:
            expected["in a batch"] = generate_batch(whole)
        except ValueError as error:
            outcome.unbatched = f"mlx-lm cannot compute it in a batch: {error}"
    else:
        outcome.unbatched = "it has caches that cannot be rows of a batch"
    try:
        plan = trace(build(entry, weights))
    except ExoError as error:
        outcome.refused = error.message
        if by_rule(entry, outcome.layers):
            outcome.wrong = "exo.models.cuts says that it can be cut"
        return outcome
    outcome.cuts = sorted(plan.valid_cuts)
    if outcome.cuts != by_rule(entry, plan.n_layers):
        outcome.wrong = "exo.models.cuts says other cuts"
        return outcome
    outcome.obstacles = sorted({o for cut in range(1, plan.n_layers) if (o := plan.obstacle(cut))})
    for where in plans(plan, every_cut=every_cut):
        stages = stages_of(entry, weights, where)
        for name, logits in expected.items():
            what = f"{len(stages)} stages, {name}"
            found = generate(stages, PROMPTS[name]) if name in PROMPTS else generate_batch(stages)
            if not same(found, logits):
                outcome.wrong = f"{what}: other logits"
                return outcome
            outcome.passed.append(what)
    return outcome


def by_rule(entry: dict[str, Any], n_layers: int) -> list[int]:
    """The cuts that the config alone gives."""
    found = cuts({"model_type": entry["module"], **entry["config"]})
    return list(range(1, n_layers) if found is None else found)


def plans(plan: SplitPlan, *, every_cut: bool = True) -> list[list[int]]:
    """Where to cut: in the middle; in three; with `every_cut`, wherever it can be cut."""
    valid = sorted(plan.valid_cuts)
    middle = min(valid, key=lambda cut: abs(cut - plan.n_layers / 2))
    made = [[middle]]
    if len(valid) > 1:
        made.append([valid[0], valid[-1]])
    if len(valid) > 2 and every_cut:
        made.append(valid)
    return made


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
            yield Outcome(left.pop(0), failed="the process ends")


def main(names: Sequence[str]) -> None:
    mx.disable_compile()
    known = configurations()
    for name in names or known:
        try:
            outcome = judge(known[name])
        except Exception as error:  # noqa: BLE001  whatever the model's own code does
            said = (str(error).strip().splitlines() or [""])[0][:100]
            outcome = Outcome(name, failed=said)
        print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
