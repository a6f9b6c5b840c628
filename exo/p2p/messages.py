"""What the cores of two nodes say to each other, and how it looks on the wire.

A message is `[name, fields]`, of what msgpack carries. Fields that this version does not know are
skipped, so that a later one may add some.
"""

from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from exo.errors import BodyTooLarge, ProtocolError
from exo.p2p.frames import pack
from exo.p2p.peers import MAX_COUNT, Count, Fact, Text
from exo.p2p.term import Term

# With all addresses at their longest, so many facts and one of the sender still fit into a frame.
MAX_FACTS = 64
MAX_ASKED = 64
# Bytes of what a node says of itself that changes all the time.
MAX_METADATA = 2048


def _in_bounds(term: Term) -> Term:
    """Leave room above: whoever is elected next needs a higher number."""
    if not 0 <= term.number < MAX_COUNT // 2:
        raise ValueError("no number of a term")
    return term


def check_size(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The metadata, if it is small.

    Raises:
        BodyTooLarge
    """
    if (size := len(pack(metadata))) > MAX_METADATA:
        raise BodyTooLarge(
            f"What a node says of itself has {size} bytes, more than {MAX_METADATA}."
        )
    return metadata


_Metadata = Annotated[dict[str, JsonValue], AfterValidator(check_size)]
_Term = Annotated[Term, AfterValidator(_in_bounds)]
_PeerIds = Annotated[tuple[Text, ...], Field(max_length=MAX_ASKED)]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node thinks of the mastership: the highest term it has taken part in, whether it
    knows the master of that term to reign (`led`), and the highest number it has heard of."""

    term: _Term | None
    led: bool
    highest: Annotated[int, Field(ge=0, lt=MAX_COUNT // 2)]


@dataclass(frozen=True, slots=True)
class Pulse:
    """The part of a heartbeat that is the same for all who get it.

    `sequence` grows with each heartbeat of a life. `digest` stands for all living members that the
    sender knows, each with its incarnation. `missing` are those it does not hear itself; who hears
    them vouches for them.
    """

    incarnation: Count
    sequence: Count
    claim: Claim
    digest: Annotated[int, Field(ge=0, lt=2**64)]
    metadata: _Metadata
    missing: _PeerIds = ()


@dataclass(frozen=True, slots=True)
class Gossip:
    """What changed in the sender's list of members up to the position `end` of its log, with the
    sender itself first if it did, or if the link is new; and up to which position of the
    receiver's log the sender has all. A `round` begins when everything is
    told again."""

    facts: Annotated[tuple[Fact, ...], Field(max_length=MAX_FACTS + 1)]
    round: Count
    end: Count
    received_round: Count
    received: Count


@dataclass(frozen=True, slots=True)
class Vouch:
    """The last heartbeat of a member that the sender knows of."""

    peer_id: Text
    incarnation: Count
    sequence: Count
    metadata: _Metadata


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`answer`: to a heartbeat, and not to be answered again."""

    pulse: Pulse
    gossip: Gossip | None = None
    vouches: Annotated[tuple[Vouch, ...], Field(max_length=MAX_ASKED)] = ()
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Accused:
    """Someone holds the receiver for gone as of this incarnation; it lives if it raises it."""

    incarnation: Count


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender leaves. If it was the master, `heir` is the term that follows its own."""

    incarnation: Count
    heir: _Term | None = None


@dataclass(frozen=True, slots=True)
class Election:
    """Will you, who come before me, be the master? `lost` says why there is none."""

    claim: Claim
    lost: Fact | None = None


@dataclass(frozen=True, slots=True)
class Alive:
    """The answer to Election: I see to it, or there is a master; or to Coordinator: there is a
    later term."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Coordinator:
    """I am the master of this term."""

    term: _Term


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to Coordinator."""

    term: _Term


Message = Heartbeat | Accused | Goodbye | Election | Alive | Coordinator | Acknowledged

_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    kind.__name__.lower(): TypeAdapter(kind)
    for kind in (Heartbeat, Accused, Goodbye, Election, Alive, Coordinator, Acknowledged)
}


def encode(message: Message) -> list[Any]:
    """The message, of lists, maps, strings, numbers and None."""
    name = type(message).__name__.lower()
    return [name, _ADAPTERS[name].dump_python(message, mode="json")]


def decode(body: Any) -> Message:
    """The message of `encode`.

    Raises:
        ProtocolError: it is no message of this version.
    """
    match body:
        case [str() as name, fields] if name in _ADAPTERS:
            try:
                return cast("Message", _ADAPTERS[name].validate_python(fields))
            except (ValidationError, BodyTooLarge) as error:
                raise ProtocolError(f"A '{name}' of a peer cannot be read.") from error
        case _:
            raise ProtocolError("A peer sent a message that this version does not know.")
