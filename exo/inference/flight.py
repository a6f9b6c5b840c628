"""A step on its way."""

from dataclasses import dataclass

from exo.inference.course import Chunk, Course
from exo.inference.steps import Step


@dataclass
class Flight:
    """A step whose result has not come, and whose tokens it is to bring; was it sent `alone`, and
    `copies` it caches?"""

    step: Step
    rows: tuple[Course, ...] = ()
    group: int | None = None
    drafts: tuple[tuple[int, ...], ...] = ()
    sent: float = 0.0
    alone: bool = False
    copies: bool = False
    chunk: Chunk | None = None
