"""The grammar of an answer in channels (OpenAI's harmony format): pure."""

from exo.inference.grammars.calls import Rules
from exo.inference.grammars.text import Specials, form_rule, literal
from exo.inference.types import Format

_NEXT = "<|end|><|start|>assistant"
_THOUGHT = "<|channel|>analysis<|message|>"
_SAYING = "<|channel|>commentary<|message|>"
_FINAL = "<|channel|>final<|message|>"
# No text has a mark in it.
_ANY = "/(?s:.*)/"


def channel_grammar(
    form: Format | None, calls: Rules | None, *, free: bool, begun: str, specials: Specials
) -> str:
    """What an answer may be: perhaps a thought, then a call, a text of that form, or if it is
    `free` any text, and something to say before a call. `begun` is what the prompt has of it."""
    rules: dict[str, str] = {}
    ways: list[str] = []
    if form is not None:
        rules["form"] = form_rule(form)
    text = "form" if form is not None else _ANY
    if form is not None or free:
        ways.append(f"{literal(_FINAL, specials)} {text}")
    if calls is not None:
        rules |= calls.rules
        ways.append(calls.start)
    rules["answer"] = " | ".join(ways)
    following = literal(_NEXT, specials)
    rules["thought"] = f"{literal(_THOUGHT, specials)} {_ANY} {following}"
    start = "thought? answer"
    if free:
        rules["saying"] = f"{literal(_SAYING, specials)} {_ANY} {following}"
        start = "thought? saying? answer"
    if _FINAL in begun:
        start = text
    elif _THOUGHT in begun:
        start = f"{_ANY} {following} {start.removeprefix('thought? ')}"
    return "\n".join([f"start: {start}", *(f"{name}: {body}" for name, body in rules.items())])
