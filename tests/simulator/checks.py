"""What must always hold, and what must hold once it is quiet."""

from collections import Counter
from typing import TYPE_CHECKING

from exo.p2p.messages import (
    Acknowledged,
    Alive,
    Coordinator,
    Election,
    Goodbye,
    Heartbeat,
    Message,
)
from exo.p2p.term import Term

if TYPE_CHECKING:
    from tests.simulator.node import Node
    from tests.simulator.world import World

ELECTION_MESSAGES = (Election, Alive, Coordinator, Acknowledged)


class Breach(AssertionError):
    """The protocol broke a promise."""


class Checks:
    """Watches everything that the nodes do."""

    def __init__(self) -> None:
        self.reigns: dict[Term, tuple[str, int]] = {}
        self.sent: Counter[str] = Counter()
        self.last_change = 0.0

    def forget(self, name: str) -> None:
        self.reigns = {term: reign for term, reign in self.reigns.items() if reign[0] != name}

    def saved(self, node: "Node", term: Term) -> None:
        if node.disk is not None and term < node.disk:
            raise Breach(f"{node.name} goes back from {node.disk} to {term}")

    def master_changed(self, node: "Node", term: Term | None) -> None:
        self.last_change = node.world.now
        if term is None:
            return
        if node.disk is None or node.disk < term:
            raise Breach(f"{node.name} takes part in {term}, which is not on its disk")
        if term.master_id == node.name:
            reign = (node.name, node.life)
            if self.reigns.setdefault(term, reign) != reign:
                raise Breach(f"{reign} reigns in {term}, as did {self.reigns[term]}")

    def sends(self, node: "Node", message: Message) -> None:
        self.sent[type(message).__name__] += 1
        term = _term_in(message)
        if term is not None and term is not node.disk and (node.disk is None or node.disk < term):
            raise Breach(f"{node.name} sends {term}, which is not on its disk")

    @property
    def election_messages(self) -> int:
        return sum(self.sent[kind.__name__] for kind in ELECTION_MESSAGES)


def _term_in(message: Message) -> Term | None:
    match message:
        case Heartbeat(pulse=pulse):
            return pulse.claim.term
        case Election(claim=claim) | Alive(claim=claim):
            return claim.term
        case Coordinator(term=term) | Acknowledged(term=term) | Goodbye(heir=term):
            return term
        case _:
            return None


def components(world: "World") -> list[list["Node"]]:
    """The running nodes in groups that can reach each other, if need be through others."""
    nodes = [node for node in world.nodes.values() if node.running and not node.suspended]
    if not world.network.cut:
        sides: dict[int, list[Node]] = {}
        for node in nodes:
            sides.setdefault(world.network.sides.get(node.name, 0), []).append(node)
        return list(sides.values())
    left = {node.name: node for node in nodes}
    groups: list[list[Node]] = []
    while left:
        group = [left.pop(next(iter(left)))]
        for node in group:
            near = [name for name in left if world.network.joins(node.name, name)]
            group += [left.pop(name) for name in near]
        groups.append(group)
    return groups


def led(group: list["Node"]) -> str | None:
    """None if a group of nodes has one master, known to all; else what is wrong."""
    names = sorted(node.name for node in group)
    masters = {node.core.master_id for node in group}
    able = any(node.eligible for node in group)
    if len(masters) != 1 or (masters == {None}) is able or not masters <= {*names, None}:
        return f"the masters of {names} are {masters}"
    terms = {node.core.term for node in group}
    if able and len(terms) != 1:
        return f"the terms of {names} are {terms}"
    for node in group:
        if able and node.core.is_master is not (node.core.master_id == node.name):
            return f"{node.name} does not know what it is"
    return None


def agreed(world: "World") -> str | None:
    """None if each group of nodes has one master, known to all, and one list of members, each as it
    says itself; else what is wrong."""
    for group in components(world):
        if wrong := led(group):
            return wrong
        names = sorted(node.name for node in group)
        for node in group:
            if node.core.members.living != names:
                return f"{node.name} knows {node.core.members.living}, not {names}"
            for other in group:
                if (known := node.core.members[other.name].info) != other.core.me:
                    return f"{node.name} knows {known}, not {other.core.me}"
    return None
