"""The daemon of this machine, as seen from its folders.

`daemon.json` says where it is, but survives a `kill -9`; the lock is held for exactly as long as
the daemon lives.
"""

import fcntl
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exo.errors import HomeError

if TYPE_CHECKING:
    from exo.config import Paths


@dataclass(frozen=True)
class Daemon:
    """What `daemon.json` says."""

    pid: int
    api: str
    node_id: str
    started_at: str


def find_paths() -> "Paths":
    """The folders that the environment asks for."""
    from exo import config  # noqa: PLC0415  brings pydantic, which `exo --help` does not pay for

    return config.find_paths()


def read_daemon(paths: "Paths") -> Daemon | None:
    """What the last daemon recorded, None if there is no record.

    Raises:
        HomeError: the record cannot be read.
    """
    try:
        record = json.loads(paths.daemon.read_text("utf-8"))
        return Daemon(record["pid"], record["api"], record["node_id"], record["started_at"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HomeError(
            f"{paths.daemon} cannot be read: {error}.", hint="Remove it, then `exo start`."
        ) from error


def is_running(paths: "Paths") -> bool:
    """Whether a daemon holds the lock of this home."""
    try:
        lock = os.open(paths.lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HomeError(f"{paths.lock} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
