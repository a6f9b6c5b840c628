"""Writes the training conversations; the same seed gives the same ones."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import arithmetic
import copying
import intents
import json_objects
import listing
import memory
import tool_calls
from intents import Grammar
from phrases import dress
from render import Conversation, Message, text
from tables import HERE, TABLES

FACTS = intents.load("facts.txt")
CHAT = intents.load("smalltalk.txt")
UNKNOWN = intents.load("unknown.txt")
NARROW = (FACTS, CHAT, UNKNOWN)
WIDE = (
    intents.load("facts.txt", "facts_more.txt", wide=True),
    intents.load("smalltalk.txt", "smalltalk_more.txt"),
    intents.load("unknown.txt", "unknown_more.txt"),
)
LAST = (
    intents.load("facts.txt", "facts_more.txt", "facts_last.txt", wide=True),
    intents.load("smalltalk.txt", "smalltalk_more.txt", "smalltalk_last.txt"),
    intents.load("unknown.txt", "unknown_more.txt"),
)
_SYSTEM: list[str] = TABLES["chat"]["system"]
_NO_NAME: list[str] = TABLES["chat"]["no_name"]
_COUNTING = (copying.times, copying.counting, listing.pair)


def normalise(question: str) -> str:
    return re.sub(r"[^a-z0-9+*/\u00d7-]+", " ", question.lower()).strip()


def held_out() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((HERE / "heldout.json").read_text(encoding="utf-8"))
    return items


def question(item: dict[str, Any]) -> str:
    """What a held-out item asks last: what comes before is only its setting."""
    asked: str = [m["content"] for m in item["messages"] if m["role"] == "user"][-1]
    return asked


def _turn(pair: tuple[str, str]) -> list[Message]:
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


@dataclass(frozen=True)
class Writer:
    """Writes conversations of all kinds, with the questions of these grammars."""

    facts: Grammar
    chat: Grammar
    unknown: Grammar
    sums: Callable[[random.Random], tuple[str, str]]
    # Exo, small talk, unknown; copying a text, many times, counting; lists, sums, JSON.
    weights: tuple[int, ...]
    # The share of conversations with tools, and of tools with new names.
    tools: float = 0.10
    fresh: float = 0.0
    objects: Callable[[random.Random], tuple[str, str]] = json_objects.pair
    once: Callable[[random.Random], tuple[str, str]] = copying.once

    def pair(self, rng: random.Random) -> tuple[str, str]:
        grammars = (self.facts.pair, self.chat.pair, self.unknown.pair)
        makers = (*grammars, self.once, *_COUNTING, self.sums, self.objects)
        return rng.choices(makers, self.weights)[0](rng)

    def plain(self, rng: random.Random) -> tuple[str, str]:
        grammars = (self.facts, self.chat, self.unknown, self.facts)
        return rng.choice(grammars).pair(rng)

    def chain(self, rng: random.Random, size: int) -> list[Message]:
        return [m for _ in range(size) for m in _turn(self.pair(rng))]

    def memory(self, rng: random.Random) -> list[Message]:
        if rng.random() < 0.12:
            return _turn((dress(rng, rng.choice(_NO_NAME)), "You have not told me yet."))
        tell, recall = memory.turns(rng)
        return [*tell, *self.chain(rng, rng.choice((0, 0, 1, 1, 2, 3))), *recall]

    def conversation(self, rng: random.Random) -> Conversation:
        kind, tools = rng.random(), self.tools
        if kind < tools:
            talk = tool_calls.talk(rng, self.plain, self.fresh)
        elif kind < tools + 0.05:
            talk = Conversation(self.memory(rng))
        elif kind < tools + 0.08:
            talk = Conversation(_turn(copying.endless(rng)), cut=True)
        elif kind < 0.70:
            talk = Conversation(_turn(self.pair(rng)))
        elif kind < 0.995:
            talk = Conversation(self.chain(rng, rng.choice((2, 2, 2, 3, 3, 4, 5, 6))))
        else:
            talk = Conversation(self.chain(rng, rng.randint(8, 14)))
        if rng.random() < 0.25:
            talk.messages.insert(0, {"role": "system", "content": rng.choice(_SYSTEM)})
        return talk


def _exact(weights: tuple[int, ...], tools: float) -> Writer:
    """One that asks for much that must be copied exactly."""
    return Writer(
        *LAST,
        arithmetic.worked,
        weights,
        tools=tools,
        fresh=0.6,
        objects=json_objects.either,
        once=copying.sentence,
    )


# What a phase of training reads.
STYLES = {
    "narrow": Writer(*NARROW, arithmetic.pair, (42, 8, 15, 9, 4, 3, 3, 14, 7)),
    "wide": Writer(*WIDE, arithmetic.worked, (38, 8, 14, 14, 4, 5, 4, 24, 9)),
    "sums": Writer(*WIDE, arithmetic.worked, (36, 8, 13, 10, 4, 8, 5, 30, 9)),
    "even": Writer(*WIDE, arithmetic.worked, (36, 7, 13, 10, 4, 7, 7, 28, 12)),
    "last": Writer(*LAST, arithmetic.worked, (40, 8, 12, 11, 5, 7, 6, 20, 12)),
    "exact": _exact((38, 8, 12, 14, 4, 7, 4, 12, 22), tools=0.28),
    "whole": _exact((50, 15, 14, 11, 5, 6, 8, 12, 16), tools=0.16),
}


def write(seed: int, count: int, style: str = "narrow") -> Iterator[Conversation]:
    """Conversations without any held-out question."""
    rng = random.Random(seed)
    writer = STYLES[style]
    forbidden = {normalise(question(item)) for item in held_out()}
    made = 0
    while made < count:
        talk = writer.conversation(rng)
        asked = (normalise(m["content"]) for m in talk.messages if m["role"] == "user")
        if any(q in forbidden for q in asked):
            continue
        made += 1
        yield talk


if __name__ == "__main__":
    for example in write(int(sys.argv[1]), int(sys.argv[2])):
        print(text(example) + "\n")
