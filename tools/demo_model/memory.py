"""Remembering what the user said earlier."""

from __future__ import annotations

import random
from typing import Any

import words
from json_objects import CITIES, NAMES
from phrases import dress
from render import Message
from tables import TABLES

_FACTS: list[dict[str, Any]] = TABLES["memory"]


def _thing(rng: random.Random, topic: int) -> str:
    if topic == 0:
        return rng.choice(NAMES) if rng.random() < 0.5 else words.invented(rng).capitalize()
    if topic == 1:
        return rng.choice(CITIES)
    if topic == 2:
        return rng.choice(
            [
                "red",
                "green",
                "blue",
                "yellow",
                "purple",
                "orange",
                "black",
                "white",
                "pink",
                "brown",
            ]
        )
    return words.word(rng)


def turns(rng: random.Random) -> tuple[list[Message], list[Message]]:
    """The telling and the asking; other talk may come between them."""
    topic = rng.choices(range(4), (6, 2, 1, 2))[0]
    fact = _FACTS[topic]
    thing = _thing(rng, topic)
    ask = rng.choice(fact["says"])
    said = (ask[:1].upper() + ask[1:] if rng.random() < 0.7 and ask[0] != "{" else ask).format(
        x=thing
    )
    said += rng.choice((".", ".", "", "!"))
    reply = fact["reply"].format(x=thing)
    tell = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": reply[:1].upper() + reply[1:]},
    ]
    recall = [
        {"role": "user", "content": dress(rng, rng.choice(fact["asks"]))},
        {"role": "assistant", "content": fact["answer"].format(x=thing)},
    ]
    return tell, recall
