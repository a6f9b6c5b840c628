"""Grammars as text, in llguidance's variant of Lark
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md): pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from exo.inference.types import Format

# Texts that are one token each, which no text spells: what stands for them in a rule is the token.
Specials = Mapping[str, int]

# Between the parts of a JSON text: nothing, a space, or a new line with its indentation. Without a
# bound, a model may go on with spaces for ever.
_WHITESPACE = r" |\n[ \t]{0,40}"


def grammar_of(form: Format) -> str:
    """The grammar of everything that has this form."""
    if form.kind == "lark":
        return form.text
    return f"start: {form_rule(form)}"


def form_rule(form: Format) -> str:
    """What stands in a rule for everything that has this form."""
    match form.kind:
        case "json":
            return json_rule(json.loads(form.text))
        case "regex":
            return pattern(form.text)
        case "choice":
            choices: list[str] = json.loads(form.text)
            return "(" + " | ".join(literal(choice, {}) for choice in choices) + ")"
        case "lark":
            return f"%lark {{\n{form.text}\n}}"


def json_rule(schema: dict[str, Any], *, lenient: bool = False) -> str:
    """What stands in a rule for the JSON texts that a schema allows; `lenient`, as far as it can
    be enforced."""
    options: dict[str, Any] = {"whitespace_pattern": _WHITESPACE}
    if lenient:
        options["lenient"] = True
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def literal(text: str, specials: Specials) -> str:
    """What stands in a rule for this text, with the tokens that are in it."""
    found = [name for name in specials if name in text]
    if not found:
        return json.dumps(text, ensure_ascii=False)
    between = "|".join(re.escape(name) for name in sorted(found, key=len, reverse=True))
    parts = [part for part in re.split(f"({between})", text) if part]
    return " ".join(
        f"<[{specials[part]}]>" if part in specials else json.dumps(part, ensure_ascii=False)
        for part in parts
    )


def pattern(regex: str) -> str:
    """A regular expression between its slashes. A line break in it would end the rule."""
    escaped = regex.replace("\\/", "/").replace("/", "\\/").replace("\n", "\\n")
    return f"/{escaped}/"


def until(name: str, mark: str, specials: Specials, rules: dict[str, str]) -> str:
    """What stands in a rule for any text with this mark at its end and nowhere before; it may
    need a rule of its own, called `name`."""
    first = next((each for each in specials if mark.startswith(each)), None)
    if first is not None:
        return f"/(?s:.*)/ {literal(mark, specials)}"
    # A token that is in the mark cannot be in a regular expression; it ends the text all the same.
    inner = min((at for each in specials if (at := mark.find(each)) >= 0), default=len(mark))
    rules[f"{name}[lazy]"] = pattern("(?s:.*)" + re.escape(mark[:inner]).replace("\\\n", "\\n"))
    rest = mark[inner:]
    return f"{name} {literal(rest, specials)}" if rest else name
