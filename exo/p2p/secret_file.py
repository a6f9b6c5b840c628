"""The cluster that this node has joined by a token or that was locked around it, on disk (0600).

{"format": 1, "name": "exo", "secret": "<hex>" or null, "addresses": ["/ip4/…"]}
"""

import json
from dataclasses import dataclass
from pathlib import Path

from exo.errors import HomeError
from exo.p2p.files import write_private

FORMAT = 1


@dataclass(frozen=True)
class ClusterSecret:
    """A cluster's name, its secret if it is locked, and multiaddrs of nodes that were in it."""

    name: str
    secret: bytes | None
    addresses: tuple[str, ...]


class SecretFile:
    """Written anew in one step, private to the user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> ClusterSecret | None:
        """What is kept, None if nothing is.

        Raises:
            HomeError: the file cannot be read. It is never guessed at: without the secret this
                node would open itself to strangers.
        """
        try:
            data = json.loads(self._path.read_text("utf-8"))
            secret = bytes.fromhex(data["secret"]) if data["secret"] else None
            return ClusterSecret(str(data["name"]), secret, tuple(map(str, data["addresses"])))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeError(f"{self._path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise HomeError(
                f"{self._path} is damaged, so the secret of the cluster is not known.",
                hint="Remove it, then `exo start --join TOKEN` with a token from another node.",
            ) from error

    def save(self, kept: ClusterSecret) -> None:
        """Return when it is on the disk.

        Raises:
            HomeError: it cannot be written.
        """
        data = {
            "format": FORMAT,
            "name": kept.name,
            "secret": kept.secret.hex() if kept.secret else None,
            "addresses": list(kept.addresses),
        }
        try:
            write_private(self._path, json.dumps(data))
        except OSError as error:
            raise HomeError(
                f"The secret of the cluster cannot be written to {self._path}: {error.strerror}.",
                hint="Free some space on that disk.",
            ) from error
