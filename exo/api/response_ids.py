"""The ids of responses and their items: they say where to look.

`resp_` is followed by 8 digits for the node that keeps it and 24 by chance, which nobody can
guess; its items have the same 32, and a number. So any node knows whom to ask for either.
"""

import hashlib
import re
import secrets

_CORE = 32
_TAG = 8
_RESPONSE = re.compile(rf"resp_([0-9a-f]{{{_CORE}}})")
_ITEM = re.compile(rf"[a-z]+_([0-9a-f]{{{_CORE}}})[0-9a-f]{{4,}}")


def tag_of(node_id: str) -> str:
    """How a node is named in the ids of what it keeps."""
    return hashlib.sha256(node_id.encode()).hexdigest()[:_TAG]


def new_response_id(node_id: str) -> str:
    return f"resp_{tag_of(node_id)}{secrets.token_hex((_CORE - _TAG) // 2)}"


def item_id(prefix: str, response_id: str, number: int) -> str:
    """The id of an item of a response."""
    return f"{prefix}_{response_id.removeprefix('resp_')}{number:04x}"


def tag_in(response_id: str) -> str | None:
    """Which node keeps this response; None if that is no such id."""
    found = _RESPONSE.fullmatch(response_id)
    return found[1][:_TAG] if found else None


def response_of(item: str) -> str | None:
    """The response that an item belongs to; None if its id is not one of exo's."""
    found = _ITEM.fullmatch(item)
    return f"resp_{found[1]}" if found else None
