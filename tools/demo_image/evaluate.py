"""Draws the held-out prompts with a folder, through exo's engine on mflux, and judges them; then
the held-out edits."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from judge import look
from pictures import Scene, draw
from PIL import Image

from exo.inference.image.engine import DrawSpec
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.messages import Load
from exo.models.image_file import read_image_file

HERE = Path(__file__).parent
ENOUGH = 0.8
_SEED, _SCALE, _COLUMNS = 1, 2, 10


def opened(folder: Path) -> MfluxEngine:
    engine = MfluxEngine()
    load = Load(
        path=folder,
        variant="",
        start_layer=0,
        end_layer=1,
        context_length=1,
        max_concurrency=1,
        max_queue=1,
        kv_tokens=1,
        kv_bytes_per_token=1,
        prefix_cache_bytes=0,
        cast_float32=False,
    )
    engine.load(load, lambda *_: None)
    return engine


def drawn(engine: MfluxEngine, spec: DrawSpec) -> np.ndarray:
    """The picture, uint8, (side, side, 3)."""
    picture = engine.begin(spec)
    for _ in picture.steps():
        pass
    return np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB"))


def png(picture: np.ndarray) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def sheet(pictures: list[np.ndarray]) -> Image.Image:
    """All pictures in rows."""
    side = pictures[0].shape[0]
    rows = -(-len(pictures) // _COLUMNS)
    paper = np.full((rows * side, _COLUMNS * side, 3), 128, np.uint8)
    for number, picture in enumerate(pictures):
        down, across = divmod(number, _COLUMNS)
        paper[down * side : (down + 1) * side, across * side : (across + 1) * side] = picture
    image = Image.fromarray(paper)
    return image.resize((image.width * _SCALE, image.height * _SCALE), Image.Resampling.NEAREST)


class Judged(NamedTuple):
    """How many are right, and all pictures, with what was to be changed before each edit."""

    good: int
    of: int
    pictures: list[np.ndarray]


def judged(engine: MfluxEngine, items: list[dict[str, Any]], side: int, steps: int) -> Judged:
    """Draw the items of a list, tell what is wrong with each and how many are right by field."""
    good, fields, of = 0, Counter[str](), Counter[str]()
    pictures: list[np.ndarray] = []
    for number, item in enumerate(items):
        images: tuple[bytes, ...] = ()
        if "before" in item:
            before = draw(Scene(**item["before"]), np.random.default_rng(number))
            pictures.append(before)
            images = (png(before),)
        spec = DrawSpec(item["prompt"], side, side, steps, _SEED + number, images=images)
        pictures.append(drawn(engine, spec))
        seen, scene = look(pictures[-1])._asdict(), item.get("scene") or item["after"]
        wrong = {name: seen[name] for name in scene if seen[name] != scene[name]}
        good += not wrong
        of.update(scene.keys())
        fields.update(scene.keys() - wrong.keys())
        if wrong:
            print(f"{item['prompt']}: {wrong}")
    for name in of:
        print(f"{name}: {fields[name]} of {of[name]}")
    print(f"overall: {good} of {len(items)}, {good / len(items):.1%}\n")
    return Judged(good, len(items), pictures)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, help="in place of the folder's")
    parser.add_argument("--count", type=int, help="only so many of each")
    parser.add_argument("--sheet", type=Path, help="where a PNG of all pictures goes")
    given = parser.parse_args()
    file = read_image_file(given.folder)
    if file is None:
        parser.error(f"{given.folder} has no exo.json")
    engine, side = opened(given.folder), int(file.traits["size"])
    steps = given.steps or int(file.traits["steps"])
    found: list[Judged] = []
    for name in ("heldout.json", "heldout_edits.json"):
        items = json.loads((HERE / name).read_text(encoding="utf-8"))[: given.count]
        found.append(judged(engine, items, side, steps))
    if given.sheet:
        sheet([picture for each in found for picture in each.pictures]).save(given.sheet)
    return 0 if found[0].good >= ENOUGH * found[0].of else 1


if __name__ == "__main__":
    sys.exit(main())
