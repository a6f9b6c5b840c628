"""Grammars as text, in llguidance's variant of Lark
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md): pure."""

import json
from typing import Any

from exo.inference.types import Format

# Between the parts of a JSON text: nothing, a space, or a new line with its indentation. Without a
# bound, a model may go on with spaces for ever.
_WHITESPACE = r" |\n[ \t]{0,40}"


def grammar_of(form: Format) -> str:
    """The grammar of everything that has this form."""
    match form.kind:
        case "json":
            return f"start: {json_rule(json.loads(form.text))}"
        case "regex":
            return f"start: {_pattern(form.text)}"
        case "choice":
            choices: list[str] = json.loads(form.text)
            return "start: " + " | ".join(quoted(choice) for choice in choices)
        case "lark":
            return form.text


def json_rule(schema: dict[str, Any]) -> str:
    """What stands in a rule for the JSON texts that a schema allows."""
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': _WHITESPACE}})}"


def quoted(text: str) -> str:
    """What stands in a rule for this text."""
    return json.dumps(text, ensure_ascii=False)


def _pattern(regex: str) -> str:
    """A regular expression between its slashes. A line break in it would end the rule."""
    escaped = regex.replace("\\/", "/").replace("/", "\\/").replace("\n", "\\n")
    return f"/{escaped}/"
