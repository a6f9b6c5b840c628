"""Stories as text: commands in, a trace out. `tests/transcripts/cluster/` holds both.

    nodes A B C            there are these nodes; `nodes A B !C`: C is not eligible
    disk A 7 C             term 7 of C is saved on A's disk
    start A B              these start, all at once, and discovery has each find the others
    start-unseen A         A starts, and nobody finds it
    find A B               discovery tells A where B is
    kill A | leave A | suspend A | resume A | wipe A
    cut A                  A's cable is pulled
    partition A B | C D    the network falls into these parts
    separate A B           these two cannot reach each other, but others reach both
    heal                   the network is whole again
    lose COORDINATOR C A   the next such message from C to A is lost
    run 2.5                seconds pass
    quiet                  what has happened up to here is not shown
    dials                  show who dials whom from here on

The network takes one millisecond for everything. At the end stands what each node knows.
"""

from collections.abc import Callable

from exo.p2p.core import Found
from exo.p2p.messages import Message
from exo.p2p.term import Term
from tests.simulator.network import Network
from tests.simulator.trace import Trace
from tests.simulator.world import World

# Seconds from a start to discovery.
_DISCOVERY = 0.05


def play(script: str) -> str:
    """The trace of a story, with what all know at its end."""
    story = _Story()
    for line in script.splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            story.commands[words[0]](*words[1:])
    return story.text()


class _Story:
    def __init__(self) -> None:
        self.trace = Trace(dials=False)
        network = Network(base=0.001, spread=0)
        self.world = World(network=network, trace=self.trace)
        self.world.lose = self._is_lost
        self._to_lose: list[tuple[str, str, str]] = []
        world = self.world
        self.commands: dict[str, Callable[..., None]] = {
            "nodes": self._nodes,
            "disk": self._disk,
            "start": self._start,
            "start-unseen": world.start,
            "find": self._find,
            "kill": world.kill,
            "leave": world.leave,
            "suspend": world.suspend,
            "resume": world.resume,
            "wipe": world.wipe,
            "cut": self._cut,
            "partition": self._partition,
            "separate": self._separate,
            "heal": self._heal,
            "lose": lambda kind, sender, to: self._to_lose.append((kind, sender, to)),
            "run": lambda seconds: world.run(float(seconds)),
            "quiet": self.trace.lines.clear,
            "dials": self.trace.show_dials,
        }

    def text(self) -> str:
        for node in self.world.nodes.values():
            if node.running and not node.suspended:
                self.trace.state(self.world.now, node)
        return "\n".join(self.trace.lines) + "\n"

    def _nodes(self, *names: str) -> None:
        for name in names:
            self.world.add(name.removeprefix("!"), eligible=not name.startswith("!"))

    def _disk(self, name: str, number: str, master: str) -> None:
        self.world.nodes[name].disk = Term(number=int(number), master_id=master)

    def _start(self, *names: str) -> None:
        for name in names:
            self.world.start(name)
        for here in self.world.nodes.values():
            for there in self.world.nodes.values():
                new = here.name in names or there.name in names
                if here is not there and here.running and there.running and new:
                    found = Found(there.name, (there.address,))
                    self.world.at(self.world.now + _DISCOVERY, self.world.tell, here.name, found)

    def _find(self, name: str, other: str) -> None:
        self.world.tell(name, Found(other, (self.world.nodes[other].address,)))

    def _cut(self, name: str) -> None:
        self.world.network.isolate(name)
        self.trace.note(self.world.now, f"the cable of {name} is pulled")

    def _partition(self, *words: str) -> None:
        sides = [side.split() for side in " ".join(words).split("|")]
        self.world.network.partition(*sides)
        self.trace.note(self.world.now, "the network falls apart: " + " ".join(words))

    def _separate(self, one: str, other: str) -> None:
        self.world.network.separate(one, other)
        self.trace.note(self.world.now, f"{one} and {other} cannot reach each other any more")

    def _heal(self) -> None:
        self.world.network.heal()
        self.trace.note(self.world.now, "the network is whole again")

    def _is_lost(self, sender: str, to: str, message: Message) -> bool:
        sent = (type(message).__name__.upper(), sender, to)
        if sent not in self._to_lose:
            return False
        self._to_lose.remove(sent)
        return True
