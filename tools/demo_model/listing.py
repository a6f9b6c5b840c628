"""Listing some members of a group."""

from __future__ import annotations

import random

from phrases import dress
from tables import TABLES

GROUPS: dict[str, str] = TABLES["listing"]["groups"]
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ASKS: list[str] = TABLES["listing"]["asks"]


def pair(rng: random.Random) -> tuple[str, str]:
    group = rng.choice(list(GROUPS))
    members = GROUPS[group].split(", ")
    if rng.random() < 0.12:
        ask = rng.choice(
            ("list some {g}", "name some {g}", "give me a few {g}", "list {g}", "list the {g}")
        )
        size = len(members) if group in ("planets", "days") else 5
        return dress(rng, ask.format(g=group), "."), ", ".join(members[:size])
    n = rng.randint(2, min(10, len(members)))
    number = _NUMBERS[n] if rng.random() < 0.6 else str(n)
    return dress(rng, rng.choice(_ASKS).format(n=number, g=group), "."), ", ".join(members[:n])
