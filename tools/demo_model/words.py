"""Words to copy: ordinary, invented and numbered ones."""

from __future__ import annotations

import random
import re
import string

from tables import HERE, TABLES

_TEXT = "\n".join((HERE / n).read_text(encoding="utf-8") for n in ("facts.txt", "smalltalk.txt"))
COMMON = sorted(set((HERE / "words.txt").read_text(encoding="utf-8").split()))
SEEN = sorted(set(re.findall(r"[a-z]{3,}", _TEXT)) | set(COMMON))

_ONSET = TABLES["syllables"]["onset"].split()
_NUCLEUS = TABLES["syllables"]["nucleus"].split()
_CODA: list[str] = TABLES["syllables"]["coda"]


def invented(rng: random.Random) -> str:
    return "".join(
        rng.choice(_ONSET) + rng.choice(_NUCLEUS) + rng.choice(_CODA)
        for _ in range(rng.randint(1, 3))
    )


def letters(rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 8)))


def word(rng: random.Random) -> str:
    """A word of any kind, as a person may ask to have it repeated."""
    kind = rng.random()
    if kind < 0.3:
        out = rng.choice(COMMON)
    elif kind < 0.45:
        out = rng.choice(SEEN)
    elif kind < 0.8:
        out = invented(rng)
    elif kind < 0.88:
        out = letters(rng)
    else:
        out = rng.choice(COMMON) + rng.choice(COMMON)
    if rng.random() < 0.3:
        out += rng.choice(("", "", "", "-", "_")) + str(rng.randrange(10 ** rng.randint(1, 3)))
    style = rng.random()
    if style < 0.12:
        return out.capitalize()
    if style < 0.16:
        return out.upper()
    return out
