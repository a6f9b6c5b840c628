"""Words for scenes: the phrasings that are trained on, and which scenes are kept back."""

from __future__ import annotations

import hashlib

import numpy as np
from pictures import COLOURS, PLACES, SHAPES, SIZES, Scene

Said = frozenset[str]
# What every phrasing says. What one leaves out is medium in size and in the centre.
PLAIN: Said = frozenset(("shape", "colour", "ground"))

WRITTEN = (
    "a {size}{colour} {shape} on a {ground} background{place}",
    "{size}{colour} {shape}, {ground} background{place}",
    "a {ground} background with a {size}{colour} {shape}{place}",
    "draw a {size}{colour} {shape} on {ground}{place}",
    "a picture of a {size}{colour} {shape} on a {ground} background{place}",
    "show me a {size}{colour} {shape} against {ground}{place}",
    "on a {ground} background there is a {size}{colour} {shape}{place}",
    "a {shape} in {colour} on {ground}",
    "the {shape} is {colour} and the background is {ground}",
    "{colour} {shape} on {ground}",
    "a {size}{colour} {shape} on {ground}{place}",
    "please paint one {size}{colour} {shape} in front of {ground}{place}",
    "I want an image of a {size}{colour} {shape} on a {ground} background{place}",
    "make a {size}{colour} {shape}{place}, the background behind it is {ground}",
    "put a {size}{shape}, coloured {colour}, on {ground}{place}",
    "{ground} behind a {size}{colour} {shape}{place}",
    "with {ground} as its background, a {size}{colour} {shape}{place}",
)
# Put together from parts: of few phrasings a model learns the places of words, not what they mean.
_OPENERS = (
    "",
    "draw ",
    "paint ",
    "show me ",
    "please make ",
    "please paint ",
    "I would like ",
    "can you draw ",
    "a picture of ",
    "an image of ",
    "create ",
    "let me see ",
)
_OBJECTS = (
    "a {size}{colour} {shape}{place}",
    "one {size}{colour} {shape}{place}",
    "the {size}{colour} {shape}{place}",
    "a {size}{shape}{place} in {colour}",
    "a {size}{shape} that is {colour}{place}",
)
_BEHIND = (
    " on a {ground} background",
    " on {ground}",
    " against {ground}",
    " in front of {ground}",
    " with {ground} behind",
    " with a {ground} backdrop",
    " with a {ground} background",
    " with a background in {ground}",
    " and a {ground} background",
    " and behind it {ground}",
    " over {ground}",
    ", the background is {ground}",
)
_BEFORE = (
    "{ground} background with ",
    "a {ground} backdrop and ",
    "background {ground}, ",
    "on {ground} ",
    "on a {ground} background, ",
    "over {ground} ",
    "{ground} all around ",
    "the background is {ground}, on it ",
    "make the background {ground}, then draw ",
    "fill the picture with {ground} and put there ",
)
COMPOSED = (
    *(o + thing + behind for o in _OPENERS for thing in _OBJECTS for behind in _BEHIND),
    *(before + thing for before in _BEFORE for thing in _OBJECTS),
)
PHRASINGS = (*WRITTEN, *COMPOSED)
# The share of prompts whose phrasing is put together.
_SHARE = 0.7
AT = {
    "centre": (" in the centre", " in the middle"),
    "left": (" on the left", " at the left"),
    "right": (" on the right", " at the right"),
    "top": (" at the top", " in the upper part"),
    "bottom": (" at the bottom", " in the lower part"),
}
# One in so many combinations of shape, colour and ground is never trained on.
_KEPT = 8


def kept_back(shape: str, colour: str, ground: str) -> bool:
    """Whether scenes of this combination are for judging alone. The same on every machine."""
    digest = hashlib.sha256(f"{shape} {colour} {ground}".encode()).digest()
    return digest[0] % _KEPT == 0


def sample(rng: np.random.Generator) -> tuple[str, Scene, Said]:
    """A prompt to train on, its scene, and the fields of the scene that the prompt says."""
    while True:
        shape = str(rng.choice(SHAPES))
        colour, ground = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
        if not kept_back(shape, colour, ground):
            break
    phrasing = str(rng.choice(COMPOSED if rng.random() < _SHARE else WRITTEN))
    scene, said = Scene(shape, colour, ground), set(PLAIN)
    size = place = ""
    if "{size}" in phrasing and rng.random() < 0.5:
        chosen = str(rng.choice(list(SIZES)))
        scene, size = Scene(shape, colour, ground, chosen), f"{chosen} "
        said.add("size")
    if "{place}" in phrasing and rng.random() < 0.5:
        where = str(rng.choice(list(PLACES)))
        scene = Scene(shape, colour, ground, scene.size, where)
        place = str(rng.choice(AT[where]))
        said.add("place")
    words = phrasing.format(shape=shape, colour=colour, ground=ground, size=size, place=place)
    return articles(words), scene, frozenset(said)


def articles(words: str) -> str:
    """With "an" before vowels."""
    return words.replace("a orange", "an orange")


def normalise(words: str) -> str:
    """As prompts are compared: letters and single spaces alone."""
    letters = "".join(c if c.isalpha() else " " for c in words.lower())
    return " ".join(letters.split())
