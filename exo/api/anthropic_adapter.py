"""Between Anthropic's messages and exo's one request type: pure."""

import json
import secrets
from collections.abc import Sequence
from typing import Any, cast

from exo.api.answers import Collected
from exo.api.anthropic_schema import (
    AnyChoice,
    AssistantTurn,
    CountRequest,
    MessagesRequest,
    MessageUsage,
    OneChoice,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolSchema,
    ToolUseBlock,
    Turn,
    UserTurn,
)
from exo.api.sampling import sampling_of, stops_of
from exo.errors import RequestError, UnsupportedField
from exo.inference.grammars.schema import check_schema
from exo.inference.types import FinishReason, Format, GenerateRequest, Stats, ToolUse
from exo.models.card import ModelCard

_UNREAD = frozenset({"image", "document", "search_result", "redacted_thinking"})
_SCHEMA = "output_config.format.schema"


class _Drawing:
    """Anthropic's fields about drawing, with those that it does not have."""

    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None

    def __init__(self, body: MessagesRequest) -> None:
        self.temperature = body.temperature
        self.top_p = body.top_p
        self.top_k = body.top_k


def supported(body: dict[str, Any]) -> dict[str, Any]:
    """The body, if it holds no kind of content that models cannot read.

    Raises:
        UnsupportedField: it does.
    """
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and cast("dict[str, Any]", thinking).get("type") == "enabled":
        raise UnsupportedField(
            "A budget of thoughts cannot be kept.",
            hint='Use {"type": "adaptive"}, and max_tokens for a limit.',
            param="thinking",
        )
    for block in _blocks(body.get("messages")):
        kind = block.get("type")
        if isinstance(kind, str) and kind in _UNREAD:
            raise UnsupportedField(
                f"This model reads text only, not '{kind}' blocks.", param="messages"
            )
    return body


def check(body: CountRequest) -> None:
    """Raises:
    RequestError: something is wrong with the request, whatever the model.
    """
    _format(body)
    _tool_use(body)
    if isinstance(body, MessagesRequest):
        _stops(body)
    to_messages(body.system, body.messages)


def to_generate(body: MessagesRequest, card: ModelCard, request_id: str) -> GenerateRequest:
    """What the engine is asked.

    Raises:
        RequestError: a field does not fit this model.
    """
    return to_count(body, request_id).model_copy(
        update={
            "dry": False,
            "sampling": sampling_of(_Drawing(body), card),
            "max_tokens": body.max_tokens,
            "stop": _stops(body),
        }
    )


def to_count(body: CountRequest, request_id: str) -> GenerateRequest:
    """What the engine is asked where only tokens are counted."""
    return GenerateRequest(
        request_id=request_id,
        messages=to_messages(body.system, body.messages),
        format=_format(body),
        tool_use=_tool_use(body),
        effort=_effort(body),
        continues=body.messages[-1].role == "assistant",
        dry=True,
    )


def _effort(body: CountRequest) -> str | None:
    if body.thinking is not None and body.thinking.type == "disabled":
        return "none"
    return body.output_config.effort if body.output_config else None


def _format(body: CountRequest) -> Format | None:
    wanted = body.output_config.format if body.output_config else None
    if wanted is None:
        return None
    check_schema(wanted.schema_, _SCHEMA)
    return Format(kind="json", text=json.dumps(wanted.schema_), param=_SCHEMA)


def _stops(body: MessagesRequest) -> list[str]:
    try:
        return stops_of(body.stop_sequences)
    except RequestError as error:
        raise RequestError(error.message, param="stop_sequences") from error


