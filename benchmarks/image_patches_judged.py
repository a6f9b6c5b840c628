"""What patches do to the pictures of a trained model: `exo-demo-image`, and its judge.

    PYTHONPATH=tools/demo_image python -m benchmarks.image_patches_judged [--count 120]

The held-out prompts and edits of tools/demo_image are drawn by two ranks of the bundled model (in
one process: patches are the same over any ring), whole and in patches; for each way, how many are
judged right, and how far the pictures are from the whole ones.
"""

import argparse
import contextlib
import io
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import evaluate
import numpy as np

from benchmarks.image_patches import psnr
from exo.inference.image.engine import DrawSpec
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.image.mflux.picture import MfluxPicture
from tests.inference.image.conftest import load_of
from tests.inference.image.test_image_ranks import Loop

FOLDER = Path("exo/models/bundled/exo-demo-image")
BLOCKS, SIDE, STEPS = 6, 64, 8
WAYS: list[tuple[int | None, int | None]] = [
    (None, None), (2, 1), (2, 2), (4, 1), (4, 2),
]  # fmt: skip


@dataclass(frozen=True)
class InPatches:
    """An engine that draws everything so."""

    engine: MfluxEngine
    patches: int | None
    sync_steps: int | None

    def begin(self, spec: DrawSpec) -> MfluxPicture:
        return self.engine.begin(replace(spec, patches=self.patches, sync_steps=self.sync_steps))


def ranks() -> list[MfluxEngine]:
    engines: list[MfluxEngine] = []
    for rank, (start, end) in enumerate([(0, BLOCKS // 2), (BLOCKS // 2, BLOCKS)]):
        fields = {"rank": rank, "size": 2, "start_layer": start, "end_layer": end}
        engine = MfluxEngine()
        engine.load(load_of(FOLDER).model_copy(update=fields), lambda *_: None)
        engines.append(engine)
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="only so many of each")
    count = parser.parse_args().count
    engines = ranks()
    loop = Loop(engines)
    for file in ("heldout.json", "heldout_edits.json"):
        items: list[dict[str, Any]] = json.loads((evaluate.HERE / file).read_text("utf-8"))[:count]
        exact: list[np.ndarray] = []
        for patches, sync in WAYS:
            with contextlib.redirect_stdout(io.StringIO()):
                found = evaluate.judged(InPatches(engines[0], patches, sync), items, SIDE, STEPS)
            loop.frames.clear()
            pictures = (
                found.pictures[-len(items) :] if file == "heldout.json" else found.pictures[1::2]
            )
            exact = exact or pictures
            near = [psnr(one, other) for one, other in zip(pictures, exact, strict=True)]
            way = f"{patches} patches, {sync} of {STEPS} steps whole" if patches else "whole"
            print(
                f"{file:20} {way:32} {found.good} of {found.of} right, PSNR median "
                f"{statistics.median(near):.1f} dB, least {min(near):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
