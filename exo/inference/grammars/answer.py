"""The grammar of a whole answer: thoughts first, then a form, calls, or text with calls: pure."""

from dataclasses import dataclass

from exo.inference.grammars.calls import Rules
from exo.inference.grammars.text import Specials, form_rule, grammar_of, literal, until
from exo.inference.types import Format


@dataclass(frozen=True)
class Thinking:
    """The marks around a thought, and whether the prompt ends within one; if not, the model may
    begin with one."""

    marks: tuple[str, str]
    begun: bool


@dataclass(frozen=True)
class Calling:
    """The rules of calls. Those that may come anywhere in a text begin behind their mark,
    `behind`; it is empty if calls are all that is to be said. With `single`, the first one is the
    end."""

    rules: Rules
    behind: str = ""
    single: bool = False


def answer_grammar(
    form: Format | None, calling: Calling | None, thinking: Thinking | None, specials: Specials
) -> str:
    """The grammar of an answer, empty if it may be anything."""
    if form is None and calling is None:
        return ""
    if form is not None and calling is None and thinking is None:
        return grammar_of(form)
    rules: dict[str, str] = {}
    before = "" if thinking is None else _thought(thinking, specials, rules)
    rules["answer"] = _answer(form, calling, specials, rules)
    lines = [f"start: {before}answer", *(f"{name}: {body}" for name, body in rules.items())]
    return "\n".join(lines)


def _thought(thinking: Thinking, specials: Specials, rules: dict[str, str]) -> str:
    begin, end = thinking.marks
    rules["thought"] = until("thinking", end, specials, rules)
    rules["gap"] = "/\\n{0,3}/"
    if thinking.begun:
        return "thought gap "
    return f"({literal(begin, specials)} thought gap)? "


def _answer(
    form: Format | None, calling: Calling | None, specials: Specials, rules: dict[str, str]
) -> str:
    if form is not None:
        rules["form"] = form_rule(form)
    if calling is None:
        return "form"
    rules |= calling.rules.rules
    calls = calling.rules.start
    if not calling.behind:
        return calls if form is None else f"form | {calls}"
    before = until("saying", calling.behind, specials, rules)
    rules["text"] = "/(?s:.*)/"
    return f"{before} {calls} | text" if calling.single else f"({before} {calls})* text"
