"""How a model is shown tools and thoughts, and how it marks its own: by its chat template and
mlx-lm's parsers."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import jinja2
import jinja2.meta

from exo.errors import RequestError
from exo.inference.grammars.answer import Calling, Thinking, answer_grammar
from exo.inference.grammars.calls import SHAPES, Shape, call_rules
from exo.inference.grammars.channels import channel_grammar
from exo.inference.grammars.text import Specials
from exo.inference.mlx.adapter import TokenizerWrapper
from exo.inference.speech.channels import MARKS
from exo.inference.speech.speech import Call, NotACallError, Speech, Style, Tools
from exo.inference.types import Format, GenerateRequest, ToolUse

Parser = Callable[[str, Any], Any]
# Marks for training, which transformers adds to the language of templates.
_TRAINING = re.compile(r"{%-?\s*(end)?generation\s*-?%}")
# What a parser of someone else's raises over what a model says.
_NO_CALL = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
# What Llama 3's template says of calls, and a text that is none.
_BARE = ('{"name": ', '"parameters": ')
_NO_OBJECT = Format(kind="regex", text=r"([^{\s](?s:.*))?")
_SWITCHES = ("enable_thinking", "thinking")


class Dialect:
    """What one model's template and tokens allow."""

    def __init__(self, tokenizer: TokenizerWrapper, specials: Callable[[], Specials]) -> None:
        """`specials` gives the tokens that no text spells, once they are known."""
        self._tokenizer = tokenizer
        self._specials = specials
        template = getattr(tokenizer, "chat_template", None)
        self._template = template if isinstance(template, str) else ""
        begin, end = tokenizer.think_start, tokenizer.think_end
        self._think = (begin, end) if begin and end else None
        self._style: Style = _style(tokenizer, self._template)

    @cached_property
    def _variables(self) -> frozenset[str]:
        """What the template asks for beside the messages."""
        environment = jinja2.Environment(  # noqa: S701  it is only read
            extensions=["jinja2.ext.loopcontrols"]
        )
        template = _TRAINING.sub("", self._template)
        try:
            return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(template)))
        except jinja2.TemplateError:
            return frozenset()

    def variables(self, request: GenerateRequest) -> dict[str, Any]:
        """What the template is given beside the messages.

        Raises:
            RequestError: it would not look at it.
        """
        given = dict(request.template)
        for name in given:
            if name not in self._variables:
                raise RequestError(
                    f"This model's chat template has no variable '{name}'.",
                    param="enable_thinking" if name in _SWITCHES else "chat_template_kwargs",
                )
        if request.effort is not None:
            given |= self._effort(request.effort)
        if request.tool_use is not None:
            if not self._knows_tools:
                raise RequestError("This model does not know how to call tools.", param="tools")
            given["tools"] = request.tool_use.tools
        return given

    @property
    def _knows_tools(self) -> bool:
        if self._style == "marks":
            return self._tokenizer.has_tool_calling
        return "tools" in self._variables

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages as the template knows them."""
        return [_with_thinking(m) if self._style == "channels" else m for m in messages]

    def _effort(self, effort: str) -> dict[str, Any]:
        switch = next((name for name in _SWITCHES if name in self._variables), None)
        levels = "reasoning_effort" in self._variables
        if effort == "none":
            if switch is None and (levels or self._think is not None):
                raise RequestError(
                    "This model cannot be kept from thinking.", param="reasoning_effort"
                )
            return {} if switch is None else {switch: False}
        if self._think is None and not levels:
            raise RequestError("This model does not think.", param="reasoning_effort")
        found: dict[str, Any] = {} if switch is None else {switch: True}
        return found | ({"reasoning_effort": effort} if levels else {})

    # How an answer is read, and what it may be.

    @property
    def thinks(self) -> bool:
        """Whether thoughts are marked at all."""
        return self._think is not None or self._style == "channels"

    def speech(self, request: GenerateRequest, opening: Sequence[int]) -> Speech:
        """How the text of an answer is to be taken apart, of which the prompt holds the opening."""
        use = request.tool_use
        tools = None
        if use is not None:
            tools = Tools(
                begin=self._tokenizer.tool_call_start or "",
                end=self._tokenizer.tool_call_end or "",
                parse=lambda text: _calls(self._parser, text, use),
                json=self._kind == "json_tools",
                single=not use.parallel,
                names=frozenset(tool["function"]["name"] for tool in use.tools),
            )
        if self._style == "channels":
            begun = self._tokenizer.decode(list(opening))
            return Speech(tools=tools, style="channels", begun=begun)
        style = self._style if tools is not None else "marks"
        return Speech(self._think, self._begun(opening), tools, style)

    def grammar(self, request: GenerateRequest, speech: Speech) -> str:
        """What an answer may be, empty if anything.

        Raises:
            RequestError: what is asked cannot be enforced for this model.
        """
        use, form = request.tool_use, request.format
        calling = None if use is None else self._calling(use, answers=form is not None)
        if form is None and calling is None:
            return ""
        free = form is None and not (use and use.required)
        if self._style == "channels":
            rules = calling.rules if calling else None
            return channel_grammar(
                form, rules, free=free, begun=speech.begun, specials=self._specials()
            )
        if self._style == "bare" and free:
            form = _NO_OBJECT
        thinking = None
        if speech.think is not None and (speech.thinking or self._may_think(request)):
            thinking = Thinking(speech.think, speech.thinking)
        return answer_grammar(form, calling, thinking, self._specials())

    def _calling(self, use: ToolUse, *, answers: bool) -> Calling | None:
        """`answers`: something else may be said as well, that has a form."""
        strict = any(tool["function"].get("strict") is True for tool in use.tools)
        if not (use.required or strict or answers):
            return None
        shape, specials = self._shape(use), self._specials()
        if use.required or answers or self._style != "marks":
            # In channels, a call is an answer's end; Llama's template takes one for each message.
            parallel = use.parallel and self._style == "marks"
            return Calling(call_rules(shape, use.tools, specials, parallel=parallel))
        begin = self._tokenizer.tool_call_start or ""
        rules = call_rules(shape, use.tools, specials, parallel=use.parallel, behind=begin)
        return Calling(rules, behind=begin, single=not use.parallel)

    def _shape(self, use: ToolUse) -> Shape:
        kind = self._kind
        if kind == "mistral" and "[ARGS]" not in self._template:
            kind = "mistral list"
        shape = SHAPES.get(kind)
        if shape is None:
            raise RequestError(
                f"Calls of this model's kind ({kind}) cannot be enforced.",
                hint="Leave tool_choice at 'auto', and functions not strict.",
                param="tool_choice" if use.required else "tools",
            )
        return shape

    @property
    def _kind(self) -> str:
        if self._style != "marks":
            return self._style
        found = getattr(self._tokenizer, "init_kwargs", {})
        return str(cast("Mapping[str, Any]", found).get("tool_parser_type", ""))

    @property
    def _parser(self) -> Parser:
        return cast("Parser", self._tokenizer.tool_parser)

    def _begun(self, opening: Sequence[int]) -> bool:
        """Whether it ends within a thought."""
        tokens = list(opening)
        if self._think is None or not tokens:
            return False
        begin = self._tokenizer.rfind_think_start(tokens)
        return begin >= 0 and begin > self._tokenizer.rfind_think_end(tokens)

    def _may_think(self, request: GenerateRequest) -> bool:
        """Whether the model may begin with a thought that the prompt has not begun."""
        if request.effort == "none":
            return False
        return all(request.template.get(switch) is not False for switch in _SWITCHES)


def _style(tokenizer: TokenizerWrapper, template: str) -> Style:
    """How a model speaks that mlx-lm has no parser for: harmony by its tokens, Llama 3 by what its
    template shows of calls."""
    known = tokenizer.get_vocab()
    if all(mark in known for mark in MARKS):
        return "channels"
    if not tokenizer.has_tool_calling and all(sign in template for sign in _BARE):
        return "bare"
    return "marks"


def _with_thinking(message: dict[str, Any]) -> dict[str, Any]:
    """What was thought by the name that harmony's template has for it. It takes no text beside
    that with a call, and shows one as a thought."""
    thought = message.get("reasoning_content")
    if not thought:
        return message
    said = message.get("content")
    if message.get("tool_calls") and said:
        return {**message, "thinking": f"{thought}\n{said}", "content": ""}
    return {**message, "thinking": thought}


def _calls(parse: Parser, text: str, use: ToolUse) -> list[Call]:
    try:
        found = parse(text, use.tools)
    except _NO_CALL as error:
        raise NotACallError from error
    each = cast("list[Any]", found if isinstance(found, list) else [found])
    return [_call(one) for one in each]


def _call(found: Any) -> Call:
    call = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict | str):
        raise NotACallError
    if isinstance(arguments, str):
        return Call(name, arguments)
    return Call(name, json.dumps(arguments, ensure_ascii=False))
