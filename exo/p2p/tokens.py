"""Join tokens: all that a new device needs to find a cluster and to prove that it belongs there.

    exo1-<base32 of msgpack [cluster, secret or nil, [multiaddr, …]] and 4 bytes of its SHA-256>

One word without punctuation, and the same in small and capital letters; the last four bytes find
mistyped ones. The digit is the version of the format.
"""

import base64
import hashlib
from dataclasses import dataclass, field

from exo.errors import ConfigError, ProtocolError, RequestError
from exo.p2p.addresses import parse
from exo.p2p.frames import pack, unpack_fields

_PREFIX = "exo1-"
_ANY_PREFIX = "exo"
_CHECK_BYTES = 4
_MAX_LENGTH = 2**14
_BLOCK = 8


@dataclass(frozen=True)
class Token:
    """A cluster's name, its secret if it is locked, and multiaddrs of some of its nodes."""

    cluster: str
    secret: bytes | None = field(repr=False)
    addresses: tuple[str, ...] = ()


def encode_token(token: Token) -> str:
    """The token as text."""
    data = pack([token.cluster, token.secret, list(token.addresses)])
    text = base64.b32encode(data + _check(data)).decode("ascii")
    return _PREFIX + text.rstrip("=").lower()


def decode_token(text: str) -> Token:
    """The token in a text.

    Raises:
        RequestError: it is mistyped, cut off or of another version.
    """
    text = text.strip().lower()
    if not text.startswith(_PREFIX):
        version = text.partition("-")[0]
        if version.startswith(_ANY_PREFIX) and version.removeprefix(_ANY_PREFIX).isdigit():
            raise RequestError(
                "The join token is of another version of exo.", hint="Upgrade exo on this device."
            )
        raise _wrong()
    body = text.removeprefix(_PREFIX).upper()
    if len(body) > _MAX_LENGTH:
        raise _wrong()
    try:
        raw = base64.b32decode(body + "=" * (-len(body) % _BLOCK))
        data, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if check != _check(data):
            raise _wrong()
        cluster, secret, addresses, *_ = unpack_fields(data, str)
        found = tuple(str(parse(str(address))) for address in addresses)
    except (ValueError, TypeError, ProtocolError, ConfigError) as error:
        raise _wrong() from error
    return Token(cluster, secret if isinstance(secret, bytes) else None, found)


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECK_BYTES]


def _wrong() -> RequestError:
    return RequestError(
        "The join token is mistyped or cut off.",
        hint="Copy all of what `exo cluster token` prints on a node of the cluster.",
    )
