"""Who may link with this node: pure.

After TLS each side knows the other's peer id. Then, D being the side that dialled and A the one
that accepted:

    D → A, A → D   GREETING   [cluster, protocols, locked, nonce]
    D → A          PROOF      HMAC, or empty in an open cluster
    A → D          PROOF      likewise, and only after D's was right
    A → D, D → A   HELLO      what is told to members only
    then the side with the greater peer id says READY, and the other ACCEPT: one side alone decides
    which of two connections that were dialled at once becomes the link
    at any time    REFUSE     reason

Name, protocol and lock are compared by both sides, and each knows why it is refused. The proof is
HMAC-SHA256 under the cluster's secret of the role, both greetings, both peer ids and the channel's
binding (RFC 9266): one that was overheard, replayed or passed on is worth nothing elsewhere.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exo.errors import ConfigError, PeerRefused, ProtocolError
from exo.p2p.frames import Frame, FrameType, decode, encode, pack, unpack, unpack_fields
from exo.p2p.peers import Address, Text
from exo.p2p.refusals import Reason, refusal
from exo.p2p.tokens import Token, decode_token, encode_token

__all__ = [
    "Admission",
    "Admitted",
    "Handshake",
    "Hello",
    "Judge",
    "Refused",
    "Send",
    "Token",
    "decode_token",
    "encode_token",
]

# What this version speaks on a link, best last.
PROTOCOLS = (1,)
NONCE_BYTES = 32
# Bytes of one frame of a stranger, who has nothing long to say.
MAX_STRANGER_FRAME = 2**16
_LABEL = b"exo cluster proof v1"
_KEY_LABEL = b"exo cluster key v1:"
_MAX_PROTOCOLS = 16
_MAX_ADDRESSES = 64

# What the other side's reason is for this one.
_AS_TOLD: Mapping[str, Reason] = {
    "wrong_secret": "wrong_secret",
    "self": "self",
    "copied_identity": "copied_identity",
    "duplicate_id": "duplicate_id_of_mine",
    "linked": "linked",
}


class Hello(BaseModel):
    """What a node tells of itself to those that may know: `version` is exo's, `addresses` the
    multiaddrs it listens on, `boot` is random in each life of the process, `eligible` whether it
    may become master."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peer_id: Text
    name: Text
    cluster: Text
    version: Text
    protocols: Annotated[tuple[int, ...], Field(max_length=_MAX_PROTOCOLS)] = PROTOCOLS
    addresses: Annotated[tuple[Address, ...], Field(max_length=_MAX_ADDRESSES)] = ()
    boot: Text
    eligible: bool = True


class Admission:
    """What a peer must match. The secret may change at any time, which leaves links alone.

    Raises:
        ConfigError: the secret is empty.
    """

    def __init__(
        self, cluster: str, secret: bytes | None = None, protocols: tuple[int, ...] = PROTOCOLS
    ) -> None:
        self.cluster = cluster
        self.protocols = protocols
        self.secret = secret

    @property
    def secret(self) -> bytes | None:
        return self._secret

    @secret.setter
    def secret(self, secret: bytes | None) -> None:
        if secret is not None and not secret:
            raise ConfigError(
                "The cluster's secret is empty.", hint="`exo cluster lock` makes a good one."
            )
        self._secret = secret
        self._key = None if secret is None else _stretch(secret, self.cluster)

    @property
    def key(self) -> bytes | None:
        """What proofs are made with, None in an open cluster."""
        return self._key


@dataclass(frozen=True)
class Send:
    """A frame for the other side."""

    frame: bytes


@dataclass(frozen=True)
class Judge:
    """The other side may be in the cluster: call `decide` with whether it gets the link."""

    hello: Hello


@dataclass(frozen=True)
class Admitted:
    """The link is up; the other side said `hello`, and both speak `protocol`."""

    hello: Hello
    protocol: int


@dataclass(frozen=True)
class Refused:
    """There will be no link. `by_them`: the other side said so."""

    reason: Reason
    error: PeerRefused
    by_them: bool = False


Action = Send | Judge | Admitted | Refused


@dataclass(frozen=True)
class _Greeting:
    cluster: str
    protocols: tuple[int, ...]
    locked: bool
    nonce: bytes

    def pack(self) -> bytes:
        return pack([self.cluster, list(self.protocols), self.locked, self.nonce])


