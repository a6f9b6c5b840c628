"""Conversations in which a tool is called, and its answer used."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import arithmetic
import words
from json_objects import CITIES, NAMES
from phrases import case
from render import Conversation, Message, call
from tables import read

Slots = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of tool: what it may be called and how a user asks for it."""

    names: list[str]
    description: str
    parameters: dict[str, str]
    asks: list[str]
    outcomes: list[str]
    final: str


KINDS = tuple(Kind(**kind) for kind in read("tools.toml")["kinds"])
_LANGUAGES = (
    "french",
    "german",
    "spanish",
    "italian",
    "latin",
    "dutch",
    "polish",
    "swedish",
    "greek",
    "turkish",
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_PLACES = ("ville", "burg", "ton", "field", "grad", "heim", "stad", "dorf", "port", "mouth")


def _city(rng: random.Random) -> str:
    if rng.random() < 0.55:
        return rng.choice(CITIES)
    return (words.invented(rng) + rng.choice(("", "", rng.choice(_PLACES)))).capitalize()


def _slot(rng: random.Random, name: str, sort: str) -> Any:
    if "city" in (name, sort):
        return _city(rng)
    if name == "expression":
        top = 10 ** rng.randint(1, 4)
        parts = [str(rng.randrange(1, top)) for _ in range(rng.choice((2, 2, 3)))]
        return "".join(
            p + (f" {rng.choice('+-*/')} " if i < len(parts) - 1 else "")
            for i, p in enumerate(parts)
        )
    if sort == "integer":
        return rng.randrange(1, 10 ** rng.randint(1, 3))
    fixed = {"name": NAMES, "language": _LANGUAGES, "day": _DAYS}
    if sort in fixed:
        return rng.choice(fixed[sort])
    if sort == "path":
        return f"{words.invented(rng)}.{rng.choice(('txt', 'md', 'py', 'json'))}"
    size = rng.choice((1, 2, 2, 3)) if name in ("query", "text", "title") else 1
    return " ".join(
        words.word(rng) if rng.random() < 0.5 else rng.choice(words.COMMON) for _ in range(size)
    )


def _invented_name(rng: random.Random) -> str:
    """A name that no kind has: what to call is to be read from the offer, not remembered."""
    parts = [
        words.invented(rng) if rng.random() < 0.3 else rng.choice(words.COMMON)
        for _ in range(rng.choice((1, 2, 2, 2, 3)))
    ]
    return "_".join(parts)


def _mixed_name(rng: random.Random, kind: Kind) -> str:
    """The name of a kind with another word in it."""
    parts = rng.choice(kind.names).split("_")
    parts[rng.randrange(len(parts))] = rng.choice(words.COMMON)
    return "_".join(parts)


def spec(rng: random.Random, kind: Kind, fresh: float) -> dict[str, Any]:
    plain = ("string", "integer", "number")
    properties = {n: {"type": s if s in plain else "string"} for n, s in kind.parameters.items()}
    description = kind.description
    if rng.random() < 0.3:
        swap = rng.choice(
            (
                ("Returns", "Get"),
                ("Returns", "Gives"),
                ("Returns", "Fetch"),
                (".", ""),
                ("Searches", "Search"),
            )
        )
        description = description.replace(*swap)
    if rng.random() < 0.1:
        description = ""
    name = rng.choice(kind.names)
    if fresh and rng.random() < fresh:
        name = _invented_name(rng) if rng.random() < 0.5 else _mixed_name(rng, kind)
    function = {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties},
    }
    return {"type": "function", "function": function}


def toolbox(rng: random.Random, needed: Kind, fresh: float) -> list[tuple[Kind, dict[str, Any]]]:
    others = [k for k in (KINDS[:4] if rng.random() < 0.5 else KINDS) if k is not needed]
    chosen = [needed, *rng.sample(others, rng.choice((0, 1, 1, 2, 3)))]
    rng.shuffle(chosen)
    return [(k, spec(rng, k, fresh)) for k in chosen]


def use(rng: random.Random, kind: Kind, tool: dict[str, Any]) -> list[Message]:
    """The user's wish, the call, the tool's answer and the closing sentence."""
    slots: Slots = {n: _slot(rng, n, s) for n, s in kind.parameters.items()}
    if kind.names == ["calculate"] and rng.random() < 0.3:
        a, op, b = arithmetic.operands(rng)
        slots["expression"] = f"{a} {op} {b}"
    ask = case(rng, rng.choice(kind.asks))
    ask = (
        ask if not ask.isupper() and "{" + next(iter(slots)) + "}" in ask else rng.choice(kind.asks)
    ).format(**slots)
    out = rng.choice(kind.outcomes).format(
        n=rng.randrange(1, 40), w=words.invented(rng), c=rng.choice(CITIES), **slots
    )
    return [
        {"role": "user", "content": ask},
        call(tool["function"]["name"], slots),
        {"role": "tool", "content": out},
        {"role": "assistant", "content": kind.final.format(out=out, **slots)},
    ]


def talk(
    rng: random.Random, chat: Callable[[random.Random], tuple[str, str]], fresh: float = 0.0
) -> Conversation:
    """Tools are offered, a share `fresh` of them under new names; some turns need one and some
    do not."""
    needed = rng.choice(KINDS[:4]) if rng.random() < 0.55 else rng.choice(KINDS)
    box = toolbox(rng, needed, fresh)
    messages: list[Message] = []
    for turn in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < (0.25 if turn == 0 else 0.4):
            ask, answer = chat(rng)
            messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        else:
            messages += use(rng, *rng.choice(box))
    return Conversation(messages, [t for _, t in box])
