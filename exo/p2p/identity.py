"""Who a node is: an Ed25519 key, made at first start and kept for good.

The peer id is libp2p's: base58 of the identity multihash of the protobuf-encoded public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md). It begins with `12D3Koo`. On
disk the private key is 32 bytes in hex (RFC 8032, section 5.1.5).
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exo.errors import HandshakeError, HomeError
from exo.p2p.files import write_private

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Multihash `identity` (0x00) of 36 bytes: protobuf field 1 (key type) = 1 (Ed25519), field 2
# (key) of 32 bytes.
_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_MULTIHASH_HEAD = 2
_KEY_LENGTH = 32
# Digits of the longest number that can be a peer id of an Ed25519 key.
_MAX_PEER_ID = 64


@dataclass(frozen=True)
class Identity:
    """A node's key pair."""

    key: Ed25519PrivateKey

    @property
    def peer_id(self) -> str:
        return peer_id(self.key.public_key().public_bytes_raw())

    @property
    def protobuf(self) -> bytes:
        """The public key as libp2p writes it."""
        return _PREFIX[_MULTIHASH_HEAD:] + self.key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


def load_identity(path: Path) -> Identity:
    """The key in `path`; a new one is made and kept (0600) if there is none.

    Raises:
        HomeError: the file cannot be read or written, or is no key.
    """
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise HomeError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _damaged(path) from error
    try:
        return Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text)))
    except ValueError as error:
        raise _damaged(path) from error


def peer_id(public_key: bytes) -> str:
    """The libp2p peer id of a raw Ed25519 public key (32 bytes)."""
    return _base58(_PREFIX + public_key)


def peer_id_of(protobuf: bytes) -> str:
    """The peer id of a public key as libp2p writes it.

    Raises:
        HandshakeError: it is no Ed25519 key.
    """
    prefix = _PREFIX[_MULTIHASH_HEAD:]
    if not protobuf.startswith(prefix) or len(protobuf) != len(prefix) + _KEY_LENGTH:
        raise HandshakeError("The other side's identity is no Ed25519 key.")
    return peer_id(protobuf[len(prefix) :])


def public_key(peer_id: str) -> bytes:
    """The raw Ed25519 public key (32 bytes) in a peer id.

    Raises:
        HandshakeError: it is no peer id of an Ed25519 key.
    """
    data = _base58_bytes(peer_id)
    if not data.startswith(_PREFIX) or len(data) != len(_PREFIX) + _KEY_LENGTH:
        raise HandshakeError(
            f"'{peer_id[:_MAX_PEER_ID]}' is no peer id.", hint="One begins with 12D3Koo."
        )
    return data[len(_PREFIX) :]


def verify(peer_id: str, signature: bytes, data: bytes) -> bool:
    """Whether the owner of `peer_id` signed `data`.

    Raises:
        HandshakeError: it is no peer id of an Ed25519 key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key(peer_id)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _create(path: Path) -> Identity:
    key = Ed25519PrivateKey.generate()
    try:
        write_private(path, key.private_bytes_raw().hex() + "\n")
    except OSError as error:
        raise HomeError(
            f"The node's key cannot be written to {path}: {error.strerror}.",
            hint="Free some space and make the folder writable.",
        ) from error
    return Identity(key)


def _damaged(path: Path) -> HomeError:
    return HomeError(
        f"{path} holds no Ed25519 key.",
        hint="Restore it, or remove it and this node gets a new id.",
    )


def _base58(data: bytes) -> str:
    number = int.from_bytes(data)
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + digits


def _base58_bytes(text: str) -> bytes:
    """Empty if `text` is no base58, or longer than any peer id."""
    if len(text) > _MAX_PEER_ID or not set(text) <= set(_ALPHABET):
        return b""
    number = 0
    for digit in text:
        number = number * 58 + _ALPHABET.index(digit)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