class Handshake:
    """One side of one connection. Feed it what comes, and carry out what it answers."""

    def __init__(
        self,
        admission: Admission,
        hello: Hello,
        *,
        peer_id: str,
        binding: bytes,
        outgoing: bool,
        nonce: bytes,
    ) -> None:
        self._admission = admission
        self._hello = hello
        self._peer_id = peer_id
        self._binding = binding
        self._outgoing = outgoing
        self._decides = hello.peer_id < peer_id
        locked = admission.key is not None
        self._mine = _Greeting(admission.cluster, admission.protocols, locked, nonce)
        self._theirs: _Greeting | None = None
        self._their_hello: Hello | None = None
        self._expected = FrameType.GREETING
        self._protocol = 0

    def start(self) -> list[Action]:
        return [Send(encode(FrameType.GREETING, 0, self._mine.pack()))]

    def receive(self, data: bytes | bytearray) -> list[Action]:
        """Take in a frame of the other side's.

        Raises:
            ProtocolError: it is none, or not now.
        """
        frame = decode(data)
        if frame.type == FrameType.REFUSE:
            return self._refused_by_them(frame)
        if frame.type != self._expected:
            raise ProtocolError("The other side does not introduce itself as a node does.")
        match frame.type:
            case FrameType.GREETING:
                return self._greeted(frame)
            case FrameType.PROOF:
                return self._proven(frame)
            case FrameType.HELLO:
                return self._introduced(frame)
            case FrameType.READY:
                return [Judge(self._known)]
            case _:
                return [Admitted(self._known, self._protocol)]

    def decide(self, reason: Reason | None) -> list[Action]:
        """Answer to `Judge`: None gives the link."""
        if reason is not None:
            return self._refuse(reason)
        if not self._decides:
            self._expected = FrameType.ACCEPT
            return [Send(encode(FrameType.READY))]
        return [Send(encode(FrameType.ACCEPT)), Admitted(self._known, self._protocol)]

    @property
    def _known(self) -> Hello:
        if self._their_hello is None:
            raise ProtocolError("The other side has not introduced itself.")
        return self._their_hello

    def _greeted(self, frame: Frame) -> list[Action]:
        fields = unpack_fields(frame.payload, str, list, bool, bytes)
        cluster, protocols, locked, nonce = fields[:4]
        numbers = [n for n in cast("list[object]", protocols) if type(n) is int]
        if len(nonce) != NONCE_BYTES or len(numbers) > _MAX_PROTOCOLS:
            raise ProtocolError("The other side's greeting is none.")
        self._theirs = _Greeting(cluster, tuple(numbers), locked, nonce)
        if cluster != self._mine.cluster:
            return [Refused("other_cluster", refusal("other_cluster", cluster=cluster[:256]))]
        common = set(numbers) & set(self._mine.protocols)
        if not common:
            behind = max(self._mine.protocols) < max(numbers, default=0)
            reason: Reason = "older_than_peer" if behind else "newer_than_peer"
            return [Refused(reason, refusal(reason))]
        self._protocol = max(common)
        if locked != self._mine.locked:
            reason = "peer_locked" if locked else "peer_open"
            return [Refused(reason, refusal(reason))]
        self._expected = FrameType.PROOF
        return [self._proof()] if self._outgoing else []

    def _proven(self, frame: Frame) -> list[Action]:
        expected = self._sign(of_dialer=not self._outgoing)
        if not hmac.compare_digest(bytes(frame.payload), expected):
            return self._refuse("wrong_secret")
        self._expected = FrameType.HELLO
        if self._outgoing:
            return []
        return [self._proof(), self._introduction()]

    def _introduced(self, frame: Frame) -> list[Action]:
        hello = _read_hello(unpack(frame.payload))
        if hello.peer_id != self._peer_id or hello.cluster != self._mine.cluster:
            raise ProtocolError("The other side's introduction does not agree with its proofs.")
        self._their_hello = hello
        actions: list[Action] = [self._introduction()] if self._outgoing else []
        if hello.peer_id == self._hello.peer_id:
            same = hello.boot == self._hello.boot
            return actions + self._refuse("self" if same else "copied_identity")
        self._expected = FrameType.READY
        return actions if self._decides else [*actions, Judge(hello)]

    def _refuse(self, reason: Reason) -> list[Action]:
        error = refusal(reason, peer_id=self._peer_id)
        return [Send(encode(FrameType.REFUSE, 0, pack(reason))), Refused(reason, error)]

    def _refused_by_them(self, frame: Frame) -> list[Action]:
        said = unpack(frame.payload)
        reason: Reason = _AS_TOLD.get(said, "refused") if isinstance(said, str) else "refused"
        return [Refused(reason, refusal(reason, peer_id=self._peer_id), by_them=True)]

    def _proof(self) -> Send:
        return Send(encode(FrameType.PROOF, 0, self._sign(of_dialer=self._outgoing)))

    def _introduction(self) -> Send:
        return Send(encode(FrameType.HELLO, 0, pack(self._hello.model_dump(mode="json"))))

    def _sign(self, *, of_dialer: bool) -> bytes:
        """The proof of one of the sides, empty in an open cluster."""
        key = self._admission.key
        if key is None or self._theirs is None:
            return b""
        mine = (self._mine.pack(), self._hello.peer_id.encode())
        theirs = (self._theirs.pack(), self._peer_id.encode())
        dialer, acceptor = (mine, theirs) if self._outgoing else (theirs, mine)
        role = b"dialer" if of_dialer else b"acceptor"
        parts = (_LABEL, role, self._binding, *dialer, *acceptor)
        # Each part with its length, so that no two lists of parts read the same.
        data = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(key, data, "sha256")


def _read_hello(data: Any) -> Hello:
    try:
        return Hello.model_validate(data)
    except ValidationError as error:
        raise ProtocolError("The other side's introduction is none.") from error


def _stretch(secret: bytes, cluster: str) -> bytes:
    """A key of a secret: guessing one from a proof takes long, should a person have chosen it."""
    salt = _KEY_LABEL + cluster.encode()
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1, dklen=32)
