"""Rows that leave one group for another: what they hold, and the tokens that follow."""

from collections.abc import Iterator

import pytest

from exo.errors import RingError
from exo.inference.steps import LAST_SAMPLED, Decode, Join, Prefill

from .test_slices import OF_EACH_KIND, Bench, opening

PROMPTS = {
    name: [(7 * n + name) % 40 + 1 for n in range(tokens)]
    for name, tokens in enumerate((3, 40, 9), start=1)
}
TOKENS = 4


class Rows:
    """Sequences in groups, each of which can be given so many tokens more."""

    def __init__(self, architecture: str) -> None:
        self.bench = Bench(architecture)
        self.answers: dict[int, list[int]] = {}
        self.logprobs: dict[int, list[float]] = {}

    def open(self, name: int, group: int) -> None:
        prompt = PROMPTS[name]
        work = Prefill(sequence=name, position=0, tokens=tuple(prompt[:-1]))
        self.bench.run(work, opening(name, prompt, logprobs=0))
        self.join(name, group)
        self.answers[name], self.logprobs[name] = [], []

    def join(self, name: int, group: int) -> None:
        self.bench.run(None, Join(sequence=name, group=group))

    def decode(self, group: int, rows: list[int]) -> None:
        """What was sampled last is known to the executor alone."""
        for _ in range(TOKENS):
            found = [(len(PROMPTS[row]) - 1, self.answers[row], PROMPTS[row][-1]) for row in rows]
            work = Decode(
                group=group,
                positions=tuple(known + len(answer) for known, answer, _ in found),
                tokens=tuple(LAST_SAMPLED if answer else first for _, answer, first in found),
            )
            tokens, logprobs = self.bench.drawn(work)
            for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
                self.answers[row].append(token)
                self.logprobs[row].append(logprob)


def moves() -> Iterator[tuple[int, int, dict[int, list[int]]]]:
    """A row and the group it goes to, and the rows of all groups then: out of the middle, out of a
    group that ends so, to one that begins so, and back."""
    yield 2, 1, {0: [1], 1: [3, 2]}
    yield 1, 1, {1: [3, 2, 1]}
    yield 3, 0, {0: [3], 1: [2, 1]}
    yield 2, 0, {0: [3, 2], 1: [1]}


@pytest.mark.parametrize("architecture", OF_EACH_KIND)
def test_a_row_goes_on_in_another_group_as_if_nothing_had_been(architecture: str):
    rows = Rows(architecture)
    if not rows.bench.executor._batchable:
        rows.open(1, 0)
        rows.open(2, 1)
        with pytest.raises(RingError, match="share no group"):
            rows.join(2, 0)
        return
    for name, group in ((1, 0), (2, 0), (3, 1)):
        rows.open(name, group)
    rows.decode(0, [1, 2])
    rows.decode(1, [3])
    for name, to, groups in moves():
        rows.join(name, to)
        for group, there in groups.items():
            rows.decode(group, there)
    for name in PROMPTS:
        alone = Rows(architecture)
        alone.open(name, 0)
        for _ in range(5):
            alone.decode(0, [name])
        assert rows.answers[name] == alone.answers[name]
        assert rows.logprobs[name] == pytest.approx(alone.logprobs[name], abs=1e-3)
        assert len(set(alone.logprobs[name])) > 1, "nothing depends on what is in the caches"
