"""Peers, facts and heartbeats for tests of the cores."""

from typing import Any

from exo.p2p.core import Action, Core, LinkUp, PeerInfo, Received, Send, Status, Tick
from exo.p2p.messages import Claim, Gossip, Heartbeat, Message, Pulse
from exo.p2p.peers import Fact
from exo.p2p.term import Term

NOTHING = Claim(None, led=False, highest=0)


def peer(name: str, boot: str = "1", *, eligible: bool = True) -> PeerInfo:
    return PeerInfo(name, name.lower(), "1.0", boot, (f"/memory/{name}",), eligible)


def fact(name: str, status: Status = Status.ALIVE, incarnation: int = 0, boot: str = "1") -> Fact:
    return Fact(peer(name, boot), status, incarnation)  # type: ignore[arg-type]


def term(number: int, master: str) -> Term:
    return Term(number=number, master_id=master)


def claim(number: int, master: str, *, led: bool = True) -> Claim:
    return Claim(term(number, master), led=led, highest=number)


def heartbeat(
    sequence: int, *facts: Fact, incarnation: int = 0, says: Claim = NOTHING, **pulse: Any
) -> Heartbeat:
    """With facts, it is the first that tells any."""
    common = {"digest": 0, "metadata": {}, **pulse}
    gossip = Gossip(facts, 0, len(facts), 0, 0) if facts else None
    return Heartbeat(Pulse(incarnation, sequence, says, **common), gossip)


class Driver:
    """A core that a test plays the world for."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.now = 0.0
        self._sequence = 0
        self.handle(Tick())

    def handle(self, event: Any, at: float | None = None) -> list[Action]:
        self.now = self.now if at is None else at
        return self.core.handle(event, self.now)

    def hear(self, sender: str, message: Message) -> list[Action]:
        return self.handle(Received(sender, message))

    def beat(self, sender: str, *facts: Fact, **rest: Any) -> list[Action]:
        """A heartbeat of a peer, newer than all before."""
        self._sequence += 1
        return self.hear(sender, heartbeat(self._sequence, *facts, **rest))

    def meet(self, name: str, boot: str = "1", **rest: Any) -> list[Action]:
        """A peer is linked, and says hello."""
        up = self.handle(LinkUp(peer(name, boot)))
        return up + self.beat(name, fact(name, boot=boot), **rest)

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass in small steps: the node sleeps, but not too long."""
        actions: list[Action] = []
        end = self.now + seconds
        while self.now < end:
            actions += self.handle(Tick(), min(self.now + 0.05, end))
        return actions

    def status(self, name: str) -> Status | None:
        return self.core.members[name].status if name in self.core.members else None


def sent(actions: list[Action], kind: type, to: str | None = None) -> list[Any]:
    """The messages of a kind among actions."""
    return [
        action.message
        for action in actions
        if isinstance(action, Send)
        and isinstance(action.message, kind)
        and to in (None, action.peer_id)
    ]


def those(actions: list[Action], kind: type) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]
