"""What a person calls a node: its name, its id, or the end of its id."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

# Fewer characters of an id would be a slip of the finger.
SHORTEST_ID = 6


class Named(Protocol):
    @property
    def node_id(self) -> str: ...
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def called(nodes: Iterable[N], name: str) -> list[N]:
    """The node of that id, else those of that name, else those whose id ends in these six or more
    characters."""
    among = list(nodes)
    found = [node for node in among if node.node_id == name]
    found = found or [node for node in among if node.name == name]
    if not found and len(name) >= SHORTEST_ID:
        found = [node for node in among if node.node_id.endswith(name)]
    return found
