"""Which tools the fields about tools let the model call."""

from typing import Any

import pytest

from exo.api.chat_schema import MAX_TOOLS, ChatRequest
from exo.api.chat_tools import tool_use_of
from exo.api.routes import validate
from exo.api.unsupported import without_unsupported
from exo.errors import RequestError
from exo.inference.types import ToolUse


def tool(name: str, **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def use(**fields: Any) -> ToolUse | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return tool_use_of(validate(ChatRequest, without_unsupported(body)))


TOOLS = [tool("a", description="A.", parameters={"type": "object"}), tool("b"), tool("c")]


def test_no_tools():
    assert use() is None
    assert use(tools=[]) is None
    assert use(tools=None, tool_choice=None) is None
    assert use(tools=[], tool_choice="auto") is None
    assert use(tools=TOOLS, tool_choice="none") is None


@pytest.mark.parametrize(
    ("choice", "names", "required", "parallel"),
    [
        (None, "abc", False, True),
        ("auto", "abc", False, True),
        ("required", "abc", True, True),
        (named("b"), "b", True, False),
        (allowed("auto", "c", "a"), "ac", False, True),
        (allowed("required", "b"), "b", True, True),
    ],
)
def test_a_choice(choice: Any, names: str, required: bool, parallel: bool):
    found = use(tools=TOOLS, tool_choice=choice)
    assert found is not None
    assert "".join(each["function"]["name"] for each in found.tools) == names
    assert (found.required, found.parallel) == (required, parallel)


def test_one_call_at_a_time():
    for value, parallel in ((None, True), (True, True), (False, False)):
        found = use(tools=TOOLS, parallel_tool_calls=value)
        assert found is not None
        assert found.parallel is parallel


def test_templates_see_what_was_said():
    found = use(tools=TOOLS)
    assert found is not None
    assert found.tools == TOOLS


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "a"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [tool("a b")]}, "tools"),
        ({"tools": [tool("x" * 65)]}, "tools"),
        ({"tools": [tool("a", parameters=[])]}, "tools"),
        ({"tools": [tool("a", strict="yes")]}, "tools"),
        ({"tools": [tool("a", more=1)]}, "tools"),
        ({"tools": [tool("a"), tool("a")]}, "tools"),
        ({"tools": [tool(f"n{n}") for n in range(MAX_TOOLS + 1)]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools"),
        ({"tools": [tool("a", strict=True, parameters={"multipleOf": 10**9})]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("d")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "a", "d")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("none", "a")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": named("a")}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str):
    with pytest.raises(RequestError) as caught:
        use(**fields)
    assert (caught.value.param or "").split(".")[0] == param
