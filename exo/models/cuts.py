"""Where the list of layers of an architecture may be cut."""

from typing import Any


def cuts(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The layers before which the list may be cut, for a model with this `config.json`; None if
    before any, empty if nowhere."""
    del config
    return None
