"""What the simulated network does to what is sent.

- A message on a link takes a random time, and comes after those sent before it on the same link
  (TCP). On different links messages overtake each other.
- With probability `loss` a message vanishes, alone, and the link stays. TCP would not do that: it
  would be late, or the link would break. It is the harder case for the protocol.
- Where the network is cut, in one direction or both, messages vanish and dials time out; the links
  stay up until a side closes them, which the other does not learn.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random


@dataclass
class Network:
    """`base` and `spread` are the least and the mean additional seconds of a message's way; one in
    `1 / stall` messages takes up to `stalled` seconds. `dial_timeout` is how long nothing is heard
    from a host that does not answer, `save` how long a disk takes."""

    base: float = 0.0002
    spread: float = 0.0005
    loss: float = 0.0
    stall: float = 0.0
    stalled: float = 0.2
    dial_timeout: float = 1.0
    save: float = 0.0
    cut: set[tuple[str, str]] = field(default_factory=set)
    sides: dict[str, int] = field(default_factory=dict)

    def latency(self, random: Random) -> float:
        seconds = self.base + random.expovariate(1 / self.spread) if self.spread else self.base
        if self.stall and random.random() < self.stall:
            seconds += random.uniform(0, self.stalled)
        return seconds

    def carries(self, sender: str, receiver: str) -> bool:
        """Whether anything gets from one node to the other."""
        if self.cut and (sender, receiver) in self.cut:
            return False
        return not self.sides or self.sides.get(sender, 0) == self.sides.get(receiver, 0)

    def joins(self, one: str, other: str) -> bool:
        """Whether they can have a link."""
        return self.carries(one, other) and self.carries(other, one)

    def block(self, sender: str, receiver: str) -> None:
        self.cut.add((sender, receiver))

    def separate(self, one: str, other: str) -> None:
        self.cut |= {(one, other), (other, one)}

    def partition(self, *sides: Iterable[str]) -> None:
        """Split into these sides; who is on none is on the first."""
        self.sides = {name: number for number, side in enumerate(sides) for name in side}

    def isolate(self, name: str) -> None:
        """Pull the cable of a node."""
        self.sides[name] = -1 - len(self.sides)

    def heal(self) -> None:
        self.cut.clear()
        self.sides.clear()
