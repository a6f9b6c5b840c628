"""Small sums in digits and in words."""

from __future__ import annotations

import random

from phrases import case
from tables import TABLES

_ONES: list[str] = TABLES["arithmetic"]["ones"].split()
_TENS: list[str] = TABLES["arithmetic"]["tens"].split()

_ASKS: list[str] = TABLES["arithmetic"]["asks"]
_SIGNS: dict[str, list[str]] = TABLES["arithmetic"]["signs"]
_NAMED: dict[str, list[str]] = TABLES["arithmetic"]["named"]
_HARD: list[str] = TABLES["arithmetic"]["hard"]


def spell(n: int) -> str:
    if n < 20:
        return _ONES[n]
    tens = _TENS[n // 10 - 2]
    return tens if n % 10 == 0 else f"{tens}-{_ONES[n % 10]}"


def operands(rng: random.Random) -> tuple[int, str, int]:
    op = rng.choices("+-*", (5, 5, 3))[0]
    if op == "*":
        return rng.randint(0, 12), op, rng.randint(0, 12)
    top = 99 if rng.random() < 0.85 else 20
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-" and a < b and rng.random() < 0.8:
        a, b = b, a
    return a, op, b


def result(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b


def too_hard(rng: random.Random) -> tuple[str, str]:
    big = str(rng.randint(1000, 99999))
    other = str(rng.randint(2, 99999))
    expr = rng.choice(_HARD).format(big=big, other=other, two=big[:2], few=other[:2], one=other[:1])
    ask = case(rng, rng.choice(_ASKS[:20]).format(e=expr))
    return ask, "I can only do small sums: plus and minus up to 99, and the times tables up to 12."


def question(rng: random.Random, a: int, op: str, b: int) -> str:
    left, right = str(a), str(b)
    if rng.random() < 0.15:
        left, right = spell(a), spell(b)
    if rng.random() < 0.75:
        ask = rng.choice(_ASKS).format(e=left + rng.choice(_SIGNS[op]) + right)
    else:
        named = rng.choice(_NAMED[op]).format(a=left, b=right)
        plain = named.startswith(("the ", str(a), str(b)))
        leads = ("what is {e}", "calculate {e}", "{e}", "tell me {e}")
        ask = rng.choice(leads).format(e=named) if plain else named
    return case(rng, ask)


def pair(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.03:
        return too_hard(rng)
    a, op, b = operands(rng)
    return question(rng, a, op, b), f"{a} {op} {b} = {result(a, op, b)}"


def worked(rng: random.Random) -> tuple[str, str]:
    """A sum with its steps: tens and ones apart are far easier to learn."""
    if rng.random() < 0.03:
        return too_hard(rng)
    a, op, b = operands(rng)
    steps = f"{a} {op} {b}"
    if op == "+" and a >= 10 and b >= 10:
        steps += f" = {a // 10 * 10 + b // 10 * 10} + {a % 10 + b % 10}"
    if op == "-" and a >= b >= 10 and b % 10:
        steps += f" = {a - b // 10 * 10} - {b % 10}"
    return question(rng, a, op, b), f"{steps} = {result(a, op, b)}"
