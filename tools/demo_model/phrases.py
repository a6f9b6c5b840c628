"""Phrasing grammar and the noise that real questions have."""

from __future__ import annotations

import random
import re

from tables import TABLES

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_MACRO = re.compile(r"\{(\w+)\}")
_COMMAND = re.compile(
    r"\bexo (?:start|stop|status|logs|doctor|run|instance \w+|model list|events|bench|node list"
    r"|topology|cluster \w+)(?: --\w+)?"
)

_OPENERS: list[str] = TABLES["noise"]["openers"]
_CLOSERS: list[str] = TABLES["noise"]["closers"]
_SYNONYMS: dict[str, list[str]] = TABLES["synonyms"]
_FORMAL: dict[str, str] = TABLES["noise"]["formal"]
_DROPPABLE = {
    "the",
    "a",
    "an",
    "do",
    "i",
    "to",
    "of",
    "is",
    "does",
    "are",
    "my",
    "can",
    "for",
    "it",
}
_CONTRACT = (
    ("what is", "what's"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("i am ", "i'm "),
    ("how do i", "how do you"),
    ("where is", "where's"),
    ("how do i", "how can i"),
)


def expand(rng: random.Random, text: str, macros: dict[str, list[str]]) -> str:
    """Picks one reading of a phrasing."""
    text = _MACRO.sub(lambda m: rng.choice(macros[m.group(1)]), text)
    while True:
        new = _INNERMOST.sub(lambda m: rng.choice(m.group(1).split("|")), text)
        if new == text:
            return " ".join(text.split())
        text = new


def _typo(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    places = [i for i, w in enumerate(words) if len(w) > 4 and w.isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    word = words[at]
    i = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    elif kind == 1:
        word = word[:i] + word[i + 1 :]
    else:
        word = word[:i] + word[i] + word[i:]
    words[at] = word
    return " ".join(words)


def _drop(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    kept = [w for w in words if w not in _DROPPABLE or rng.random() > 0.5]
    return " ".join(kept) if len(kept) > 1 else text


def _formal(text: str) -> str:
    out = " ".join(_FORMAL.get(w, w) for w in text.split(" "))
    return out[:1].upper() + out[1:]


def case(rng: random.Random, text: str, mark: str = "?") -> str:
    """Gives a lower-case question a case and an end."""
    style = rng.random()
    if style < 0.52:
        return _formal(text) + (mark if rng.random() < 0.85 else "")
    if style < 0.82:
        return text
    if style < 0.95:
        return text + mark
    if style < 0.97:
        return text.upper() + mark
    return _formal(text) + rng.choice(("??", "!", ".", " ?", "..."))


def vary(rng: random.Random, text: str) -> str:
    """Puts synonyms in the place of some words."""
    return " ".join(
        rng.choice(_SYNONYMS[w]) if w in _SYNONYMS and rng.random() < 0.6 else w
        for w in text.split(" ")
    )


def dress(rng: random.Random, text: str, mark: str = "?") -> str:
    """Turns a plain lower-case phrasing into what a person may type."""
    if rng.random() < 0.25:
        old, new = rng.choice(_CONTRACT)
        text = text.replace(old, new)
    if rng.random() < 0.12:
        text = _drop(rng, text)
    if rng.random() < 0.10:
        text = _typo(rng, text)
    if rng.random() < 0.4:
        text = _COMMAND.sub(lambda m: f"`{m.group(0)}`", text)
    if rng.random() < 0.16:
        text = rng.choice(_OPENERS) + text
    if rng.random() < 0.10:
        text += rng.choice(_CLOSERS)
    return case(rng, text, mark)
