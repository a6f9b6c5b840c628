"""Keys of the API: how they look, how one is recognised, and which may be made. Pure.

    sk-exo-<id>-<secret>      both in base32, small letters: 5 and 32 random bytes

The cluster keeps the SHA-256 of the secret. A slow hash would add nothing: nobody guesses 256 bits.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from exo.cluster.state import ApiKey, Scope
from exo.errors import KeyNotFound, RequestError

PREFIX = "sk-exo-"
_ID_BYTES = 5
_SECRET_BYTES = 32
# How exact "last used" is: every use would be an entry in the log.
USED_EVERY = timedelta(hours=1)
# More would make the state of every node larger than the rest of it.
MOST_KEYS = 1000


@dataclass(frozen=True)
class NewKey:
    """A key with its text, which is shown once and kept nowhere."""

    key: ApiKey
    text: str


def make_key(
    name: str,
    scope: Scope,
    now: str,
    *,
    models: Sequence[str] = (),
    rate: int | None = None,
) -> NewKey:
    """A new key; without a name it is called by its id.

    Raises:
        RequestError: a key for everything is to be for some models only.
    """
    if scope is Scope.ADMIN and models:
        raise RequestError(
            "An admin key is good for every model.",
            hint="Leave out the models, or make an inference key.",
            param="models",
        )
    key_id, secret = _random(_ID_BYTES), _random(_SECRET_BYTES)
    key = ApiKey(
        key_id=key_id,
        name=name or key_id,
        scope=scope,
        hashed_secret=_hashed(secret),
        created_at=now,
        models=tuple(models),
        rate=rate,
    )
    return NewKey(key, f"{PREFIX}{key_id}-{secret}")


def is_key(text: str) -> bool:
    """Whether this looks like a key of exo's; clients without one send any word."""
    return text.startswith(PREFIX)


def find_key(keys: Mapping[str, ApiKey], text: str) -> ApiKey | None:
    """The key that `text` is; how long this takes says nothing about secrets."""
    key_id, _, secret = text.removeprefix(PREFIX).partition("-")
    key = keys.get(key_id) if is_key(text) else None
    expected = key.hashed_secret if key else _hashed("")
    same = hmac.compare_digest(_hashed(secret), expected)
    return key if same and key else None


def called_key(keys: Iterable[ApiKey], name: str) -> ApiKey:
    """The key of that id, else the one of that name.

    Raises:
        KeyNotFound: there is none, or more than one.
    """
    among = list(keys)
    found = [key for key in among if key.key_id == name]
    found = found or [key for key in among if key.name == name]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} keys are called" if found else "There is no key"
    raise KeyNotFound(f"{what} '{name}'.", hint="`exo key list` shows them with their ids.")


def check_new(keys: Iterable[ApiKey], new: ApiKey) -> None:
    """See that a key can be added.

    Raises:
        RequestError: its name is taken, or there are too many.
    """
    among = list(keys)
    if any(new.name in {key.name, key.key_id} for key in among):
        raise RequestError(
            f"There is a key called '{new.name}' already.",
            hint="Choose another name, or revoke that one.",
            param="name",
        )
    if len(among) >= MOST_KEYS:
        raise RequestError(
            f"There are {len(among)} keys already.", hint="Revoke those that are not used."
        )


def is_worth_telling(key: ApiKey, now: datetime) -> bool:
    """Whether the cluster should hear that a key is used now."""
    return key.last_used is None or now - datetime.fromisoformat(key.last_used) >= USED_EVERY


def _random(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode("ascii").rstrip("=").lower()


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
