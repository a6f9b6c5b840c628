"""Pictures in patches by runners with a core each, beside whole ones by the same runners.

    python -m benchmarks.image_patches [--ranks 2] [--width 640] [--blocks 8] [--size 256]
        [--steps 10] [--sync 2] [--patches 2 4 8] [--guidance 1] [--rounds 3]

In turns, on the same random model of FLUX.2's kind: one picture by one runner; by runners that
share its blocks; and by those in patches. How far the latter are from the picture of one runner is
told as PSNR (random weights are no measure of what a trained model makes of it). The processor time
of each runner says what a busy machine hides: whole, a step takes the sum of it, in patches what
the busiest needs, at best. Needs Linux.
"""

import argparse
import asyncio
import io
import math
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from benchmarks import images
from benchmarks.images import HEAD, VARIANT, Pinned
from exo.inference.image.types import Drawing, DrawRequest
from tests.inference.image import maker, small


@dataclass(frozen=True)
class Took:
    """Seconds of a step: on average, behind the `whole` steps and the first of patches, and of
    processor time in each runner."""

    average: float
    later: float
    busy: tuple[float, ...]


async def drawn(ranks: Pinned, asked: DrawRequest, whole: int) -> tuple[Took, bytes]:
    """How long a picture took, and the picture."""
    head = ranks.ranks[0]
    since, before = len(head.said), _busy(ranks)
    average, png = await ranks.draw(asked)
    busy = tuple((b - a) / asked.steps for a, b in zip(before, _busy(ranks), strict=True))
    said = zip(head.said[since:], head.times[since:], strict=True)
    times = [time for message, time in said if isinstance(message, Drawing)]
    # The last step is told together with the picture, whose pixels have to be made.
    later = times[whole:-1]
    return Took(average, (later[-1] - later[0]) / (len(later) - 1), busy), png


def _busy(ranks: Pinned) -> list[float]:
    """Seconds that each runner has computed so far."""
    times: list[float] = []
    for rank in ranks.ranks:
        stat = Path(f"/proc/{rank.process.pid}/stat").read_text("ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        times.append((int(user) + int(system)) / os.sysconf("SC_CLK_TCK"))
    return times


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In dB; infinite for the same pixels."""
    error = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


async def compare(folder: Path, arguments: argparse.Namespace) -> None:
    blocks, size = arguments.blocks, arguments.ranks
    cuts = [blocks * rank // size for rank in range(1, size)]
    alone, shared = Pinned(folder, blocks, []), Pinned(folder, blocks, cuts)
    kinds: dict[str, tuple[Pinned, int | None]] = {
        "one runner": (alone, None),
        f"{size} runners, whole": (shared, None),
        **{f"{size} runners, {n} patches": (shared, n) for n in arguments.patches},
    }
    took: dict[str, list[Took]] = {name: [] for name in kinds}
    near: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        await alone.start()
        await shared.start()
        for number in range(arguments.rounds + 1):
            exact = b""
            for name, (ranks, patches) in kinds.items():
                asked = request(arguments, f"{name} {number}", number, patches)
                seconds, png = await drawn(ranks, asked, arguments.sync)
                exact = exact or png
                assert patches or png == exact, "whole pictures are the same"
                near[name].append(psnr(pixels(png), pixels(exact)))
                if number:  # The first is for what is done once.
                    took[name].append(seconds)
    finally:
        await alone.stop()
        await shared.stop()
    report(took, near, f"{size} runners, whole")


def report(took: dict[str, list[Took]], near: dict[str, list[float]], beside: str) -> None:
    """Ratios are of the same round."""
    for name, rounds in took.items():
        pairs = list(zip(took[beside], rounds, strict=True))
        faster = [base.later / own.later for base, own in pairs]
        busy = [statistics.median(each) for each in zip(*(one.busy for one in rounds), strict=True)]
        print(
            f"{name:22} {statistics.median(one.average for one in rounds) * 1000:5.0f} ms a step, "
            f"{statistics.median(base.average / own.average for base, own in pairs):4.2f} times "
            f"as fast; behind the whole steps "
            f"{statistics.median(one.later for one in rounds) * 1000:5.0f} ms, "
            f"{statistics.median(faster):4.2f} times ({min(faster):.2f} to {max(faster):.2f}); "
            f"busy {' + '.join(f'{each * 1000:.0f}' for each in busy)} ms; "
            f"PSNR {statistics.median(near[name]):.1f} dB",
            flush=True,
        )


def request(
    arguments: argparse.Namespace, name: str, seed: int, patches: int | None
) -> DrawRequest:
    patched = {"patches": patches, "sync_steps": arguments.sync if patches else None}
    plain = images.request(arguments, name, seed)
    return plain.model_copy(update={"guidance": arguments.guidance, **patched})


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    double = arguments.blocks // 4
    return {
        **small.FLUX2["transformer_overrides"],
        "num_layers": double,
        "num_single_layers": arguments.blocks - double,
        "num_attention_heads": arguments.width // HEAD,
        "attention_head_dim": HEAD,
        "axes_dims_rope": [HEAD // 4] * 4,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("ranks", 2), ("width", 640), ("blocks", 8), ("size", 256), ("steps", 10), ("sync", 2),
        ("rounds", 3),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--patches", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--guidance", type=float, default=1.0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(small.FLUX2, {"transformer_overrides": overrides(arguments)}),
    ):
        model = maker.make_image_model(Path(folder) / "model", VARIANT)
        asyncio.run(compare(model, arguments))


if __name__ == "__main__":
    main()
