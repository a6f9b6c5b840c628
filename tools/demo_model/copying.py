"""Copying, repeating and counting."""

from __future__ import annotations

import random

import words
from phrases import case
from tables import TABLES

_ONCE: list[str] = TABLES["copying"]["once"]
_WHOLE: list[str] = TABLES["copying"]["whole"]
_AGAIN: list[str] = TABLES["copying"]["again"]
_REPEAT: list[str] = TABLES["copying"]["repeat"]
_TIMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SUBJECTS: list[str] = TABLES["copying"]["subjects"]
_VERBS: list[str] = TABLES["copying"]["verbs"]
_FROM: list[str] = TABLES["copying"]["count_from"]
_TO: list[str] = TABLES["copying"]["count_to"]
_DOWN: list[str] = TABLES["copying"]["count_down"]


def _phrase(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return " ".join(words.word(rng) for _ in range(rng.randint(2, 5)))
    if kind < 0.8:
        start = f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)}"
        text = f"{start} the {rng.choice(words.COMMON)} {words.word(rng)}"
        return text[:1].upper() + text[1:] + rng.choice(("", ".", "!"))
    if kind < 0.9:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    return ", ".join(rng.choice(words.COMMON) for _ in range(rng.randint(2, 4)))


def _mark(rng: random.Random) -> str:
    return rng.choice((".", ".", "", "!"))


def _ask(rng: random.Random, template: str, **slots: str) -> str:
    # Case and end come before the slots are filled: the copied text stays as it is.
    lead = case(rng, template, _mark(rng) if template[-3:] != "{w}" else "")
    if lead.isupper() or "{W}" in lead:
        lead = template
    return lead.format(**slots)


def once(rng: random.Random) -> tuple[str, str]:
    text = words.word(rng) if rng.random() < 0.7 else _phrase(rng)
    return _ask(rng, rng.choice(_ONCE), w=text), text


def sentence(rng: random.Random) -> tuple[str, str]:
    """Mostly more than one word: the further the copy goes, the more exact it must be."""
    kind = rng.random()
    if kind < 0.35:
        text = words.word(rng)
    elif kind < 0.6:
        text = _phrase(rng)
    else:
        who = " ".join(rng.choice(words.COMMON) for _ in range(rng.randint(1, 3)))
        what = " ".join(rng.choice(words.SEEN) for _ in range(rng.randint(1, 3)))
        verb, article = rng.choice(_VERBS), rng.choice(("the", "a", "my", "no", "one"))
        text = f"{rng.choice(('the', 'a', 'this', 'our'))} {who} {verb} {article} {what}"
        text = text[:1].upper() + text[1:] + rng.choice(("", ".", ".", "!"))
    return _ask(rng, rng.choice(_ONCE if rng.random() < 0.6 else _WHOLE), w=text), text


def times(rng: random.Random) -> tuple[str, str]:
    word, n = words.word(rng), rng.randint(2, 10)
    count = rng.choice((f"{n} times", f"{_TIMES[n]} times", "twice" if n == 2 else f"{n} times"))
    return _ask(rng, rng.choice(_REPEAT), w=word, n=count), " ".join([word] * n)


def endless(rng: random.Random) -> tuple[str, str]:
    """A repetition that is cut in the middle: its end is never learnt."""
    word = words.word(rng)
    size = rng.randint(24, 80) if rng.random() < 0.7 else rng.randint(100, 150)
    # About three letters make a token, and the answer is measured in tokens.
    count = max(8, size * 3 // (len(word) + 1))
    return _ask(rng, rng.choice(_REPEAT), w=word, n=rng.choice(_AGAIN)), " ".join([word] * count)


def _join(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def counting(rng: random.Random) -> tuple[str, str]:
    start, size = rng.randint(0, 60), rng.randint(2, 20)
    end = start + size
    kind = rng.random()
    if kind < 0.5:
        ask = rng.choice(_FROM)
        return _ask(rng, ask, a=str(start), b=str(end)), _join(list(range(start, end + 1)))
    if kind < 0.8:
        end = rng.randint(2, 30)
        ask = rng.choice(_TO)
        return _ask(rng, ask, b=str(end)), _join(list(range(1, end + 1)))
    ask = rng.choice(_DOWN)
    start = rng.choice((0, 1, 1, start))
    end = start + size
    return _ask(rng, ask, a=str(start), b=str(end)), _join(list(range(end, start - 1, -1)))
