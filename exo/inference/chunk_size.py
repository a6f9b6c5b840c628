"""How many tokens of a prompt to compute at once, and in how many parts of the layers, learned
from how long it took: pure."""

import statistics
from collections import deque
from operator import mul
from typing import NamedTuple

from exo.inference.course import Chunk

# How many times its quiet length the gap between two tokens of a stream is to be beside a prompt.
# What a step takes varies, and the 95th percentile is to stay under three times.
_MARK = 2.4
# At least this share of a chunk's time goes into its tokens: the rest is what any chunk costs, and
# in chunks that are too small a prompt takes for ever.
_SHARE = 1 / 3
_FIRST = 64
# Every so often a chunk is a half, so that its own cost and that of its tokens can be told apart.
_HALF_EVERY = 4
_LEAST = 2
_GROWTH, _SHRINK = 1.5, 0.95
_FADE = 0.98
# Coordinates in turn; at first all is taken to be a matter of size.
_ORDER = (2, 0, 3, 1)
_ROUNDS = 8
# What took longer than this many times what was expected was held up by something else, unless the
# next one is as well.
_HELD_UP = 2.0
_ROUNDING = 1e-6
# Of so many decode steps the median is what one takes: a few that were held up are no measure.
_RECENT = 15
# Beside a long prompt a stream grows, and so does what its own steps take. Up to so many times as
# much as before the prompt is made up for by shorter parts of chunks.
_GROWN = 1.6


class Portion(NamedTuple):
    """So many tokens, computed in so many parts with steps of others between them."""

    tokens: int
    parts: int


class ChunkSize:
    """Tokens of a prompt to compute as one chunk, and in how many parts.

    A chunk costs something whatever its size (weights, and the keys and values so far, are read),
    and something for each token. Beside answers each part of it is as long as leaves their gaps
    within the mark: so the more parts, the larger the chunk, and the less of its time goes into
    what any chunk costs. It is as large as it can be with one of the `slices` of layers in each
    part, and then has as few parts as keep to the mark. Where the first token alone is beyond that,
    it is as small as still gives the tokens their share of its time.

    What counts is the slowest part, since that is what the longest gap comes of. So where most of
    the work is done in one part, chunks become as small as they would be without parts.
    """

    def __init__(self, largest: int, stages: int = 1, slices: int = 1) -> None:
        self._largest = largest
        self._stages = stages
        self._slices = slices
        self._decoded: deque[float] = deque(maxlen=_RECENT)
        self._alone = 0.0
        self._cost = _ChunkCost()
        self._most = float(min(_FIRST, largest))
        self._given = 0

    def next(self, *, groups: int, context: int = 0, hop: float = 0.0) -> Portion:
        """The next chunk, after `context` tokens of its prompt, beside so many groups of rows that
        decode. From one stage to the next it takes `hop` seconds."""
        if not groups:
            return Portion(self._largest, 1)
        if not self._decoded or not self._cost.known:
            return Portion(int(self._most), self._slices)
        fixed, each = self._cost.parts(context)
        room = self._room(groups, hop) * self._slices  # For a chunk in parts of one slice.
        size = self._most
        if each:
            least = fixed * _SHARE / (1 - _SHARE)
            size = min(max(room - fixed, least) / each, size)
        tokens = max(_LEAST, min(int(size), self._largest))
        self._given += 1
        if self._given % _HALF_EVERY == 0:
            tokens //= 2
        return Portion(tokens, _over(self._slices, self._depth(room, fixed + each * tokens)))

    def _depth(self, room: float, cost: float) -> int:
        """How many slices each part of a chunk may have, so that none takes too long."""
        return max(1, min(int(room / cost + _ROUNDING), self._slices)) if cost else self._slices

    def _room(self, groups: int, hop: float) -> float:
        """Seconds that a chunk may take in its slowest stage. While a group's step goes round, each
        other group has one, and chunks fill the rest of the pipeline."""
        decode = statistics.median(self._decoded)
        # In fewer layers at once, at no great cost; smaller chunks would make the prompt slow.
        grown = _GROWN if self._slices > 1 else 1.0
        alone = min(max(self._alone, decode / grown), decode)
        quiet = max(groups * alone, self._stages * (alone + hop))
        return (_MARK * quiet - groups * decode) / max(self._stages + 1 - groups, 1)

    def decoded(self, seconds: float, *, beside: bool = False) -> None:
        """Take in what a decode step took in its slowest stage, and whether it was beside a
        prompt."""
        self._decoded.append(seconds)
        if not beside:
            self._alone = statistics.median(self._decoded)

    def prefilled(self, chunk: Chunk) -> None:
        """Take in what the slowest part of a chunk took. Larger chunks than are computed beside
        answers say little: they cost less for each token."""
        if chunk.size > self._most:
            return
        deepest = _over(self._slices, chunk.parts)
        seconds = chunk.slowest * self._slices / deepest
        self._cost.add(chunk.size, chunk.position, seconds)
        self._most = max(_GROWTH * chunk.size + 1, _SHRINK * self._most)


def _over(slices: int, count: int) -> int:
    """Divided and rounded up."""
    return -(-slices // count)


class _ChunkCost:
    """What a chunk of n tokens after c others takes: (p0 + p1·c) + (p2 + p3·c)·n seconds, where
    none of p is negative.

    The least squares of relative errors, the past fading, by a few rounds of coordinate descent on
    the normal equations for each chunk (V. Franc, V. Hlavac, M. Navara: Sequential coordinate-wise
    algorithm for the non-negative least squares problem, 2005). With c left out, what grows with it
    would be taken for a matter of size, since chunks become smaller as they become slower.
    """

    def __init__(self) -> None:
        self._square = [[0.0] * 4 for _ in range(4)]
        self._right = [0.0] * 4
        self._p = [0.0] * 4
        self._held_up = False

    @property
    def known(self) -> bool:
        """Whether anything was seen."""
        return any(self._p)

    def parts(self, context: int) -> tuple[float, float]:
        """After so many tokens, what a chunk costs and what each of its tokens does."""
        p = self._p
        return p[0] + p[1] * context, p[2] + p[3] * context

    def add(self, tokens: int, context: int, seconds: float) -> None:
        """Take in what a chunk took."""
        fixed, each = self.parts(context)
        held_up = self.known and seconds > _HELD_UP * (fixed + each * tokens)
        if held_up and not self._held_up:
            self._held_up = True
            return
        self._held_up = held_up
        x = [each / seconds for each in (1, context, tokens, tokens * context)]
        for row, one in zip(self._square, x, strict=True):
            row[:] = [_FADE * old + one * other for old, other in zip(row, x, strict=True)]
        self._right = [_FADE * old + one for old, one in zip(self._right, x, strict=True)]
        for at in _ORDER * _ROUNDS:
            row = self._square[at]
            if row[at]:
                off = self._right[at] - sum(map(mul, row, self._p))
                self._p[at] = max(0.0, self._p[at] + off / row[at])
