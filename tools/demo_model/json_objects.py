"""JSON objects on demand."""

from __future__ import annotations

import json
import random

import words
from phrases import case
from tables import TABLES

NAMES: list[str] = TABLES["json"]["names"].split()
CITIES: list[str] = TABLES["json"]["cities"].split()
_COLOURS = TABLES["json"]["colours"].split()
_TEXT_KEYS = TABLES["json"]["text_keys"].split()
_NUMBER_KEYS = TABLES["json"]["number_keys"].split()
_BOOL_KEYS = TABLES["json"]["bool_keys"].split()
_LIST_KEYS = TABLES["json"]["list_keys"].split()
_LEADS: list[str] = TABLES["json"]["leads"]


def _value(rng: random.Random) -> tuple[str, object]:
    kind = rng.random()
    if kind < 0.5:
        key = rng.choice(_TEXT_KEYS)
        if key in ("name", "author", "owner", "first_name", "user"):
            return key, rng.choice(NAMES)
        if key == "city":
            return key, rng.choice(CITIES)
        if key in ("color", "colour"):
            return key, rng.choice(_COLOURS)
        return key, words.word(rng)
    if kind < 0.78:
        number = rng.randrange(10 ** rng.randint(1, 4))
        return rng.choice(_NUMBER_KEYS), number if rng.random() < 0.92 else number + rng.randint(
            1, 9
        ) / 10
    if kind < 0.9:
        return rng.choice(_BOOL_KEYS), rng.random() < 0.5
    size = rng.randint(2, 4)
    key = rng.choice(_LIST_KEYS)
    if key in ("numbers", "scores", "values"):
        return key, [rng.randint(0, 99) for _ in range(size)]
    if key in ("colors", "colours"):
        return key, rng.sample(_COLOURS, size)
    if key in ("names", "cities"):
        return key, rng.sample(NAMES if key == "names" else CITIES, size)
    return key, [rng.choice(words.COMMON) for _ in range(size)]


def _items(rng: random.Random) -> dict[str, object]:
    out: dict[str, object] = {}
    size = rng.choice((1, 2, 2, 2, 3, 3, 4))
    while len(out) < size:
        key, value = _value(rng)
        if rng.random() < 0.12:
            key = words.invented(rng)
        out[key] = value
    return out


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _spoken(rng: random.Random, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        if rng.random() < 0.4:
            return json.dumps(value)
        parts = [str(v) for v in value]
        return (
            rng.choice(("", "a list of ", "the list "))
            + ", ".join(parts[:-1])
            + " and "
            + parts[-1]
        )
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and rng.random() < 0.1 else text


_VERBS: list[str] = TABLES["json"]["verbs"]
_THINGS: list[str] = TABLES["json"]["things"]
_LINKS: list[str] = TABLES["json"]["links"]


def worded(rng: random.Random) -> tuple[str, str]:
    """The same in words that are put together anew each time."""
    items = _items(rng)
    article = rng.choice(("", "", "the ", "a ")) if rng.random() < 0.4 else ""
    joint = rng.choice(
        (" with value {v}", " with the value {v}", " {v}", " {v}", " = {v}", ": {v}", " of {v}")
    )
    key = rng.choice(("key ", "the key ", "a key ", "field ")) if "value" in joint else article
    parts = [key + k + joint.format(v=_spoken(rng, v)) for k, v in items.items()]
    joined = _listed(parts) if len(parts) > 1 and rng.random() < 0.6 else ", ".join(parts)
    lead = f"{rng.choice(_VERBS)} {rng.choice(_THINGS)} {rng.choice(_LINKS)}"
    lead = case(rng, lead, "").replace("json", rng.choice(("JSON", "JSON", "json")))
    end = rng.choice(("", "", ".", ", please", "?", ", that is all", " and no more"))
    return f"{lead} {joined}{end}", json.dumps(items)


def pair(rng: random.Random) -> tuple[str, str]:
    """Asks for an object; the answer is the object and nothing else."""
    items = _items(rng)
    answer = json.dumps(items)
    style = rng.random()
    if style < 0.2 and len(items) > 1:
        keys, values = list(items), [_spoken(rng, v) for v in items.values()]
        text = f"{rng.choice(('the keys', 'keys', 'the fields'))} {_listed(keys)} and "
        text += f"{rng.choice(('the values', 'values'))} {_listed(values)}"
    else:
        joint = rng.choice(
            (
                " {v}",
                " {v}",
                " {v}",
                " = {v}",
                ": {v}",
                " set to {v}",
                " equal to {v}",
                " being {v}",
                " is {v}",
            )
        )
        parts = [k + joint.format(v=_spoken(rng, v)) for k, v in items.items()]
        glue = rng.choice((" and ", ", "))
        text = (
            glue.join(parts)
            if len(parts) < 3 or glue == ", "
            else ", ".join(parts[:-1]) + " and " + parts[-1]
        )
    lead = case(rng, rng.choice(_LEADS), "").replace("json", rng.choice(("JSON", "json", "JSON")))
    end = rng.choice(("", "", ".", "", " and nothing else", ", nothing else", " please"))
    return f"{lead} {text}{end}", answer


def either(rng: random.Random) -> tuple[str, str]:
    return pair(rng) if rng.random() < 0.45 else worded(rng)
