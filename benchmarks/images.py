"""Pictures by two runners with a core each, beside one runner on one core.

    python -m benchmarks.images [--width 512] [--blocks 8] [--steps 6] [--rounds 5] [--size 256]

In turns, on the same random model of FLUX.2's kind, guided in two passes: one picture by one
runner; by two that have half of the blocks each; by two that compute a pass each; and two pictures,
one by each of two runners. All must be the same. Needs Linux.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.pinned import PinnedRanks
from exo.inference.image.types import DrawFinished, Drawn, DrawRequest
from exo.inference.messages import Draw
from tests.inference.image import maker, small

VARIANT = "flux.2-klein-base-4b"
HEAD = 64


class Pinned(PinnedRanks):
    """Runners that draw, with a core each."""

    def __init__(self, folder: Path, layers: int, cuts: list[int], **load: Any) -> None:
        super().__init__(folder, layers, cuts, variant=VARIANT, **load)

    async def draw(self, asked: DrawRequest) -> tuple[float, bytes]:
        """The seconds of a step, and the picture."""
        head = self.ranks[0]
        since = len(head.said)
        head.process.send(Draw(request=asked))
        end: DrawFinished = await head.wait_for(DrawFinished, since)
        drawn: Drawn = await head.wait_for(Drawn, since)
        return end.stats.seconds_per_step, drawn.png


async def compare(folder: Path, blocks: int, arguments: argparse.Namespace) -> None:
    kinds = {
        "one runner": [Pinned(folder, blocks, [])],
        "half of the blocks each": [Pinned(folder, blocks, [blocks // 2])],
        "a pass each": [Pinned(folder, blocks, [0], guidance=True, start_layer=0)],
        "a picture each": [Pinned(folder, blocks, [], first=at) for at in (0, 1)],
    }
    took: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        for drawers in kinds.values():
            for drawer in drawers:
                await drawer.start()
        for number in range(arguments.rounds + 1):
            pictures: set[bytes] = set()
            for name, drawers in kinds.items():
                asked = request(arguments, f"{name} {number}", seed=number)
                drawn = await asyncio.gather(*(drawer.draw(asked) for drawer in drawers))
                pictures |= {png for _, png in drawn}
                if number:  # The first is for what is done once.
                    took[name].append(max(seconds for seconds, _ in drawn) / len(drawn))
            assert len(pictures) == 1, "all draw the same picture"
    finally:
        for drawer in (each for drawers in kinds.values() for each in drawers):
            await drawer.stop()
    alone = took["one runner"]
    for name, seconds in took.items():
        ratios = [one / each for one, each in zip(alone, seconds, strict=True)]
        print(
            f"{name:24} {statistics.median(seconds) * 1000:7.0f} ms a step of one picture, "
            f"{statistics.median(ratios):5.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def request(arguments: argparse.Namespace, name: str, seed: int) -> DrawRequest:
    return DrawRequest(
        request_id=name,
        prompt="a red circle",
        width=arguments.size,
        height=arguments.size,
        steps=arguments.steps,
        seed=seed,
        guidance=3.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    double = arguments.blocks // 4
    larger = {
        "num_layers": double,
        "num_single_layers": arguments.blocks - double,
        "num_attention_heads": arguments.width // HEAD,
        "attention_head_dim": HEAD,
        "axes_dims_rope": [HEAD // 4] * 4,
    }
    sizes = {**small.FLUX2["transformer_overrides"], **larger}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(small.FLUX2, {"transformer_overrides": sizes}),
    ):
        model = maker.make_image_model(Path(folder) / "model", VARIANT)
        asyncio.run(compare(model, arguments.blocks, arguments))


if __name__ == "__main__":
    main()
