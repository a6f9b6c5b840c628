"""Write docs/architectures.md: which architectures can be split, found out by splitting each.

It takes some minutes. `--check` writes nothing, and fails where the page says something else, where
stages compute something else than the whole model, or where too few architectures pass.
"""

import os
import sys
from collections.abc import Sequence
from difflib import unified_diff
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["MLX_DISABLE_COMPILE"] = "1"

from tests.inference import tensors  # noqa: E402
from tests.inference.architectures import Outcome, configurations, judged  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
LEAST = 115
NOTE = "<!-- Written by tools/architectures.py. Do not edit. -->"
INTRODUCTION = """\
# Architectures

Which models can lie on several nodes. exo splits a model by its layers, with the model's own code
from mlx-lm, and learns from that code what has to travel between two layers; where layers share
keys and values they stay on one node.

Each row is a small model with random weights, made from a configuration of mlx-lm {version}'s own
tests. It **passes** if two stages, three, and as many as its layers allow compute exactly the
logits of the whole model, bit for bit, for a prompt of 70 tokens, whole and in chunks, and 32 steps
after it; and for two sequences of different lengths in a batch, of which one is then taken out.

What bitnet computes with a kernel for Metal is computed with plain operations elsewhere.

{passed} of {all} pass, {refused} are refused, {failed} could not be computed.

| architecture | result | layers | may be cut before |
|---|---|---|---|
"""


TENSORS = """
## Split by tensors

Where mlx-lm knows how, and a test shows that it does, each node can have a part of every layer
instead (`--sharding tensor`, [what that needs](cluster.md#one-model-split-by-tensors)).

Each row is a small model as above, computed by two processes that are linked by `mx.distributed`.
It **passes** if both compute the logits of the whole model, but for the order of sums (to {close:g}
of the largest), and the same greedy tokens, in the same tests. Every node must get an equal part of
what stands in the last column, as it is in a model's `config.json`.

| architecture | result | an equal part of |
|---|---|---|
"""


def page(outcomes: Sequence[Outcome], split: Sequence[tensors.Outcome]) -> str:
    """The page, with the rows in order of their names."""
    known = sorted(outcomes, key=lambda outcome: outcome.name.lower())
    text = INTRODUCTION.format(
        version=version("mlx-lm"),
        passed=sum(1 for outcome in known if _passed(outcome)),
        refused=sum(1 for outcome in known if outcome.refused),
        failed=sum(1 for outcome in known if outcome.failed),
        all=len(known),
    )
    rows = "".join(_row(outcome) for outcome in known)
    return f"{NOTE}\n\n{text}{rows}{section(split)}"


def section(split: Sequence[tensors.Outcome]) -> str:
    """The part of the page that is about tensors."""
    rows: list[str] = []
    for outcome in split:
        result = f"**wrong**: {outcome.wrong}" if outcome.wrong else "passes"
        if outcome.refused:
            result = f"refused: {outcome.refused}"
        parts = dict.fromkeys(what.removeprefix("of the ") for what in outcome.parts)
        rows.append(f"| {outcome.name} | {result} | {', '.join(parts)} |\n")
    return TENSORS.format(close=tensors.CLOSE) + "".join(rows)


def _passed(outcome: Outcome) -> bool:
    return not (outcome.refused or outcome.failed or outcome.wrong)


def _row(outcome: Outcome) -> str:
    result = "passes"
    if outcome.wrong:
        result = f"**wrong**: {outcome.wrong}"
    elif outcome.refused:
        result = f"refused: {outcome.refused}"
    elif outcome.failed:
        result = f"not tried: {outcome.failed}"
    elif outcome.unbatched:
        result = f"passes, but not in batches: {outcome.unbatched}"
    cuts = ""
    if len(outcome.cuts) == outcome.layers - 1:
        cuts = "any"
    elif outcome.cuts:
        cuts = f"{', '.join(map(str, outcome.cuts))}: {'; '.join(outcome.obstacles)}"
    return f"| {outcome.name} | {result} | {outcome.layers or ''} | {cuts} |\n"


def main(check: bool) -> int:
    outcomes: list[Outcome] = []
    for outcome in judged(list(configurations())):
        outcomes.append(outcome)
        bad = outcome.wrong or outcome.refused or outcome.failed
        print(f"{len(outcomes):3} {outcome.name}: {bad or 'passes'}", flush=True)
    split: list[tensors.Outcome] = []
    for outcome in tensors.judged(tensors.known()):
        split.append(outcome)
        print(f"{outcome.name}, by tensors: {outcome.wrong or outcome.refused or 'passes'}")
    text = page(outcomes, split)
    wrong = [outcome.name for outcome in (*outcomes, *split) if outcome.wrong]
    passed = sum(1 for outcome in outcomes if _passed(outcome))
    if not check:
        PAGE.write_text(text, "utf-8")
    written = PAGE.read_text("utf-8")
    drifted = written != text
    if drifted:
        print(f"{PAGE} says something else: run tools/architectures.py.")
        # Which takes long: so that one row need not be found by another run.
        print(*unified_diff(written.splitlines(), text.splitlines(), n=0, lineterm=""), sep="\n")
    if wrong or passed < LEAST:
        print(f"{passed} pass; wrong: {', '.join(wrong) or 'none'}.")
    return 1 if drifted or wrong or passed < LEAST else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
