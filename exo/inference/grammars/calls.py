"""Grammars of tool calls, in the words of a model's family: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from exo.errors import RequestError
from exo.inference.grammars.schema import check_schema
from exo.inference.grammars.text import Specials, json_rule, literal, until

# A model that need not stop would go on calling.
MOST_CALLS = 32
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# What a schema of arguments may say where each argument is written by itself.
_SIMPLE = frozenset(
    {"type", "properties", "required", "additionalProperties", "$defs", "definitions"}
    | {"description", "title", "$schema", "$id", "default", "examples"}
)
# What it may say of one that is written as it is, not as JSON.
_RAW = frozenset({"type", "description", "title", "default", "examples", "enum", "const"})


@dataclass(frozen=True)
class Fields:
    """How arguments are written one by one: the texts around each, with its `{key}` in the first,
    and around all of them; strings stand there `raw`, or else as JSON. `between` is what separates
    them."""

    before: str
    after: str
    raw: bool
    between: str = ""


@dataclass(frozen=True)
class Shape:
    """How a call is written: the texts around its arguments, with its `{name}` in the first; those
    are one JSON object, or `fields`. `between` comes between two calls, `first` before all and
    `last` behind all."""

    before: str
    after: str
    between: str = ""
    first: str = ""
    last: str = ""
    fields: Fields | None = None


SHAPES: Mapping[str, Shape] = {
    "channels": Shape("<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>", ""),
    "bare": Shape('{"name": "{name}", "parameters": ', "}"),
    "json_tools": Shape(
        '<tool_call>\n{"name": "{name}", "arguments": ', "}\n</tool_call>", between="\n"
    ),
    "mistral": Shape("[TOOL_CALLS]{name}[ARGS]", ""),
    "mistral list": Shape(
        '{"name": "{name}", "arguments": ', "}", between=", ", first="[TOOL_CALLS][", last="]"
    ),
    "qwen3_coder": Shape(
        "<tool_call>\n<function={name}>\n",
        "</function>\n</tool_call>",
        between="\n",
        fields=Fields("<parameter={key}>\n", "\n</parameter>\n", raw=True),
    ),
    "glm47": Shape(
        "<tool_call>{name}\n",
        "</tool_call>",
        between="\n",
        fields=Fields("<arg_key>{key}</arg_key>\n<arg_value>", "</arg_value>\n", raw=True),
    ),
    "pythonic": Shape(
        "{name}(",
        ")",
        between=", ",
        first="<|tool_call_start|>[",
        last="]<|tool_call_end|>",
        fields=Fields("{key}=", "", raw=False, between=", "),
    ),
}


@dataclass(frozen=True)
class Rules:
    """Rules by their names, and the one to begin with."""

    start: str
    rules: dict[str, str]


def call_rules(
    shape: Shape,
    tools: Sequence[Mapping[str, Any]],
    specials: Specials,
    *,
    parallel: bool = False,
    behind: str = "",
) -> Rules:
    """The grammar of one call of these tools, or of several in a row; `behind` a text that begins
    them, and has come already.

    Raises:
        RequestError: the parameters of a tool cannot be enforced; it names the tool.
    """
    rules: dict[str, str] = {}
    if behind and shape.first:
        shape = replace(shape, first=shape.first.removeprefix(behind))
    elif behind:
        # Whatever begins a call begins another one.
        shape, parallel = replace(shape, before=shape.before.removeprefix(behind)), False
    for number, tool in enumerate(tools):
        _call(f"call_{number}", shape, tool["function"], specials, rules)
    rules["call"] = " | ".join(f"call_{number}" for number in range(len(tools)))
    more = ""
    if parallel:
        between = literal(shape.between, specials)
        more = f" ({between} call){{0,{MOST_CALLS - 1}}}"
    first, last = literal(shape.first, specials), literal(shape.last, specials)
    rules["calls"] = f"{first} call{more} {last}"
    return Rules("calls", rules)


def _call(
    name: str,
    shape: Shape,
    function: Mapping[str, Any],
    specials: Specials,
    rules: dict[str, str],
) -> None:
    strict = function.get("strict") is True
    schema = cast("dict[str, Any]", function.get("parameters") or _NO_ARGUMENTS)
    check_schema(schema, f"tools.{function['name']}.parameters")
    before = literal(shape.before.replace("{name}", function["name"]), specials)
    after = literal(shape.after, specials)
    if shape.fields is None:
        schema = {"type": "object", **schema}
        arguments = json_rule(schema, lenient=not strict)
    else:
        arguments = f"{name}_arguments"
        _arguments(arguments, shape.fields, function, schema, specials, rules)
    rules[name] = f"{before} {arguments} {after}"


def _arguments(
    name: str,
    fields: Fields,
    function: Mapping[str, Any],
    schema: dict[str, Any],
    specials: Specials,
    rules: dict[str, str],
) -> None:
    """One argument after the other, in the order of the schema."""
    strict = function.get("strict") is True
    if strict and not _SIMPLE.issuperset(schema):
        raise RequestError(
            f"The parameters of '{function['name']}' cannot be enforced for this model, whose "
            f"calls are no JSON: {', '.join(sorted(set(schema) - _SIMPLE))}.",
            param="tools",
        )
    properties = cast("dict[str, Any]", schema.get("properties") or {})
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required = cast("list[str]", schema.get("required") or [])
    parts: list[tuple[str, bool]] = []
    for number, (key, value) in enumerate(properties.items()):
        part = f"{name}_{number}"
        before = literal(fields.before.replace("{key}", key), specials)
        if fields.raw and _is_text(value):
            inside = _raw(part, function, value, fields.after, strict, specials, rules)
        else:
            held: dict[str, Any] = {**shared, **_schema(value)}
            inside = f"{json_rule(held, lenient=not strict)} {literal(fields.after, specials)}"
        rules[part] = f"{before} {inside}"
        parts.append((part, key in required))
    rules[name] = _listed(name, parts, literal(fields.between, specials), rules)


def _is_text(value: Any) -> bool:
    if not isinstance(value, dict):
        return True
    schema = cast("dict[str, Any]", value)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return schema.get("type", "string") == "string" and all(isinstance(v, str) for v in values)


def _schema(value: Any) -> dict[str, Any]:
    """A schema that may be written as `true`."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _raw(
    name: str,
    function: Mapping[str, Any],
    value: Any,
    after: str,
    strict: bool,
    specials: Specials,
    rules: dict[str, str],
) -> str:
    """A text as it is, up to the mark behind it."""
    schema = _schema(value)
    if strict and not _RAW.issuperset(schema):
        raise RequestError(
            f"The parameters of '{function['name']}' cannot be enforced for this model, whose "
            f"calls hold texts as they are: {', '.join(sorted(set(schema) - _RAW))}.",
            param="tools",
        )
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        options = " | ".join(literal(str(choice), {}) for choice in choices)
        return f"({options}) {literal(after, specials)}"
    return until(f"{name}_text", after, specials, rules)


def _listed(
    name: str, parts: Sequence[tuple[str, bool]], between: str, rules: dict[str, str]
) -> str:
    """Parts in this order, those that are not required perhaps left out, with something between
    any two that are there."""
    if between in {"", '""'}:
        return " ".join(part if needed else f"{part}?" for part, needed in parts) or '""'
    # By how many parts are left: with something before, and at the beginning.
    after, first = '""', '""'
    for number in range(len(parts) - 1, -1, -1):
        part, needed = parts[number]
        rest = f"{name}_after_{number}"
        rules[rest] = after
        skip = "" if needed else f" | {first}"
        go_on = "" if needed else f" | {rest}"
        first = f"({part} {rest}){skip}" if skip else f"{part} {rest}"
        after = f"({between} {part} {rest}){go_on}"
    return first
