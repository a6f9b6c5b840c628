"""Virtual time, and all that happens in it. Everything random comes from one seed."""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

import msgpack

from exo.p2p.core import (
    CoreOptions,
    Dial,
    DialFailed,
    Event,
    Found,
    Leave,
    LinkDown,
    LinkUp,
    Moved,
    Received,
)
from exo.p2p.messages import Message, decode, encode
from exo.p2p.peers import Fact, Status
from tests.simulator.checks import Checks, agreed
from tests.simulator.network import Network
from tests.simulator.node import Node
from tests.simulator.trace import Trace


class Link:
    """A connection. Each direction has the time of its last delivery, so that order is kept."""

    __slots__ = ("_ends", "last")

    def __init__(self, one: str, other: str) -> None:
        self._ends = (one, other)
        self.last = {one: 0.0, other: 0.0}

    def other(self, name: str) -> str:
        one, other = self._ends
        return other if name == one else one


class World:
    """Nodes, a network between them, and what becomes of both."""

    def __init__(
        self,
        seed: int = 0,
        *,
        options: CoreOptions | None = None,
        network: Network | None = None,
        trace: Trace | None = None,
        wire: bool = False,
    ) -> None:
        self.random = Random(seed)  # noqa: S311  no secrets
        self.options = options or CoreOptions()
        self.network = network or Network()
        self.trace = trace
        # Whether messages are brought to bytes and back.
        self.wire = wire
        self.checks = Checks()
        self.nodes: dict[str, Node] = {}
        self.now = 0.0
        self.moves = 0
        # Messages to lose besides those lost at random, asked for each.
        self.lose: Callable[[str, str, Message], bool] | None = None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    # Time.

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, call, arguments))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, call, arguments = heappop(heap)
            call(*arguments)
        self.now = end

    def run_until_agreed(self, limit: float, step: float = 0.05) -> float | None:
        """Seconds until all agree, None if they do not within the limit."""
        start = self.now
        while self.now < start + limit:
            if agreed(self) is None:
                return self.now - start
            self.run(step)
        return self.now - start if agreed(self) is None else None

    # Nodes.

    def add(self, name: str, *, eligible: bool = True, knows: str | tuple[str, ...] = ()) -> Node:
        """A node that is not started yet; `knows` are its static peers."""
        self.nodes[name] = Node(self, name, eligible=eligible, knows=tuple(knows))
        return self.nodes[name]

    def start(self, name: str) -> None:
        node = self.nodes[name]
        self._note(f"{name} starts, with {_on_disk(node)}")
        node.start()
        for known in node.knows:
            node.handle(Found(None, (f"/memory/{known}",)))

    def form(self) -> None:
        """Start all nodes with the knowledge of all others, as if they had been together before:
        a large cluster that finds itself takes minutes to simulate."""
        facts = [Fact(node.core.me, Status.ALIVE, 0) for node in self.nodes.values()]
        for name in sorted(self.nodes):
            self.nodes[name].start(facts)
        self.run(self.options.grace + 2.5)

    def wipe(self, name: str) -> None:
        """Empty the disk of a node that does not run. What it forgets it may do again."""
        self.nodes[name].disk = None
        self.checks.forget(name)
        self._note(f"the disk of {name} is emptied")

    def kill(self, name: str) -> None:
        """The process ends at once; its host closes its connections and refuses new ones."""
        self._note(f"{name} is killed")
        self._end(self.nodes[name], clean=False)

    def leave(self, name: str) -> None:
        """The process ends in good order."""
        self._note(f"{name} is told to stop")
        node = self.nodes[name]
        if node.suspended:
            self.resume(name)
        node.handle(Leave())
        self.at(self.now + self.network.save * 3, self._end, node, True)

    def suspend(self, name: str) -> None:
        self._note(f"{name} is suspended")
        self.nodes[name].suspended = True

    def resume(self, name: str) -> None:
        self._note(f"{name} goes on")
        self.nodes[name].resume()

    def move(self, name: str) -> None:
        """The node has another address besides the one that it is found at."""
        self.moves += 1
        self._note(f"{name} moves")
        self.tell(name, Moved((self.nodes[name].address, f"/moved/{self.moves}")))

    def tell(self, name: str, event: Event) -> None:
        """An event from outside, if the node can take it."""
        node = self.nodes[name]
        if node.running and not node.suspended:
            node.handle(event)

    def announce(self, name: str, spread: float = 0.3) -> None:
        """Have discovery tell the node and all others of each other, in random order."""
        for other in self.nodes.values():
            if other.name != name and other.running:
                for here, there in ((name, other.name), (other.name, name)):
                    found = Found(there, (f"/memory/{there}",))
                    self.at(self.now + self.random.uniform(0, spread), self._find, here, found)

    def _find(self, name: str, found: Found) -> None:
        if self.network.joins(name, found.peer_id or name):
            self.tell(name, found)

    def _end(self, node: Node, clean: bool) -> None:
        if not node.running:
            return
        node.stop()
        for peer_id, link in list(node.links.items()):
            self._close(node, peer_id, link, clean=clean)

    # What nodes do.

    def send(self, node: Node, peer_id: str, message: Message) -> None:
        self.checks.sends(node, message)
        link = node.links.get(peer_id)
        network = self.network
        lost = (
            link is None
            or not network.carries(node.name, peer_id)
            or (network.loss and self.random.random() < network.loss)
            or (self.lose is not None and self.lose(node.name, peer_id, message))
        )
        if self.trace is not None:
            self.trace.sent(self.now, node, peer_id, message, lost=bool(lost))
        if link is None or lost:
            return
        if self.wire:
            message = decode(msgpack.unpackb(msgpack.packb(encode(message))))
        event = Received(node.name, message)
        self.at(self._arrival(link, peer_id), self.nodes[peer_id].deliver, link, event)

    def dial(self, node: Node, dial: Dial) -> None:
        target = self.nodes.get(dial.addresses[0].removeprefix("/memory/"))
        timeout = self.now + self.network.dial_timeout
        attempt = _Attempt(node, dial, node.life)
        self.at(timeout, self._failed, attempt, False)
        if target is not None and self.network.joins(node.name, target.name):
            self.at(self.now + self.network.latency(self.random), self._arrive, attempt, target)

    def disconnect(self, node: Node, peer_id: str) -> None:
        if link := node.links.pop(peer_id, None):
            self._close(node, peer_id, link, clean=True)
            self.at(self.now, self._own_link_down, node, peer_id, node.life)

    def _own_link_down(self, node: Node, peer_id: str, life: int) -> None:
        if node.life == life and peer_id not in node.links:
            node.handle(LinkDown(peer_id, clean=True))

    def _close(self, node: Node, peer_id: str, link: Link, *, clean: bool) -> None:
        node.links.pop(peer_id, None)
        if self.network.carries(node.name, peer_id):
            arrival = self._arrival(link, peer_id)
            self.at(arrival, self._closed, self.nodes[peer_id], node.name, link, clean)

    def _closed(self, node: Node, peer_id: str, link: Link, clean: bool) -> None:
        if node.links.get(peer_id) is not link:
            return
        if node.suspended:
            node.inbox.append(lambda: self._closed(node, peer_id, link, clean))
            return
        del node.links[peer_id]
        node.handle(LinkDown(peer_id, clean))

    def _arrive(self, attempt: "_Attempt", target: Node) -> None:
        """A dial comes to where it wants to."""
        node = attempt.node
        if attempt.over or not self.network.joins(node.name, target.name):
            return
        if not target.running:
            self.at(self.now + self.network.latency(self.random), self._failed, attempt, True)
        elif target.suspended:
            target.inbox.append(lambda: self._arrive(attempt, target))
        else:
            self._connect(attempt, node, target)

    def _connect(self, attempt: "_Attempt", node: Node, target: Node) -> None:
        attempt.over = True
        if node.life != attempt.life:
            return
        dialled = attempt.dial.addresses if attempt.dial.peer_id is None else ()
        link = node.links.get(target.name)
        if target is node or (link is not None and target.links.get(node.name) is link):
            if dialled:
                node.handle(LinkUp(target.core.me, dialled))
            return
        for here, there in ((node, target), (target, node)):
            # What one side still holds for a link is none any more.
            if here.links.pop(there.name, None):
                here.handle(LinkDown(there.name, clean=False))
        link = Link(node.name, target.name)
        node.links[target.name] = target.links[node.name] = link
        up = LinkUp(target.core.me, dialled)
        self.at(self._arrival(link, node.name), node.deliver, link, up)
        target.deliver(link, LinkUp(node.core.me))

    def _failed(self, attempt: "_Attempt", refused: bool) -> None:
        node = attempt.node
        if attempt.over or node.life != attempt.life:
            return
        if node.suspended:
            node.inbox.append(lambda: self._failed(attempt, refused))
            return
        attempt.over = True
        node.handle(DialFailed(attempt.dial.peer_id, attempt.dial.addresses, refused))

    def _arrival(self, link: Link, receiver: str) -> float:
        """When something sent now comes, after all that was sent before."""
        arrival = max(self.now + self.network.latency(self.random), link.last[receiver])
        link.last[receiver] = arrival
        return arrival

    # For the trace.

    def _note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.note(self.now, text)


class _Attempt:
    """A dial under way."""

    __slots__ = ("dial", "life", "node", "over")

    def __init__(self, node: Node, dial: Dial, life: int) -> None:
        self.node = node
        self.dial = dial
        self.life = life
        self.over = False


def _on_disk(node: Node) -> str:
    return f"term {node.disk.number} of {node.disk.master_id} on disk" if node.disk else "no term"
