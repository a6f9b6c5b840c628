"""When to dial whom: pure.

A target is dialled at once when it becomes wanted, and then again and again, with pauses that
double up to a bound and are random, so that nodes which lost each other do not keep in step.
Whether it is still wanted, and how long the pauses may become, is asked each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

from exo.p2p.events import Dial
from exo.p2p.options import CoreOptions
from exo.p2p.peers import MAX_ADDRESSES

# A peer, or the addresses that the user gave of one whose id is not known.
Key = str | tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What the dialler is to do about a target: dial it, with pauses up to `pause` seconds, or
    look again later if that is None."""

    addresses: tuple[str, ...]
    pause: float | None


# What is wanted of a target now; None if it may be forgotten.
Wanted = Callable[["Target", float], Wish | None]


@dataclass(slots=True)
class Target:
    """`found` is when discovery suggested it last, at these `addresses`; `peer_id` who is there."""

    key: Key
    peer_id: str | None
    addresses: tuple[str, ...] = ()
    found: float = float("-inf")
    failures: int = 0
    due: float | None = None


class Dialer:
    """Knows what is being dialled and what is to be dialled when."""

    def __init__(self, options: CoreOptions, random: Random) -> None:
        self._options = options
        self._random = random
        self._targets: dict[Key, Target] = {}
        # What is being dialled, and until when its answer is waited for.
        self._flying: dict[Key, float] = {}
        # By time; an entry counts if its target is still due then.
        self._queue: list[tuple[float, int, Target]] = []
        self._order = count()
        # Who was reached at the addresses that the user gave.
        self._reached: dict[str, Target] = {}

    def want(self, peer_id: str, now: float) -> None:
        """Dial the peer at once, however often that failed."""
        target = self._targets.setdefault(peer_id, Target(peer_id, peer_id))
        target.failures = 0
        if peer_id not in self._flying:
            self._schedule(target, now)

    def found(self, peer_id: str | None, addresses: Sequence[str], now: float) -> None:
        """Take note of where a peer may be, without dialling a known one."""
        if peer_id is None:
            key = tuple(addresses)
            if key not in self._targets:
                self._targets[key] = Target(key, None, key)
                self._schedule(self._targets[key], now)
            return
        target = self._targets.setdefault(peer_id, Target(peer_id, peer_id))
        target.found = now
        target.addresses = _joined(addresses, target.addresses)

    def up(self, peer_id: str, dialled: tuple[str, ...], now: float) -> None:
        """The peer is linked; it was dialled at these addresses, if at those of an unknown."""
        target = self._targets.setdefault(peer_id, Target(peer_id, peer_id))
        self._landed(target, None)
        if unknown := self._targets.get(dialled):
            unknown.peer_id = peer_id
            self._reached[peer_id] = unknown
            target.addresses = _joined(dialled, target.addresses)
            self._landed(unknown, now + self._options.pause_max)

    def lost(self, peer_id: str, now: float) -> None:
        """The peer is to be looked for, but not in a hurry."""
        target = self._targets.setdefault(peer_id, Target(peer_id, peer_id))
        if peer_id not in self._flying and target.due is None:
            self._schedule(target, now + self._pause(target, self._options.pause_min))

    def gone(self, peer_id: str, now: float) -> None:
        """The peer is dead or has left: whoever may be where the user said is to be found."""
        target = self._reached.get(peer_id)
        if target and target.key not in self._flying:
            self._schedule(target, now + self._pause(target, self._options.pause_min))

    def failed(self, key: Key, now: float, wanted: Wanted) -> None:
        """Nobody was reached."""
        self._flying.pop(key, None)
        if target := self._targets.get(key):
            target.failures += 1
            self._later(target, now, wanted(target, now))

    def due(self, now: float, wanted: Wanted) -> list[Dial]:
        """What to dial now."""
        for key in [key for key, until in self._flying.items() if until <= now]:
            self.failed(key, now, wanted)
        dials: list[Dial] = []
        while self._queue and self._queue[0][0] <= now and len(self._flying) < self._options.dials:
            due, _, target = heappop(self._queue)
            if target.due != due or self._targets.get(target.key) is not target:
                continue
            wish = wanted(target, now)
            if wish is None or wish.pause is None or not wish.addresses:
                self._later(target, now, wish and Wish((), None))
                continue
            target.due = None
            self._flying[target.key] = now + self._options.flight
            expected = target.key if isinstance(target.key, str) else None
            dials.append(Dial(expected, wish.addresses))
        return dials

    def next_due(self) -> float:
        """When `due` may have something."""
        next_due = min(self._flying.values(), default=float("inf"))
        if self._queue and len(self._flying) < self._options.dials:
            return min(next_due, self._queue[0][0])
        return next_due

    def _landed(self, target: Target, due: float | None) -> None:
        target.failures = 0
        self._flying.pop(target.key, None)
        self._schedule(target, due)

    def _later(self, target: Target, now: float, wish: Wish | None) -> None:
        if wish is None:
            del self._targets[target.key]
        elif wish.pause is None:
            self._schedule(target, now + self._options.pause_max)
        else:
            self._schedule(target, now + self._pause(target, wish.pause))

    def _pause(self, target: Target, limit: float) -> float:
        doublings = min(max(target.failures - 1, 0), 16)
        pause = min(self._options.pause_min * 2**doublings, limit)
        return pause * self._random.uniform(0.75, 1.25)

    def _schedule(self, target: Target, due: float | None) -> None:
        if due is not None and due != target.due:
            heappush(self._queue, (due, next(self._order), target))
        target.due = due


def _joined(new: Sequence[str], old: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*new, *old]))[:MAX_ADDRESSES]
