"""Wrote `heldout.json` and `heldout_edits.json`, once, before any training: kept-back scenes in
phrasings of their own."""

from __future__ import annotations

import json
from pathlib import Path

import edits
import numpy as np
from pictures import COLOURS, PLACES, SHAPES, SIZES
from prompts import AT, articles, kept_back

FILE = Path(__file__).parent / "heldout.json"
EDITS_FILE = Path(__file__).parent / "heldout_edits.json"
COUNT, SEED = 120, 7
EDITS_COUNT, EDITS_SEED = 60, 8
PHRASINGS = (
    "please draw a {size}{colour} {shape}{place} with a {ground} background",
    "I want a {size}{colour} {shape}{place}, with {ground} behind it",
    "a {size}{shape}{place}, coloured {colour}, on a {ground} background",
    "an image with a {size}{colour} {shape}{place} in front of a {ground} background",
    "make the background {ground} and put a {size}{colour} {shape} on it{place}",
    "{ground} background,{place} one {size}{colour} {shape}",
)
EDIT_PHRASINGS = {
    "colour": ("give the {shape} the colour {new}", "let it be {new}"),
    "ground": ("let the background be {new}", "change what is behind the {shape} to {new}"),
    "shape": ("put a {new} in place of the {shape}", "it should be a {new}"),
    "size": ("let the {shape} be {new}", "change it to {new} in size"),
    "place": ("the {shape} should be{at}", "let it move{at}"),
}


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


def write_edits() -> list[dict[str, object]]:
    """Items of a prompt, and the scenes before and after; the one after is kept back."""
    rng = np.random.default_rng(EDITS_SEED)
    items: list[dict[str, object]] = []
    while len(items) < EDITS_COUNT:
        edit = edits.draw_edit(rng, EDIT_PHRASINGS)
        if edits.kept(edit.after):
            items.append(
                {"prompt": edit.prompt, "before": vars(edit.before), "after": vars(edit.after)}
            )
    return items


if __name__ == "__main__":
    EDITS_FILE.write_text(json.dumps(write_edits(), indent=1) + "\n", encoding="utf-8")
    FILE.write_text(json.dumps(write(), indent=1) + "\n", encoding="utf-8")
