"""How many tokens of a prompt to compute at once, learned from how long it took: pure."""

from operator import mul

# How many times its quiet length the gap between two tokens of a stream is to be beside a prompt.
# What a step takes varies, and the 95th percentile is to stay under three times.
_MARK = 2.6
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
# Weight of what was measured last.
_NEW = 0.2


class ChunkSize:
    """Tokens of a prompt to compute in one step.

    Beside answers a chunk is as large as leaves their gaps within the mark, by what it costs
    whatever its size (weights, and the keys and values so far, are read) and what each token adds.
    Where the first alone is beyond the mark, it is as small as still gives the tokens their share
    of its time.
    """

    def __init__(self, largest: int, stages: int = 1) -> None:
        self._largest = largest
        self._stages = stages
        self._decode = 0.0
        self._cost = _ChunkCost()
        self._most = float(min(_FIRST, largest))
        self._given = 0

    def tokens(self, *, groups: int, context: int = 0, hop: float = 0.0) -> int:
        """The size of the next chunk, after `context` tokens of its prompt, beside so many groups
        of rows that decode. From one stage to the next it takes `hop` seconds."""
        if not groups:
            return self._largest
        size = max(_LEAST, min(round(self._size(groups, context, hop)), self._largest))
        self._given += 1
        return size // 2 if self._given % _HALF_EVERY == 0 else size

    def _size(self, groups: int, context: int, hop: float) -> float:
        if not self._decode or not self._cost.known:
            return self._most
        fixed, each = self._cost.parts(context)
        least = fixed * _SHARE / (1 - _SHARE)
        wanted = max(self._room(groups, hop) - fixed, least)
        return min(wanted / each if each else self._most, self._most)

    def _room(self, groups: int, hop: float) -> float:
        """Seconds that a chunk may take in its slowest stage. While a group's step goes round, each
        other group has one, and chunks fill the rest of the pipeline."""
        quiet = max(groups * self._decode, self._stages * (self._decode + hop))
        return (_MARK * quiet - groups * self._decode) / max(self._stages + 1 - groups, 1)

    def decoded(self, seconds: float) -> None:
        """Take in what a decode step took in its slowest stage."""
        self._decode += (seconds - self._decode) * (_NEW if self._decode else 1.0)

    def prefilled(self, tokens: int, context: int, seconds: float) -> None:
        """Take in what a chunk took in its slowest stage, after so many tokens. Larger ones than
        are computed beside answers say little: they cost less for each token."""
        if tokens > self._most:
            return
        self._cost.add(tokens, context, seconds)
        self._most = max(_GROWTH * tokens + 1, _SHRINK * self._most)


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
