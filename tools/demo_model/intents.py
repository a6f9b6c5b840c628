"""Questions with fixed answers, read from the grammar files."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from phrases import dress, expand, vary
from tables import HERE, TABLES

_FRAMES: dict[str, list[str]] = TABLES["frames"]


@dataclass
class Intent:
    name: str
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass
class Grammar:
    """Intents with the macros that their phrasings use. `wide` varies the phrasings more."""

    macros: dict[str, list[str]] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    wide: bool = False

    def ask(self, rng: random.Random, intent: Intent) -> str:
        phrasing = rng.choice(intent.questions)
        if self.wide and rng.random() < 0.45:
            phrasing = self._framed(rng, phrasing)
        question = expand(rng, phrasing, self.macros)
        if self.wide and rng.random() < 0.35:
            question = vary(rng, question)
        return dress(rng, question)

    def _framed(self, rng: random.Random, phrasing: str) -> str:
        for macro, frames in _FRAMES.items():
            start = "{" + macro + "} "
            if phrasing.startswith(start):
                return rng.choice(frames).replace("{x}", phrasing[len(start) :])
        return phrasing

    def pair(self, rng: random.Random) -> tuple[str, str]:
        # Intents with more phrasings need more examples, but not in proportion.
        intents = list(self.intents.values())
        weights = [len(i.questions) ** 0.6 for i in intents]
        intent = rng.choices(intents, weights)[0]
        return self.ask(rng, intent), rng.choice(intent.answers)


def load(*names: str, wide: bool = False) -> Grammar:
    """Reads grammar files; a later one may add phrasings to the intents of an earlier one, and
    replace their answers."""
    grammar = Grammar(wide=wide)
    for name in names:
        intent = Intent("")
        for raw in (HERE / name).read_text(encoding="utf-8").splitlines():
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            kind, rest = line[0], line[1:].strip()
            if kind == "=":
                macro, _, body = rest.partition(" ")
                grammar.macros[macro] = body.split("|")
            elif kind == "@":
                intent = grammar.intents.setdefault(rest, Intent(rest))
            elif kind == "Q":
                intent.questions.append(rest)
            elif kind == "A":
                intent.answers.append(rest)
            elif kind == "R":
                intent.answers[:] = [rest]
            else:
                raise ValueError(f"{name}: cannot read line {line!r}")
    return grammar
