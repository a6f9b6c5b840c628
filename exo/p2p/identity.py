"""Who a node is: an Ed25519 key, made at first start and kept for good.

The peer id is libp2p's: base58 of the identity multihash of the protobuf-encoded public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md). It begins with `12D3Koo`. On
disk the private key is 32 bytes in hex (RFC 8032, section 5.1.5).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo.errors import HomeError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Multihash `identity` (0x00) of 36 bytes: protobuf field 1 (key type) = 1 (Ed25519), field 2
# (key) of 32 bytes.
_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])


@dataclass(frozen=True)
class Identity:
    """A node's key pair."""

    key: Ed25519PrivateKey

    @property
    def peer_id(self) -> str:
        return peer_id(self.key.public_key().public_bytes_raw())


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


def _create(path: Path) -> Identity:
    key = Ed25519PrivateKey.generate()
    part = path.with_suffix(".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.private_bytes_raw().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
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
