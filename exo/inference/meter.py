"""How the stages of a pipeline are kept at work: pure, over what each step took."""

from collections.abc import Sequence

# Weight of the latest step in what is smoothed.
_NEW = 0.1


class Meter:
    """Counts steps that came back: seconds by stage, smoothed over decode steps, and how much of
    the time each stage has computed."""

    def __init__(self, stages: int) -> None:
        self._seconds = [0.0] * stages
        self._worked = [0.0] * stages
        self._since: float | None = None

    def landed(self, seconds: Sequence[float], began: float, *, decode: bool) -> None:
        """Take in what a step took in each stage; it was begun at `began`."""
        if self._since is None:
            self._since = began
        for stage, took in enumerate(seconds[: len(self._seconds)]):
            self._worked[stage] += took
            if decode:
                known = self._seconds[stage]
                self._seconds[stage] += (took - known) * (_NEW if known else 1.0)

    @property
    def seconds(self) -> tuple[float, ...]:
        """A decode step's seconds, by stage."""
        return tuple(self._seconds)

    def busy(self, now: float, *, going_on: bool) -> tuple[float, ...]:
        """The share of the time, 0 to 1, that each stage has computed since this was last asked, or
        since something began after that; `going_on` if there are steps in flight."""
        elapsed = now - self._since if self._since is not None else 0.0
        shares = tuple(min(w / elapsed, 1.0) if elapsed > 0 else 0.0 for w in self._worked)
        self._worked = [0.0] * len(self._worked)
        # Steps that are in flight began before: their beginning is not that of what is counted.
        self._since = now if going_on else None
        return shares
