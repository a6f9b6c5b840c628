"""A sequence on its way through the planner, and the chunk of its prompt that is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from exo.inference.engine import SequenceSpec
from exo.inference.steps import LAST_SAMPLED, Continue, Open, Prefill


@dataclass
class Chunk:
    """`size` tokens of a prompt after `position` others, computed in so many parts; `planned` of
    them are. `slowest` is what the slowest so far took, in seconds, in its slowest stage;
    `comparable` is false once several were made one."""

    position: int
    size: int
    parts: int
    planned: int = 1
    slowest: float = 0.0
    comparable: bool = True


@dataclass
class Course:
    """A sequence on its way. `position`: tokens in the caches when all planned steps are done, and
    with them the parts that are left of its `chunk`; `planned`: tokens that they will have
    sampled; `spent`: by stage, the seconds that the steps of its prompt took."""

    spec: SequenceSpec
    position: int = 0
    planned: int = 0
    cached: int = 0
    generated: list[int] = field(default_factory=list[int])
    opened: bool = False
    closed: bool = False
    entry: int | None = None
    spent: tuple[float, ...] = ()
    chunk: Chunk | None = None

    @property
    def in_chunk(self) -> bool:
        """Whether parts of a chunk are left to be planned."""
        return self.chunk is not None and self.chunk.planned < self.chunk.parts

    @property
    def prompt_done(self) -> bool:
        return self.position >= len(self.spec.prompt) - 1 and not self.in_chunk

    def open(self, entry: int | None, length: int) -> Open:
        """Begin it, after so many tokens of an entry of the prefix cache."""
        spec = self.spec
        self.opened = True
        self.position = self.cached = length
        return Open(
            sequence=spec.sequence_id,
            sampling=spec.sampling,
            index=spec.index,
            logprobs=spec.logprobs,
            prompt_tokens=len(spec.prompt),
            history=tuple(spec.prompt) if spec.sampling.looks_back else (),
            grammar=spec.grammar,
            entry=entry,
            length=length,
        )

    def begin_chunk(self, size: int, parts: int) -> Prefill:
        """The first part of a chunk of at most that size."""
        begin = self.position
        self.position = end = min(begin + size, len(self.spec.prompt) - 1)
        self.chunk = Chunk(begin, end - begin, parts)
        return Prefill(
            sequence=self.spec.sequence_id,
            position=begin,
            tokens=tuple(self.spec.prompt[begin:end]),
            parts=parts,
        )

    def continue_chunk(self, chunk: Chunk, *, to_its_end: bool) -> Continue:
        """The next part of a chunk, or all that are left as one."""
        if to_its_end and chunk.planned < chunk.parts - 1:
            chunk.comparable = False
            chunk.planned = chunk.parts - 1
        chunk.planned += 1
        return Continue(
            sequence=self.spec.sequence_id,
            position=chunk.position,
            size=chunk.size,
            part=chunk.planned - 1,
            parts=chunk.parts,
        )

    def next_token(self) -> int:
        """What the next decode step computes."""
        if self.planned > len(self.generated):
            return LAST_SAMPLED
        return self.generated[-1] if self.generated else self.spec.prompt[-1]

    def spend(self, seconds: Sequence[float]) -> None:
        """A step of its prompt took so long in each stage."""
        self.spent = tuple(a + b for a, b in zip_longest(self.spent, seconds, fillvalue=0.0))
