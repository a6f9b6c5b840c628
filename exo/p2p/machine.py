"""Whether this data folder was made on this machine: two nodes must not share one key.

A data folder that is copied to another machine brings the key with it. So the machine that the key
was made on is kept beside it:

    {"format": 1, "machine": "<hex>"}

It is no secret, but no one else's business either: the system's own id is hashed with a word of
exo's, as systemd asks of programs that store it (machine-id(5)).
"""

import hashlib
import hmac
import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import cast

from exo.errors import HomeError
from exo.p2p.files import write_private

FORMAT = 1
_SALT = b"exo: the machine of a data folder"
_LINUX = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_IOREG = ("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What is to be done with the key in a data folder."""

    KEEP = "it is this machine's, or nothing is known"
    RECORD = "note that it is this machine's"
    SET_ASIDE = "it is another machine's: put it aside, then note this machine"


def judge(recorded: str | None, here: str | None, *, has_key: bool) -> Verdict:
    """Compare the machine recorded beside the key with this one: pure. None is not known, and
    nothing is concluded from that."""
    if here is None or recorded == here:
        return Verdict.KEEP
    if recorded is None or not has_key:
        return Verdict.RECORD
    return Verdict.SET_ASIDE


def settle_identity(key: Path, record: Path, here: str | None) -> Path | None:
    """Make sure, before the key is loaded, that the one in `key` was made on this machine.

    `record` is the file that says where it was made, `here` is `machine_id()`. Returns where the
    key of another machine was put, None if there was none; a new key is then made by loading.

    Raises:
        HomeError: a file cannot be read, written or moved.
    """
    try:
        verdict = judge(_recorded(record), here, has_key=key.exists())
        if here is None or verdict is Verdict.KEEP:
            return None
        # The key goes first: if this is cut short, a key that is not ours is never taken for ours.
        aside = _set_aside(key) if verdict is Verdict.SET_ASIDE else None
        write_private(record, json.dumps({"format": FORMAT, "machine": here}) + "\n")
    except OSError as error:
        raise HomeError(
            f"The machine of this data folder cannot be kept in {record}: {error.strerror}.",
            hint="Free some space and make the folder writable.",
        ) from error
    if aside:
        log.warning(
            "This data folder comes from another machine, so this node gets an id of its own. "
            "The old key is in %s.",
            aside,
        )
    return aside


def machine_id() -> str | None:
    """An id of this machine that outlives restarts and updates, None if there is none."""
    if sys.platform == "linux":
        # In an image for many machines it is empty, or the word "uninitialized".
        return next(filter(None, map(identify, map(_read, _LINUX))), None)
    if sys.platform == "darwin":
        match = re.search(r'"IOPlatformUUID" = "([^"]+)"', _ioreg())
        return identify(match[1]) if match else None
    return None


def identify(text: str) -> str | None:
    """The id that is kept, made of a system's 128-bit id in hex (with or without dashes): pure."""
    plain = text.strip().replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain) or len(set(plain)) == 1:
        return None
    return hmac.new(plain.encode(), _SALT, hashlib.sha256).hexdigest()[:32]


def _recorded(record: Path) -> str | None:
    """The machine that the key was made on. From a damaged file nothing is concluded."""
    try:
        data = json.loads(record.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return None
    machine = cast("Mapping[str, object]", data).get("machine") if isinstance(data, dict) else None
    return machine if isinstance(machine, str) else None


def _set_aside(key: Path) -> Path:
    number = 1
    while (aside := key.with_name(f"{key.name}.copied-{number}")).exists():
        number += 1
    key.rename(aside)
    return aside


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def _ioreg() -> str:
    try:
        return subprocess.run(_IOREG, check=False, capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
