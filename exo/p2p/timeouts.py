"""How long a silence may be: from the gaps between what was heard.

Mean and mean deviation as TCP estimates them for round trips (Jacobson 1988, RFC 6298), within
bounds: a peer on a bad network gets more time than one on a good one.
"""

from exo.p2p.options import CoreOptions


class Arrivals:
    """The gaps between the heartbeats of one peer."""

    __slots__ = ("_deviation", "_mean")

    def __init__(self, options: CoreOptions) -> None:
        self._mean = options.period
        self._deviation = options.period / 4

    def observe(self, gap: float, options: CoreOptions) -> None:
        """Take in a gap, in seconds. One longer than the longest timeout counts as that: it says
        that the peer was away, not how it sends."""
        gap = min(gap, options.timeout_max)
        self._deviation += (abs(gap - self._mean) - self._deviation) / 4
        self._mean += (gap - self._mean) / 8

    def timeout(self, options: CoreOptions) -> float:
        """The seconds of silence after which the peer is to be suspected."""
        timeout = self._mean + 4 * self._deviation
        return min(max(timeout, options.timeout_min), options.timeout_max)
