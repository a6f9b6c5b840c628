"""The cards that ship with exo: `cards/*.toml`."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from exo.models.card import ModelCard

_CARDS = Path(__file__).with_name("cards")


@cache
def shipped_cards() -> tuple[ModelCard, ...]:
    cards: list[ModelCard] = []
    for file in sorted(_CARDS.glob("*.toml")):
        data: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        cards += [ModelCard.model_validate(entry) for entry in data["model"]]
    return tuple(cards)


def shipped_card(architecture: str) -> ModelCard:
    """The first card of an architecture."""
    return next(card for card in shipped_cards() if card.architecture == architecture)
