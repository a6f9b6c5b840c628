"""A sequence on its way through the planner."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from exo.inference.engine import SequenceSpec
from exo.inference.steps import LAST_SAMPLED


@dataclass
class Course:
    """A sequence on its way. `position`: tokens in the caches when all planned steps are done;
    `planned`: tokens that they will have sampled; `spent`: by stage, the seconds that the steps of
    its prompt took."""

    spec: SequenceSpec
    position: int = 0
    planned: int = 0
    cached: int = 0
    generated: list[int] = field(default_factory=list[int])
    opened: bool = False
    closed: bool = False
    entry: int | None = None
    spent: tuple[float, ...] = ()

    @property
    def prompt_done(self) -> bool:
        return self.position >= len(self.spec.prompt) - 1

    def next_token(self) -> int:
        """What the next decode step computes."""
        if self.planned > len(self.generated):
            return LAST_SAMPLED
        return self.generated[-1] if self.generated else self.spec.prompt[-1]

    def spend(self, seconds: Sequence[float]) -> None:
        """A step of its prompt took so long in each stage."""
        self.spent = tuple(a + b for a, b in zip_longest(self.spent, seconds, fillvalue=0.0))
