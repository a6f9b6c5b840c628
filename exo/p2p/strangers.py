"""How many may be connected before they have shown who they are: pure."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class StrangerLimits:
    """Connections at once, in all and of one host, and the seconds that each has to become a link.
    The newest beyond the limits are closed at once."""

    total: int = 64
    per_host: int = 8
    patience: float = 5.0


class Strangers:
    """Who is connected and not yet known, by host."""

    def __init__(self, limits: StrangerLimits) -> None:
        self._limits = limits
        self._hosts: Counter[str] = Counter()

    def enter(self, host: str) -> str | None:
        """Let one in, or the reason why not."""
        if self._hosts[host] >= self._limits.per_host:
            return "too_many_of_host"
        if self._hosts.total() >= self._limits.total:
            return "too_many"
        self._hosts[host] += 1
        return None

    def leave(self, host: str) -> None:
        """One is known now, or gone."""
        self._hosts[host] -= 1
        self._hosts += Counter()  # forget hosts without any
