"""What waits, and what of it is next: pure.

Requests of one key wait for each other in the order of arrival. Keys take turns by what they have
been given so far (start-time fair queueing, https://doi.org/10.1109/90.649569): a key that asks for
much is not in front of one that asks for little, and one that was away has saved nothing up. What
is interactive goes before what is batch, but for every `BATCH_AFTER`th time, so that batch is slow
and never starved.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
# So many interactive requests go before a batch request that waits.
BATCH_AFTER = 8


@dataclass
class _Item(Generic[T]):
    what: T
    cost: float
    arrived: int


@dataclass
class _Class(Generic[T]):
    """The keys of one priority. `given` is, by key, the virtual time at which what it was given
    last will have been paid for; `now` that of the request that was given last."""

    lanes: dict[str, deque[_Item[T]]] = field(default_factory=dict[str, deque[_Item[T]]])
    given: dict[str, float] = field(default_factory=dict[str, float])
    now: float = 0.0

    def lane(self) -> str:
        """The key whose turn it is."""
        return min(self.lanes, key=lambda lane: (self.start(lane), self.lanes[lane][0].arrived))

    def start(self, lane: str) -> float:
        return max(self.now, self.given.get(lane, 0.0))

    def pop(self) -> T:
        lane = self.lane()
        item = self.lanes[lane].popleft()
        self.now = self.start(lane)
        self.given[lane] = self.now + item.cost
        self._tidy(lane)
        return item.what

    def remove(self, what: T) -> bool:
        for lane, items in self.lanes.items():
            for item in items:
                if item.what == what:
                    items.remove(item)
                    self._tidy(lane)
                    return True
        return False

    def _tidy(self, lane: str) -> None:
        if not self.lanes[lane]:
            del self.lanes[lane]
        self.given = {k: given for k, given in self.given.items() if given > self.now}


class FairQueue(Generic[T]):
    """A queue of things that differ from one another, each of a key (`lane`)."""

    def __init__(self) -> None:
        self._interactive: _Class[T] = _Class()
        self._batch: _Class[T] = _Class()
        self._arrivals = 0
        self._passed = 0

    def __len__(self) -> int:
        lanes = [*self._interactive.lanes.values(), *self._batch.lanes.values()]
        return sum(len(items) for items in lanes)

    def waiting(self, lane: str) -> int:
        """How much of one key waits."""
        return sum(len(each.lanes.get(lane, ())) for each in (self._interactive, self._batch))

    def push(self, what: T, cost: float, lane: str = "", *, batch: bool = False) -> None:
        """Add `what`, which takes `cost` (above 0, in whatever unit all use)."""
        self._arrivals += 1
        item = _Item(what, cost, self._arrivals)
        of = self._batch if batch else self._interactive
        of.lanes.setdefault(lane, deque()).append(item)

    def head(self) -> T | None:
        """What is next; None if nothing waits."""
        of = self._turn()
        return of.lanes[of.lane()][0].what if of.lanes else None

    def pop(self) -> T:
        """Take what is next out.

        Raises:
            IndexError: nothing waits.
        """
        of = self._turn()
        if not of.lanes:
            raise IndexError("Nothing waits.")
        passes = of is self._interactive and bool(self._batch.lanes)
        self._passed = self._passed + 1 if passes else 0
        return of.pop()

    def remove(self, what: T) -> bool:
        """Forget `what`; whether it was there."""
        return self._interactive.remove(what) or self._batch.remove(what)

    def _turn(self) -> _Class[T]:
        due = self._passed >= BATCH_AFTER or not self._interactive.lanes
        return self._batch if due and self._batch.lanes else self._interactive
