"""How often one host may fail to prove a secret: pure.

A bucket of tokens per host: a few failures are free, then one each `PAUSE` seconds. Of very many
hosts, those that have been quiet the longest are forgotten.
"""

from collections import OrderedDict

FREE_FAILURES = 5
PAUSE = 10.0
MAX_HOSTS = 4096


class FailureLimiter:
    """Remembers failures by host. Times are in seconds, monotonic."""

    def __init__(self) -> None:
        # When the host's failures will all be forgiven.
        self._forgiven: OrderedDict[str, float] = OrderedDict()

    def failed(self, host: str, now: float) -> None:
        """Take note of a failure."""
        self._forgiven[host] = max(self._forgiven.get(host, now), now) + PAUSE
        self._forgiven.move_to_end(host)
        while len(self._forgiven) > MAX_HOSTS:
            self._forgiven.popitem(last=False)

    def allows(self, host: str, now: float) -> bool:
        """Whether the host may try."""
        return self._forgiven.get(host, now) - now <= (FREE_FAILURES - 1) * PAUSE
