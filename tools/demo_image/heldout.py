"""Wrote `heldout.json`, once, before any training: kept-back scenes in phrasings of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pictures import COLOURS, PLACES, SHAPES, SIZES
from prompts import AT, articles, kept_back

FILE = Path(__file__).parent / "heldout.json"
COUNT, SEED = 120, 7
PHRASINGS = (
    "please draw a {size}{colour} {shape}{place} with a {ground} background",
    "I want a {size}{colour} {shape}{place}, with {ground} behind it",
    "a {size}{shape}{place}, coloured {colour}, on a {ground} background",
    "an image with a {size}{colour} {shape}{place} in front of a {ground} background",
    "make the background {ground} and put a {size}{colour} {shape} on it{place}",
    "{ground} background,{place} one {size}{colour} {shape}",
)


def write() -> list[dict[str, object]]:
    """Items of a prompt, the scene that it describes, and which fields of it are judged."""
    rng = np.random.default_rng(SEED)
    kept = [
        (shape, colour, ground)
        for shape in SHAPES
        for colour in COLOURS
        for ground in COLOURS
        if colour != ground and kept_back(shape, colour, ground)
    ]
    items: list[dict[str, object]] = []
    seen: set[str] = set()
    while len(items) < COUNT:
        shape, colour, ground = kept[int(rng.integers(len(kept)))]
        fields = {"shape": shape, "colour": colour, "ground": ground}
        words = {"size": "", "place": ""}
        if rng.random() < 0.4:
            fields["size"] = str(rng.choice(list(SIZES)))
            words["size"] = fields["size"] + " "
        if rng.random() < 0.4:
            fields["place"] = str(rng.choice(list(PLACES)))
            words["place"] = str(rng.choice(AT[fields["place"]]))
        prompt = articles(str(rng.choice(PHRASINGS)).format(**{**fields, **words}))
        if prompt not in seen:
            seen.add(prompt)
            items.append({"prompt": prompt, "scene": fields})
    return items


if __name__ == "__main__":
    FILE.write_text(json.dumps(write(), indent=1) + "\n", encoding="utf-8")
