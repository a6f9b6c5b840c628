"""Decides whether an answer is right."""

from __future__ import annotations

import json
import re
from typing import Any

_ADMITS = re.compile(r"do not know|don't know|cannot|can only|can't", re.IGNORECASE)
_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>\s*$", re.DOTALL)


def _all(answer: str, judge: dict[str, Any]) -> bool:
    return all(part.lower() in answer.lower() for part in judge["of"])


def _any(answer: str, judge: dict[str, Any]) -> bool:
    return any(part.lower() in answer.lower() for part in judge["of"])


def _regex(answer: str, judge: dict[str, Any]) -> bool:
    return re.search(judge["pattern"], answer, re.IGNORECASE) is not None


def _equals(answer: str, judge: dict[str, Any]) -> bool:
    return bool(answer.strip() == judge["text"])


def _number(answer: str, judge: dict[str, Any]) -> bool:
    numbers = re.findall(r"-?\d+", answer)
    return bool(numbers) and int(numbers[-1]) == judge["value"]


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _same(left: Any, right: Any) -> bool:
    # JSON text tells true from 1, Python's == does not.
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def _json(answer: str, judge: dict[str, Any]) -> bool:
    return _same(_loads(answer), judge["value"])


def _call(answer: str, judge: dict[str, Any]) -> bool:
    found = _CALL.match(answer)
    wanted = {"name": judge["name"], "arguments": judge["arguments"]}
    return found is not None and _same(_loads(found.group(1)), wanted)


def _repeats(answer: str, judge: dict[str, Any]) -> bool:
    # The answer is cut at a token, so the last word may be a part of the word.
    words = answer.split()
    return (
        len(words) > 3
        and all(w == judge["word"] for w in words[:-1])
        and judge["word"].startswith(words[-1])
    )


def _unknown(answer: str, _: dict[str, Any]) -> bool:
    return _ADMITS.search(answer) is not None


JUDGES = {
    "all": _all, "any": _any, "regex": _regex, "equals": _equals, "number": _number,
    "json": _json, "call": _call, "repeats": _repeats, "unknown": _unknown,
}  # fmt: skip


def right(answer: str, judge: dict[str, Any]) -> bool:
    return JUDGES[judge["kind"]](answer, judge)
