"""Stop strings in a stream of text, also when they come in pieces."""

from collections.abc import Sequence


class StopBuffer:
    """Holds back text that may be the beginning of a stop string.

    `push` returns the text that is safe to send. Once a stop string is complete, it is `stop`, and
    neither it nor anything after it is ever returned.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop is not None

    def push(self, text: str) -> str:
        """Add `text`; return what can no longer become part of a stop string."""
        if self.stop is not None:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        ends = [(at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if ends:
            at, self.stop = min(ends)
            self._held = ""
            return held[:at]
        keep = max(overlap(held, stop) for stop in self._stops)
        cut = len(held) - keep
        self._held = held[cut:]
        return held[:cut]

    def flush(self) -> str:
        """The held text, at the end of the answer."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
