"""Scenes of one shape on a plain ground, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (35, 60, 215),
    "yellow": (245, 220, 40),
    "orange": (245, 135, 20),
    "purple": (130, 40, 165),
    "pink": (250, 150, 195),
    "cyan": (60, 210, 225),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star")
# Half of the shape's extent, in parts of the picture's side.
SIZES = {"small": 0.14, "medium": 0.20, "large": 0.27}
# The centre, in parts of the picture's side: across, and down.
PLACES = {
    "centre": (0.5, 0.5),
    "left": (0.3, 0.5),
    "right": (0.7, 0.5),
    "top": (0.5, 0.3),
    "bottom": (0.5, 0.7),
}
_FINE = 4


@dataclass(frozen=True)
class Scene:
    shape: str
    colour: str
    ground: str
    size: str = "medium"
    place: str = "centre"


def inside(shape: str, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Where a shape is, at coordinates that are -1 to 1 over its extent."""
    within = (np.abs(across) <= 1) & (np.abs(down) <= 1)
    match shape:
        case "circle":
            return across**2 + down**2 <= 1
        case "square":
            return within
        case "triangle":
            return within & (np.abs(across) <= (down + 1) / 2)
        case "diamond":
            return np.abs(across) + np.abs(down) <= 1
        case "star":
            return _star(0.951 * across, 0.905 * down - 0.095)
        case _:
            raise ValueError(f"no such shape: {shape}")


def _star(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """With five points on the unit circle. Each of the five lines through two points that are not
    next to each other cuts one point off; who is beyond one line at most is inside."""
    turns = np.deg2rad(72 * np.arange(5) - 90)[:, None, None]
    along = np.cos(turns) * across + np.sin(turns) * down
    return (along > np.cos(np.deg2rad(72))).sum(0) <= 1


def draw(scene: Scene, rng: np.random.Generator | None = None, side: int = SIDE) -> np.ndarray:
    """The picture, uint8, (side, side, 3); with a generator a little of it is left to chance."""
    across, down = PLACES[scene.place]
    half = SIZES[scene.size]
    if rng is not None:
        across, down = across + rng.uniform(-0.02, 0.02), down + rng.uniform(-0.02, 0.02)
        half *= rng.uniform(0.94, 1.06)
    fine = side * _FINE
    points = (np.arange(fine) + 0.5) / fine
    mask = inside(
        scene.shape, (points[None, :] - across) / half, (points[:, None] - down) / half
    ).astype(np.float64)
    cover = mask.reshape(side, _FINE, side, _FINE).mean((1, 3))[..., None]
    colour, ground = np.array(COLOURS[scene.colour]), np.array(COLOURS[scene.ground])
    return np.rint(cover * colour + (1 - cover) * ground).astype(np.uint8)
