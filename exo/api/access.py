"""Who asks, and what they may: one check, which every route passes.

Where keys are asked for, a route that says nothing else takes a key for everything. Which key it
was, the handler's task knows (`ASKER`).
"""

import hmac
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from exo.cluster.keys import is_key
from exo.cluster.state import ApiKey, Scope
from exo.errors import Forbidden, ModelForbidden, Unauthorized
from exo.models.card import ModelCard

_HINT = (
    "Send 'Authorization: Bearer KEY', or set EXO_API_KEY for `exo` itself; `exo key create` makes "
    "one."
)


class Access(StrEnum):
    """Who may use a route, where keys are asked for: everyone; whoever has a key; whoever has one
    for everything."""

    OPEN = "open"
    INFERENCE = "inference"
    ADMIN = "admin"


# How a name begins that is a path.
_FOLDERS = ("/", ".", "~")


@dataclass(frozen=True)
class Doors:
    """How this node's API is guarded: whether it takes a key to use it, the secret that lets this
    device's own command line in, and whether others can reach it at all."""

    keys_required: bool = False
    local_key: str | None = field(default=None, repr=False)
    beyond_loopback: bool = False


@dataclass(frozen=True)
class Asker:
    """Who asks: by a key of the cluster; or without one, as this device's owner (`trusted`) or as
    whoever reaches an API that takes no key."""

    key: ApiKey | None = None
    trusted: bool = False

    @property
    def is_known(self) -> bool:
        """Whether a secret was shown."""
        return self.trusted or self.key is not None

    @property
    def lane(self) -> str:
        """What it shares with others as: its key."""
        return self.key.key_id if self.key else ""

    @property
    def is_admin(self) -> bool:
        return self.key is None or self.key.scope is Scope.ADMIN

    def may_use(self, card: ModelCard) -> bool:
        """Whether the key is for this model."""
        return (
            self.key is None
            or not self.key.models
            or any(card.is_called(name) for name in self.key.models)
        )

    def require_name(self, name: str) -> None:
        """See that a model may be called so, before anything is looked for.

        Raises:
            ModelForbidden: it is a folder of this device, and the key is for answers only.
        """
        if name.startswith(_FOLDERS) and self.key and not self.is_admin:
            raise ModelForbidden(
                "A model is named by its folder with an admin key only.",
                hint="`GET /v1/models` lists names.",
                param="model",
            )

    def require(self, card: ModelCard) -> None:
        """
        Raises:
            ModelForbidden: the key is not for this model.
        """
        if self.key and not self.may_use(card):
            raise ModelForbidden(
                f"The API key '{self.key.name}' is not for {card.model_id}.",
                hint=f"It is for: {', '.join(self.key.models)}.",
                param="model",
            )


_NOBODY = Asker()
ASKER: ContextVar[Asker] = ContextVar("asker", default=_NOBODY)


def shown_key(headers: Mapping[str, str]) -> str | None:
    """The key that a request shows: as OpenAI's clients do, or as Anthropic's."""
    scheme, _, text = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return headers.get("x-api-key", "").strip() or None


def admit(
    headers: Mapping[str, str], access: Access, doors: Doors, find: Callable[[str], ApiKey | None]
) -> Asker:
    """Who asks for a route with that `access`. `find` gives the key that a text is.

    Where no key is asked for, a word that is none of exo's keys is passed over, as clients send
    one; what a key of exo's may not do, it may not do there either.

    Raises:
        Unauthorized: a key is needed and there is none, or none that is known.
        Forbidden: the key is not for this.
    """
    if access is Access.OPEN:
        return Asker()
    text = shown_key(headers)
    if text is None:
        if doors.keys_required:
            raise Unauthorized("This API takes a key.", hint=_HINT)
        return Asker()
    if doors.local_key and hmac.compare_digest(text.encode(), doors.local_key.encode()):
        return Asker(trusted=True)
    key = find(text)
    if key is None:
        if doors.keys_required or is_key(text):
            raise Unauthorized("This API key is not known, or was revoked.", hint=_HINT)
        return Asker()
    asker = Asker(key)
    if access is Access.ADMIN and not asker.is_admin:
        raise Forbidden(
            f"The API key '{key.name}' is for answers only.",
            hint="Take one that `exo key create --scope admin` made.",
        )
    return asker
