"""A peer, as other nodes know it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

# A node has few addresses; gossip carries no more than these.
MAX_ADDRESSES = 16
# Counters of the wire fit the integers of every language.
MAX_COUNT = 2**53

_ADDRESS = re.compile(r"[!-~]{1,512}")


def _is_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("no address")
    return text


Text = Annotated[str, Field(max_length=256)]
Address = Annotated[str, AfterValidator(_is_address)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Metadata = Mapping[str, JsonValue]


class Status(StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    """Nothing was heard of it for a while, or its link broke. For all purposes it still lives."""
    DEAD = "dead"
    LEFT = "left"
    """It said goodbye."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a node says of itself: `version` is exo's, `boot` random in each life of its process,
    `addresses` the multiaddrs it listens on, `eligible` whether it may become master."""

    peer_id: Text
    name: Text
    version: Text
    boot: Text
    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES)]
    eligible: bool


def bounded(peer: PeerInfo) -> PeerInfo:
    """The peer without addresses that others would not take: too many, or none at all."""
    addresses = tuple(filter(_ADDRESS.fullmatch, peer.addresses))[:MAX_ADDRESSES]
    return peer if addresses == peer.addresses else replace(peer, addresses=addresses)


@dataclass(frozen=True, slots=True)
class Fact:
    """What members tell each other of a member. Of two facts the one with the higher incarnation
    is true; at the same one, `left` is stronger than `dead`, and that than `alive`. Only the
    member itself raises its incarnation, and it never says two things of itself at the same one."""

    peer: PeerInfo
    status: Literal[Status.ALIVE, Status.DEAD, Status.LEFT]
    incarnation: Count


@dataclass(frozen=True, slots=True)
class Member:
    """A peer as this node sees it. `since` is when it got its status, on this node's clock;
    `metadata` what it said last of what changes all the time."""

    info: PeerInfo
    status: Status
    incarnation: int
    since: float
    metadata: Metadata

    @property
    def peer_id(self) -> str:
        return self.info.peer_id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def version(self) -> str:
        return self.info.version

    @property
    def boot(self) -> str:
        return self.info.boot

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.info.addresses

    @property
    def eligible(self) -> bool:
        return self.info.eligible

    @property
    def living(self) -> bool:
        return self.status in (Status.ALIVE, Status.SUSPECT)
