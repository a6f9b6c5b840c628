"""Which tools a client lets the model call, as the engine is asked for it: pure."""

from collections.abc import Sequence
from typing import Protocol

from exo.api.chat_schema import AllowedChoice, NamedTool, Tool, ToolChoice
from exo.errors import RequestError
from exo.inference.grammars.schema import check_schema
from exo.inference.types import ToolUse


class Tooled(Protocol):
    """What a request says of tools."""

    @property
    def tools(self) -> Sequence[Tool] | None: ...
    @property
    def tool_choice(self) -> ToolChoice | None: ...
    @property
    def parallel_tool_calls(self) -> bool | None: ...


def tool_use_of(body: Tooled, schema: str = "function.parameters") -> ToolUse | None:
    """The tools that may be called, None if none may be. Those that may not be called are not
    shown to the model either. `schema` is where the client's tools have their parameters.

    Raises:
        RequestError: a choice names a tool that is not there, two have one name, or the parameters
            of a strict one cannot be enforced.
    """
    tools = {tool.function.name: tool for tool in body.tools or ()}
    if len(tools) < len(body.tools or ()):
        raise RequestError("Two tools have the same name.", param="tools")
    for number, tool in enumerate(tools.values()):
        if tool.function.strict:
            check_schema(tool.function.parameters or {}, f"tools.{number}.{schema}")
    if not tools or body.tool_choice == "none":
        return None
    names = list(tools)
    required = body.tool_choice == "required"
    match body.tool_choice:
        case NamedTool(function=function):
            names, required = [function.name], True
        case AllowedChoice(allowed_tools=allowed):
            names = [tool.function.name for tool in allowed.tools]
            required = allowed.mode == "required"
        case _:
            pass
    unknown = next((name for name in names if name not in tools), None)
    if unknown is not None:
        raise RequestError(f"There is no tool called '{unknown}'.", param="tool_choice")
    shown = [_plain(tool) for name, tool in tools.items() if name in names]
    return ToolUse(tools=shown, required=required, parallel=_parallel(body))


def _parallel(body: Tooled) -> bool:
    # One function that has to be called is called once.
    if isinstance(body.tool_choice, NamedTool):
        return False
    return body.parallel_tool_calls is not False


def _plain(tool: Tool) -> dict[str, object]:
    """As chat templates know it: what was not said is left out."""
    return tool.model_dump(exclude_none=True)
