"""Into how many groups the rows of a pipeline are best divided, so that all stages work at once:
learned from how long it took, pure."""

from collections.abc import Callable, Sequence

# Weight of what was measured last.
_NEW, _NEW_DEVIATION = 0.2, 0.03
# More groups must promise this much to be worth their overhead; other ones than there are, this
# much to be worth moving what is in the caches of a row.
_GAIN, _MOVES = 1.02, 1.05


class MicroBatches:
    """Groups of rows in flight at once, over so many stages.

    A stage's time t is taken to be a + b·rows. A step of each of g groups takes as long as the
    slower of: all of them through one stage, or the largest through all s stages and hops. To that
    comes (s - 1)·d·t, where d is by how much t deviates in proportion: so long is a stage without
    work where others are slow for once, which groups that lie ready make up for. (Two stages whose
    speed moved by a quarter waited 11% of the time with two groups and 5% with four.)
    """

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._fit = _Line()
        self._hop = 0.0
        self._deviation = 0.0

    def observe(self, rows: int, stage: float) -> None:
        """Take in what a decode step took in its slowest stage, in seconds."""
        if self._fit.known:
            # One that is far off, as the first of a kind, does not count for more than others.
            off = min(abs(stage / self._fit.at(rows) - 1), 1.0)
            self._deviation += (off - self._deviation) * _NEW_DEVIATION
        self._fit.add(rows, stage)

    def travelled(self, hop: float) -> None:
        """Take in what a step that was alone took from one stage to the next, in seconds."""
        self._hop += (max(hop, 0.0) - self._hop) * (_NEW if self._hop else 1.0)

    @property
    def hop(self) -> float:
        """Seconds of one hop, smoothed."""
        return self._hop

    def division(self, rows: int) -> tuple[int, ...]:
        """The sizes of the groups into which so many rows, one or more, are best divided."""
        if self._stages == 1 or rows == 1:
            return (rows,)
        at = self._fit.at
        best = _equal(rows, min(self._stages, rows))
        if not self._fit.known:
            return best
        shortest = self._period(best, at)
        for count in range(1, min(2 * self._stages, rows) + 1):
            sizes = _equal(rows, count)
            period = self._period(sizes, at)
            if period * _GAIN < shortest:
                best, shortest = sizes, period
        return best

    def better(self, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """The best division of the rows of groups of these sizes, if it is worth moving rows."""
        best = self.division(sum(sizes)) if sizes else ()
        if sorted(sizes) == sorted(best):
            return None
        # While groups of one size only were seen, their time is taken to grow with their rows.
        at = self._fit.at if self._fit.known else self._fit.proportional
        return best if self._period(best, at) * _MOVES < self._period(sizes, at) else None

    def _period(self, sizes: Sequence[float], at: Callable[[float], float]) -> float:
        stages = [at(size) for size in sizes]
        longest = max(stages)
        waits = (self._stages - 1) * self._deviation * longest
        return max(sum(stages), self._stages * (longest + self._hop)) + waits

    def period(self, groups: int, positions: int) -> float:
        """Seconds from one step of a group to its next one, where there are so many groups and
        this one computes so many positions."""
        return self._period([positions] * groups, self._fit.at)


def _equal(rows: int, groups: int) -> tuple[int, ...]:
    """So many rows in groups that differ by one at most."""
    each, more = divmod(rows, groups)
    return (each + 1,) * more + (each,) * (groups - more)


class _Line:
    """A least-squares line through what was seen, the past fading."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        fade = 0.98
        self._weight = self._weight * fade + 1
        self._x = self._x * fade + x
        self._y = self._y * fade + y
        self._xx = self._xx * fade + x * x
        self._xy = self._xy * fade + x * y

    @property
    def known(self) -> bool:
        """Whether different x were seen."""
        return self._weight * self._xx - self._x**2 > 1e-6 * self._weight**2

    def proportional(self, x: float) -> float:
        """The height of a line through the origin."""
        return x * self._y / self._x if self._x else x

    def at(self, x: float) -> float:
        """The line's height; linear through the origin until something is known."""
        if self._weight == 0:
            return x
        if not self.known:
            return self._y / self._weight
        spread = self._weight * self._xx - self._x**2
        slope = max((self._weight * self._xy - self._x * self._y) / spread, 0.0)
        return max((self._y - slope * self._x) / self._weight + slope * x, 1e-9)
