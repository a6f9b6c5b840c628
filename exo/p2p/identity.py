"""Who a node is: an Ed25519 key, made at first start and kept for good.

The peer id is libp2p's: base58 of the identity multihash of the protobuf-encoded public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md). It begins with `12D3Koo`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
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
        pem = path.read_bytes()
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise HomeError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path)
    return Identity(key)


def peer_id(public_key: bytes) -> str:
    """The libp2p peer id of a raw Ed25519 public key (32 bytes)."""
    return _base58(_PREFIX + public_key)


def _create(path: Path) -> Identity:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    part = path.with_suffix(".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
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
