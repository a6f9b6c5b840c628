"""Words for changes of a picture: what one asks of an edit, and the scenes before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from pictures import COLOURS, PLACES, SHAPES, SIZES, Scene
from prompts import articles, kept_back

# By the field that changes. {new} is what it becomes, {shape} what is there before.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "make the {shape} {new}",
        "make it {new}",
        "change the colour to {new}",
        "change the colour of the {shape} to {new}",
        "paint the {shape} {new}",
        "turn the {shape} {new}",
        "colour it {new}",
        "give it a {new} colour",
        "I want it in {new}",
        "make the {shape} a {new} one",
        "it becomes {new}",
    ),
    "ground": (
        "make the background {new}",
        "change the background to {new}",
        "paint the background {new}",
        "put it on {new}",
        "put the {shape} on a {new} background",
        "turn the background {new}",
        "use a {new} background",
        "the background should be {new}",
        "place it in front of {new}",
        "what is behind it becomes {new}",
        "with a {new} background instead",
    ),
    "shape": (
        "turn it into a {new}",
        "make it a {new}",
        "replace the {shape} with a {new}",
        "change the {shape} to a {new}",
        "make a {new} of the {shape}",
        "swap the {shape} for a {new}",
        "I want a {new} instead",
        "it becomes a {new}",
        "draw a {new} where the {shape} is",
    ),
    "size": (
        "make it {new}",
        "make the {shape} {new}",
        "change the size to {new}",
        "the {shape} should be {new}",
        "resize it to {new}",
        "I want it {new}",
        "draw the {shape} {new}",
        "it becomes {new} in size",
    ),
    "place": (
        "move it{at}",
        "move the {shape}{at}",
        "put it{at}",
        "put the {shape}{at}",
        "shift it{at}",
        "I want it{at}",
        "bring the {shape}{at}",
        "the {shape} goes{at}",
    ),
}
TO = {
    "centre": (" to the centre", " in the centre", " to the middle", " in the middle"),
    "left": (" to the left", " on the left"),
    "right": (" to the right", " on the right"),
    "top": (" to the top", " at the top"),
    "bottom": (" to the bottom", " at the bottom"),
}
CHOICES: dict[str, Sequence[str]] = {
    "colour": tuple(COLOURS),
    "ground": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "place": tuple(PLACES),
}


class Edit(NamedTuple):
    prompt: str
    before: Scene
    after: Scene


def sample(rng: np.random.Generator) -> Edit:
    """An edit to train on: neither of its scenes is of a combination that is kept back."""
    while True:
        edit = draw_edit(rng, PHRASINGS)
        if not kept(edit.before) and not kept(edit.after):
            return edit


def draw_edit(rng: np.random.Generator, phrasings: dict[str, tuple[str, ...]]) -> Edit:
    """Any edit in these words."""
    shape, size, place = (str(rng.choice(list(CHOICES[f]))) for f in ("shape", "size", "place"))
    colour, ground = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    before = Scene(shape, colour, ground, size, place)
    field = str(rng.choice(list(phrasings)))
    taken = {colour, ground} if field in ("colour", "ground") else {getattr(before, field)}
    new = str(rng.choice([choice for choice in CHOICES[field] if choice not in taken]))
    at = str(rng.choice(TO[new])) if field == "place" else ""
    words = str(rng.choice(phrasings[field])).format(new=new, shape=shape, at=at)
    return Edit(articles(words), before, replace(before, **{field: new}))


def kept(scene: Scene) -> bool:
    return kept_back(scene.shape, scene.colour, scene.ground)
