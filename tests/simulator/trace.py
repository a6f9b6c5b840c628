"""What happened, as text: one line for each event and action, with its time and node.

Heartbeats are left out, and so is what only concerns timers: a story is told, not a protocol.
"""

from typing import TYPE_CHECKING

from exo.p2p.core import (
    Action,
    Dial,
    DialFailed,
    Disconnect,
    Event,
    Found,
    Leave,
    LinkDown,
    LinkUp,
    MasterChanged,
    MemberChanged,
    Received,
    SaveTerm,
)
from exo.p2p.messages import (
    Accused,
    Acknowledged,
    Alive,
    Claim,
    Coordinator,
    Election,
    Goodbye,
    Heartbeat,
    Message,
)
from exo.p2p.term import Term

if TYPE_CHECKING:
    from tests.simulator.node import Node


class Trace:
    def __init__(self, *, dials: bool = True) -> None:
        self.lines: list[str] = []
        self._dials = dials

    def show_dials(self) -> None:
        self._dials = True

    def state(self, now: float, node: "Node") -> None:
        """What a node knows in the end."""
        members = node.core.members
        known = ", ".join(f"{peer_id} {members[peer_id].status}" for peer_id in sorted(members))
        term = node.core.term
        if node.core.is_master:
            role = "is the master"
        else:
            role = f"follows {node.core.master_id or 'nobody'}"
        self._line(now, node, f"=== {role}, term {term.number if term else 'none'}; {known}")

    def note(self, now: float, text: str) -> None:
        """Something done from outside."""
        self.lines.append(f"{now:7.3f}  --- {text}")

    def event(self, now: float, node: "Node", event: Event) -> None:
        match event:
            case LinkUp(peer=peer):
                self._line(now, node, f"is linked with {peer.peer_id}")
            case LinkDown(peer_id=peer_id, clean=clean):
                self._line(now, node, f"loses {peer_id}'s link{' (closed)' if clean else ''}")
            case DialFailed(refused=refused, addresses=addresses) if self._dials:
                why = "is refused by" if refused else "does not reach"
                self._line(now, node, f"{why} {_name(addresses)}")
            case Found(addresses=addresses):
                self._line(now, node, f"finds {_name(addresses)}")
            case Received(peer_id=peer_id, message=message):
                if not isinstance(message, Heartbeat):
                    self._line(now, node, f"<- {peer_id}  {_told(message)}")
            case Leave():
                self._line(now, node, "leaves")
            case _:
                pass

    def action(self, now: float, node: "Node", action: Action) -> None:
        match action:
            case Dial(addresses=addresses) if self._dials:
                self._line(now, node, f"dials {_name(addresses)}")
            case Disconnect(peer_id=peer_id):
                self._line(now, node, f"drops {peer_id}'s link")
            case SaveTerm(term=term):
                self._line(now, node, f"saves {_term(term)}")
            case MemberChanged(member=member):
                life = f", incarnation {member.incarnation}" if member.incarnation else ""
                self._line(now, node, f"{member.peer_id} is {member.status}{life}")
            case MasterChanged(term=term):
                who = f"{term.master_id}, {_term(term)}" if term else "unknown"
                self._line(now, node, f"MASTER {who}")
            case _:
                pass

    def sent(self, now: float, node: "Node", to: str, message: Message, *, lost: bool) -> None:
        if isinstance(message, Heartbeat):
            return
        self._line(now, node, f"-> {to}  {_told(message)}{'  (lost)' if lost else ''}")

    def _line(self, now: float, node: "Node", text: str) -> None:
        self.lines.append(f"{now:7.3f}  {node.name}  {text}")


def _name(addresses: tuple[str, ...]) -> str:
    return addresses[0].removeprefix("/memory/")


def _term(term: Term) -> str:
    return f"term {term.number}"


def _claim(claim: Claim) -> str:
    if claim.term is None:
        return "no term known"
    led = "reigns" if claim.led else "is gone"
    return f"{claim.term.master_id} of term {claim.term.number} {led}"


def _told(message: Message) -> str:
    match message:
        case Accused(incarnation=incarnation):
            return f"ACCUSED of being gone, incarnation {incarnation}"
        case Goodbye(heir=heir):
            return f"GOODBYE{f', {heir.master_id} inherits as term {heir.number}' if heir else ''}"
        case Election(claim=claim):
            return f"ELECTION, {_claim(claim)}"
        case Alive(claim=claim):
            return f"ALIVE, {_claim(claim)}"
        case Coordinator(term=term):
            return f"COORDINATOR of term {term.number}"
        case Acknowledged(term=term):
            return f"ACKNOWLEDGED term {term.number}"
        case Heartbeat():
            return "HEARTBEAT"
