"""Pictures in patches by runners with a core each, beside whole ones by the same runners.

    python -m benchmarks.image_patches [--ranks 2] [--width 640] [--blocks 8] [--size 256]
        [--steps 10] [--sync 2] [--patches 2 4 8] [--guidance 1] [--rounds 3]

In turns, on the same random model of FLUX.2's kind: one picture by one runner; by runners that
share its blocks; and by those in patches. How far the latter are from the picture of one runner is
told as PSNR (random weights are no measure of what a trained model makes of it). Needs Linux.
"""

import argparse
import asyncio
import io
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from benchmarks.images import HEAD, VARIANT, Pinned
from exo.inference.image.types import Drawing, DrawRequest
from tests.inference.image import maker, small


async def drawn(ranks: Pinned, asked: DrawRequest, whole: int) -> tuple[float, float, bytes]:
    """The seconds of a step on average, and of one behind the `whole` steps and the first of
    patches; and the picture."""
    head = ranks.ranks[0]
    since = len(head.said)
    seconds, png = await ranks.draw(asked)
    said = zip(head.said[since:], head.times[since:], strict=True)
    times = [time for message, time in said if isinstance(message, Drawing)]
    later = times[whole:]
    return seconds, (later[-1] - later[0]) / (len(later) - 1), png


def psnr(one: bytes, other: bytes) -> float:
    """Of two PNGs, in dB."""
    first, second = (np.asarray(Image.open(io.BytesIO(png)), np.float64) for png in (one, other))
    error = float(np.mean((first - second) ** 2))
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
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    near: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        await alone.start()
        await shared.start()
        for number in range(arguments.rounds + 1):
            exact = b""
            for name, (ranks, patches) in kinds.items():
                asked = request(arguments, f"{name} {number}", number, patches)
                average, later, png = await drawn(ranks, asked, arguments.sync)
                exact = exact or png
                assert patches or png == exact, "whole pictures are the same"
                near[name].append(psnr(png, exact))
                if number:  # The first is for what is done once.
                    took[name].append((average, later))
    finally:
        await alone.stop()
        await shared.stop()
    report(took, near, f"{size} runners, whole")


def report(
    took: dict[str, list[tuple[float, float]]], near: dict[str, list[float]], beside: str
) -> None:
    for name, seconds in took.items():
        average, later = (statistics.median(each) for each in zip(*seconds, strict=True))
        ratios = [base[1] / own[1] for base, own in zip(took[beside], seconds, strict=True)]
        whole = [base[0] / own[0] for base, own in zip(took[beside], seconds, strict=True)]
        print(
            f"{name:24} {average * 1000:6.0f} ms a step of the picture, "
            f"{statistics.median(whole):4.2f} times as fast; behind the whole steps "
            f"{later * 1000:6.0f} ms, {statistics.median(ratios):4.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f}); PSNR {statistics.median(near[name]):.1f} dB"
        )


def request(
    arguments: argparse.Namespace, name: str, seed: int, patches: int | None
) -> DrawRequest:
    return DrawRequest(
        request_id=name,
        prompt="a red circle",
        width=arguments.size,
        height=arguments.size,
        steps=arguments.steps,
        seed=seed,
        guidance=arguments.guidance,
        patches=patches,
        sync_steps=arguments.sync if patches else None,
    )


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
