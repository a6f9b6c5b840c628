"""Tells what a picture shows by measuring it: colours, shape, place and size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pictures import COLOURS, PLACES, SHAPES, SIZES, Scene, inside

# An object's pixel is this far from the ground's colour, in steps of 0 to 255 over three channels.
_FAR = 60.0
# Fewer pixels than this part of the picture are no object.
_LEAST = 0.01
# The part of a shape's box in which it and its template must agree.
_ALIKE = 0.8
# How far a colour may be from the one that it is named after.
_OFF = 70.0


class Seen(NamedTuple):
    """A field is None where there is nothing that it could be."""

    ground: str | None
    colour: str | None
    shape: str | None
    place: str | None
    size: str | None


def look(picture: np.ndarray) -> Seen:
    """What a picture, uint8 (height, width, 3), shows."""
    pixels = picture.astype(np.float64)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    border = np.median(edge, axis=0)
    ground = _named(border)
    mask = np.linalg.norm(pixels - border, axis=-1) > _FAR
    if mask.mean() < _LEAST:
        return Seen(ground, None, None, None, None)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    height, width = picture.shape[:2]
    centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
    half = max((right - left) / width, (bottom - top) / height) / 2
    return Seen(
        ground,
        _named(np.median(pixels[mask], axis=0)),
        _shape(mask[top:bottom, left:right]),
        min(PLACES, key=lambda name: np.hypot(*np.subtract(PLACES[name], centre))),
        min(SIZES, key=lambda name: abs(SIZES[name] - half)),
    )


def right(picture: np.ndarray, scene: Scene, said: frozenset[str]) -> bool:
    """Whether a picture shows a scene, in the fields that its prompt says."""
    seen = look(picture)
    return all(getattr(seen, field) == getattr(scene, field) for field in said)


def _named(colour: np.ndarray) -> str | None:
    far = {name: float(np.linalg.norm(colour - value)) for name, value in COLOURS.items()}
    best = min(far, key=lambda name: far[name])
    return best if far[best] <= _OFF else None


def _shape(mask: np.ndarray) -> str | None:
    height, width = mask.shape
    if not 0.7 <= width / height <= 1.4:
        return None
    across = (np.arange(width) + 0.5) / width * 2 - 1
    down = (np.arange(height) + 0.5) / height * 2 - 1
    alike = {
        shape: float((inside(shape, across[None, :], down[:, None]) == mask).mean())
        for shape in SHAPES
    }
    best = max(alike, key=lambda name: alike[name])
    return best if alike[best] >= _ALIKE else None