def _tool_use(body: CountRequest) -> ToolUse | None:
    tools = {tool.name: tool for tool in body.tools or ()}
    if len(tools) < len(body.tools or ()):
        raise RequestError("Two tools have the same name.", param="tools")
    for number, tool in enumerate(tools.values()):
        if tool.strict:
            check_schema(tool.input_schema, f"tools.{number}.input_schema")
    choice = body.tool_choice
    if not tools or (choice is not None and choice.type == "none"):
        return None
    parallel = not (isinstance(choice, AnyChoice | OneChoice) and choice.disable_parallel_tool_use)
    if isinstance(choice, OneChoice):
        if choice.name not in tools:
            raise RequestError(f"There is no tool called '{choice.name}'.", param="tool_choice")
        return ToolUse(tools=[_tool(tools[choice.name])], required=True, parallel=False)
    required = choice is not None and choice.type == "any"
    return ToolUse(
        tools=[_tool(tool) for tool in tools.values()], required=required, parallel=parallel
    )


def _tool(tool: ToolSchema) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


# Messages as chat templates know them.


def to_messages(
    system: str | Sequence[TextBlock] | None, turns: Sequence[Turn]
) -> list[dict[str, Any]]:
    """Raises:
    RequestError: a result is of no call of the turn before.
    """
    found: list[dict[str, Any]] = []
    if system:
        found.append({"role": "system", "content": _text(system)})
    asked: set[str] = set()
    for turn in turns:
        if isinstance(turn, UserTurn):
            found += _user(turn, asked)
            asked = set()
        else:
            message, asked = _assistant(turn)
            found.append(message)
    return found


def _user(turn: UserTurn, asked: set[str]) -> list[dict[str, Any]]:
    """The results of calls, then what is said."""
    if isinstance(turn.content, str):
        return [{"role": "user", "content": turn.content}]
    found: list[dict[str, Any]] = []
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            if block.tool_use_id not in asked:
                raise RequestError(
                    f"'{block.tool_use_id}' is no call of the turn before.", param="messages"
                )
            text = _text(block.content)
            content = f"Error: {text}" if block.is_error else text
            found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    said = [block for block in turn.content if isinstance(block, TextBlock)]
    return [*found, {"role": "user", "content": _text(said)}] if said else found


def _assistant(turn: AssistantTurn) -> tuple[dict[str, Any], set[str]]:
    if isinstance(turn.content, str):
        return {"role": "assistant", "content": turn.content}, set()
    said = [block for block in turn.content if isinstance(block, TextBlock)]
    message: dict[str, Any] = {"role": "assistant", "content": _text(said)}
    thought = [block.thinking for block in turn.content if isinstance(block, ThinkingBlock)]
    if thought:
        message["reasoning_content"] = "\n".join(thought)
    calls = [block for block in turn.content if isinstance(block, ToolUseBlock)]
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.input},
            }
            for call in calls
        ]
    return message, {call.id for call in calls}


def _text(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def _blocks(messages: object) -> list[dict[str, Any]]:
    """Every block of a body that is not validated yet."""
    found: list[dict[str, Any]] = []
    waiting = [messages]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += cast("list[object]", each)
        elif isinstance(each, dict):
            block = cast("dict[str, Any]", each)
            found.append(block)
            waiting.append(block.get("content"))
    return found


# Answers.

_REASONS: dict[FinishReason, StopReason] = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
}


def stop_reason(reason: FinishReason | None, stop: str | None) -> StopReason:
    """`stop` is the stop sequence that came, if one did."""
    if stop is not None:
        return "stop_sequence"
    return _REASONS[reason or FinishReason.STOP]


def tool_id() -> str:
    return f"toolu_{secrets.token_hex(12)}"


def content_of(answer: Collected) -> list[dict[str, Any]]:
    """A whole answer as blocks."""
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text, "citations": None})
    blocks += (
        {"type": "tool_use", "id": tool_id(), "name": call.name, "input": call.fields}
        for call in answer.calls
    )
    return blocks


def usage_of(stats: Stats) -> MessageUsage:
    return MessageUsage(
        input_tokens=stats.prompt_tokens - stats.cached_tokens,
        output_tokens=stats.generation_tokens,
        cache_read_input_tokens=stats.cached_tokens,
    )
