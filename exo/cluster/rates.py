"""How often an API key may ask: pure.

A bucket for each key, which holds what the key may ask in a minute and fills up evenly. A node
counts what it is asked itself.
"""

_MINUTE = 60.0


class Rates:
    """Remembers what keys have used. Times are in seconds, monotonic."""

    def __init__(self) -> None:
        # When a key's bucket will be full again.
        self._full: dict[str, float] = {}

    def take(self, key_id: str, rate: int, now: float) -> float:
        """Count a request of a key that may ask `rate` a minute, and return 0; or the seconds
        after which it may be asked again."""
        each = _MINUTE / rate
        full = max(self._full.get(key_id, now), now) + each
        # A hair's breadth: the sum of all parts of a minute is a minute.
        if full - now > _MINUTE + each / 1000:
            return full - now - _MINUTE
        self._full[key_id] = full
        return 0.0
