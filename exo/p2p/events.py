"""What the core is told, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from exo.p2p.messages import Message
from exo.p2p.peers import Member, PeerInfo
from exo.p2p.term import Term

# Events.


@dataclass(frozen=True, slots=True)
class LinkUp:
    """There is a link with this peer now; nothing that it sent on it comes before this event.
    Where it lives it tells by itself on the link: since its greeting it may have moved.

    `dialled` are the addresses of the `Dial(None, …)` that led to the peer, also when there was a
    link with it already, or when `peer` is this node itself: the core has no other way to know
    who lives at an address, and would dial it again.
    """

    peer: PeerInfo
    dialled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is gone. It comes once, and before the next LinkUp of the same peer; after a
    `Disconnect` it may also not come.

    `clean` (the other side closed it in good order) is not taken for a goodbye: a node that was
    suspended finds that all others closed their links. Who leaves says so in a message.
    """

    peer_id: str
    clean: bool


@dataclass(frozen=True, slots=True)
class DialFailed:
    """Nobody was reached. `refused`: the peer's host answers that no one listens there."""

    peer_id: str | None
    addresses: tuple[str, ...]
    refused: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A peer may be at these addresses, says discovery; with None, says the user, for whom they
    are tried for ever."""

    peer_id: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a linked peer."""

    peer_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that the last `WakeAt` asked for has come. Also the first event of all."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What this node wants others to know of itself that changes all the time. In a small cluster
    all others know it within two periods; in a large one those that exchange heartbeats with it,
    and the master is one of them. More than 2 KB is refused with BodyTooLarge."""

    metadata: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Moved:
    """This node listens on other addresses than before."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """This node stops. The last event that has an effect."""


Event = LinkUp | LinkDown | DialFailed | Found | Received | Tick | Stamp | Moved | Leave

# Actions, to be carried out in order.


@dataclass(frozen=True, slots=True)
class Send:
    peer_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to link with the peer, whoever that is if None, at any of these addresses. LinkUp or
    DialFailed is the answer. Until then the core asks for no other dial to the same."""

    peer_id: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    peer_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SaveTerm:
    """It must be on disk before the next action."""

    term: Term


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member has another status, another life, or other addresses. Not told of metadata, nor of
    members that are forgotten because they have long been gone."""

    member: Member


@dataclass(frozen=True, slots=True)
class MasterChanged:
    """The reign that this node is under from now on, None while no master is known."""

    term: Term | None


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a `Tick` at this time. The last one counts."""

    time: float


Action = Send | Dial | Disconnect | SaveTerm | MemberChanged | MasterChanged | WakeAt
