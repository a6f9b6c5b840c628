"""Measuring links in the background: round trip and bandwidth."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exo.errors import PeerError
from exo.p2p.link import Link

# Seconds. The round trip is cheap; a bulk transfer takes the link from others for a moment.
PING_EVERY = 5.0
BULK_EVERY = 600.0
# A new cluster has better things to do with its first second.
BULK_AFTER = 3.0
# Of a new round trip, in the smoothed one (as TCP does: RFC 6298).
_GAIN = 0.125

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkMeasure:
    """Round trip in seconds, smoothed; bandwidth from the peer in bytes/s, if known yet."""

    peer_id: str
    latency: float
    bandwidth: float | None = None


class Measurer:
    """Measures each link for as long as it lives."""

    def __init__(self, on_measured: Callable[[], None]) -> None:
        self._on_measured = on_measured
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._found: dict[str, LinkMeasure] = {}

    @property
    def found(self) -> Mapping[str, LinkMeasure]:
        return self._found

    def begin(self, peer_id: str, link: Link) -> None:
        self.end(peer_id)
        self._tasks[peer_id] = asyncio.create_task(self._measure(peer_id, link))

    def end(self, peer_id: str) -> None:
        self._found.pop(peer_id, None)
        if task := self._tasks.pop(peer_id, None):
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for peer_id in list(self._tasks):
            self.end(peer_id)
        if tasks:
            await asyncio.wait(tasks)

    async def _measure(self, peer_id: str, link: Link) -> None:
        loop = asyncio.get_running_loop()
        bulk_due = loop.time() + BULK_AFTER
        latency: float | None = None
        bandwidth: float | None = None
        try:
            while True:
                found = await link.ping()
                latency = found if latency is None else latency + _GAIN * (found - latency)
                if loop.time() >= bulk_due:
                    bandwidth = await link.bandwidth()
                    bulk_due = loop.time() + BULK_EVERY
                self._found[peer_id] = LinkMeasure(peer_id, latency, bandwidth)
                self._on_measured()
                await asyncio.sleep(BULK_AFTER if bandwidth is None else PING_EVERY)
        except PeerError as error:
            log.debug("The link to %s is not measured any more: %s", peer_id, error)
