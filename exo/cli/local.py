"""The daemon of this machine, as seen from its folders.

`daemon.json` says where it is, but survives a `kill -9`; the lock is held for exactly as long as
the daemon lives.
"""

import fcntl
import json
import os
import threading
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


def local_key(paths: "Paths") -> str | None:
    """What lets this user use the API of the running daemon; None if there is nothing."""
    try:
        return paths.local_key.read_text("utf-8").strip() or None
    except OSError:
        return None


def is_running(paths: "Paths") -> bool:
    """Whether a daemon holds the lock of this home."""
    lock = _open_lock(paths)
    if lock is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def wait_until_stopped(paths: "Paths", seconds: float) -> bool:
    """Wait until no daemon holds the lock; false if one still does after `seconds`.

    The lock is free when the process has ended, also where nobody reaps it.
    """
    lock = _open_lock(paths)
    if lock is None:
        return True
    # Only a signal ends a blocking flock() early, so it blocks in a thread that may be left behind.
    waiter = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_SH), daemon=True)
    waiter.start()
    waiter.join(seconds)
    if waiter.is_alive():
        return False
    os.close(lock)
    return True


def _open_lock(paths: "Paths") -> int | None:
    try:
        return os.open(paths.lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(f"{paths.lock} cannot be opened: {error.strerror}.") from error
