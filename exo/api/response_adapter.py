"""Between OpenAI's responses and exo's one request type: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exo.api import chat_schema as chat
from exo.api.chat_format import json_form
from exo.api.chat_tools import tool_use_of
from exo.api.response_items import Item
from exo.api.response_messages import to_messages
from exo.api.response_schema import (
    AllowedFunctions,
    CountedRequest,
    FunctionTool,
    NamedChoice,
    ResponseRequest,
    TextSchemaFormat,
)
from exo.api.response_views import ReasoningView, ResponseView, TextView, ToolView
from exo.api.sampling import sampling_of
from exo.inference.types import Format, GenerateRequest, ToolUse
from exo.models.card import ModelCard


@dataclass(frozen=True)
class _Tooled:
    """What is said of tools, in the words of chats."""

    tools: list[chat.Tool]
    tool_choice: chat.ToolChoice | None
    parallel_tool_calls: bool | None


def check(body: CountedRequest) -> None:
    """Raises:
    RequestError: something is wrong with the request, whatever the model and the items.
    """
    _format(body)
    _tool_use(body)


def to_generate(
    body: ResponseRequest, items: Sequence[Item], card: ModelCard, request_id: str
) -> GenerateRequest:
    """What the engine is asked, about all these items.

    Raises:
        RequestError: a field does not fit this model, or the items do not go together.
    """
    return to_count(body, items, request_id).model_copy(
        update={
            "dry": False,
            "sampling": sampling_of(body, card),
            "max_tokens": body.max_output_tokens,
            "logprobs": body.logprobs,
            "use_prefix_cache": body.use_prefix_cache,
        }
    )


def to_count(body: CountedRequest, items: Sequence[Item], request_id: str) -> GenerateRequest:
    """What the engine is asked where only tokens are counted.

    Raises:
        RequestError: the items do not go together.
    """
    return GenerateRequest(
        request_id=request_id,
        messages=to_messages(body.instructions, items),
        format=_format(body),
        tool_use=_tool_use(body),
        effort=body.reasoning.effort if body.reasoning else None,
        dry=True,
    )


def _format(body: CountedRequest) -> Format | None:
    match body.text.format if body.text else None:
        case TextSchemaFormat(schema_=schema):
            return json_form(schema, "text.format.schema")
        case chat.ObjectFormat():
            return json_form({"type": "object"}, "text.format")
        case _:
            return None


def _tool_use(body: CountedRequest) -> ToolUse | None:
    tooled = _Tooled(
        tools=[_tool(tool) for tool in body.tools or ()],
        tool_choice=_choice(body),
        parallel_tool_calls=body.parallel_tool_calls,
    )
    return tool_use_of(tooled, schema="parameters")


def _tool(tool: FunctionTool) -> chat.Tool:
    function = chat.Function(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )
    return chat.Tool(type="function", function=function)


def _choice(body: CountedRequest) -> chat.ToolChoice | None:
    match body.tool_choice:
        case NamedChoice() as named:
            return _named(named)
        case AllowedFunctions(mode=mode, tools=tools):
            allowed = chat.AllowedTools(mode=mode, tools=[_named(tool) for tool in tools])
            return chat.AllowedChoice(type="allowed_tools", allowed_tools=allowed)
        case choice:
            return choice


def _named(choice: NamedChoice) -> chat.NamedTool:
    return chat.NamedTool(type="function", function=chat.FunctionName(name=choice.name))


def begun(body: ResponseRequest, asked: GenerateRequest, model: str, created: int) -> ResponseView:
    """The response before anything of it has come; `created` in seconds since the epoch."""
    choice = body.tool_choice or "auto"
    reasoning = body.reasoning
    return ResponseView(
        id=asked.request_id,
        created_at=created,
        status="in_progress",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=ReasoningView(effort=reasoning.effort, summary=reasoning.summary)
        if reasoning
        else ReasoningView(),
        safety_identifier=body.safety_identifier,
        temperature=asked.sampling.temperature,
        text=TextView(format=_format_view(body)),
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        tools=[_tool_view(tool) for tool in body.tools or ()],
        top_logprobs=body.top_logprobs or 0,
        top_p=asked.sampling.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
    )


def _format_view(body: ResponseRequest) -> dict[str, Any]:
    wanted = body.text.format if body.text else None
    return wanted.model_dump(by_alias=True) if wanted else {"type": "text"}


def _tool_view(tool: FunctionTool) -> ToolView:
    return ToolView(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )
