"""Identities for tests, the same in every run."""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo.p2p.identity import Identity


def identity(name: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


# In the order of their peer ids: the first decides which of two connections becomes the link.
ANN, BOB, EVE = sorted(map(identity, ("ann", "bob", "eve")), key=lambda found: found.peer_id)
