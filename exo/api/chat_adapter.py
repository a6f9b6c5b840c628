"""Between OpenAI's chat objects and exo's one request type: pure."""

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from exo.api.answers import Collected
from exo.api.chat_format import format_of
from exo.api.chat_schema import (
    AssistantMessage,
    ChatRequest,
    Message,
    RefusalPart,
    TextPart,
    ToolMessage,
)
from exo.api.chat_tools import tool_use_of
from exo.api.chat_views import (
    AnswerView,
    FunctionDeltaView,
    FunctionView,
    GenerationStats,
    LogprobsView,
    TokenLogprobView,
    ToolCallDeltaView,
    ToolCallView,
    TopLogprobView,
)
from exo.api.sampling import sampling_of, stops_of
from exo.errors import RequestError
from exo.inference.types import GenerateRequest, Stats, TokenLogprob, ToolCall
from exo.models.card import ModelCard

_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


def check(body: ChatRequest) -> None:
    """Raises:
    RequestError: something is wrong with the request, whatever the model.
    """
    format_of(body)
    tool_use_of(body)
    _template(body)
    stops_of(body.stop)
    _calls_are_answered(body.messages)


def _calls_are_answered(messages: Sequence[Message]) -> None:
    """As templates have it: the result of a tool follows the call that it is of."""
    asked: set[str] = set()
    for number, message in enumerate(messages):
        match message:
            case AssistantMessage(tool_calls=calls):
                asked = {call.id for call in calls or ()}
            case ToolMessage(tool_call_id=name):
                if name not in asked:
                    raise RequestError(
                        f"Message {number} is the result of the call '{name}', which no message "
                        "before it asks for.",
                        param="messages",
                    )
            case _:
                asked = set()


def to_generate(body: ChatRequest, card: ModelCard, request_id: str) -> GenerateRequest:
    """What the engine is asked. What the client leaves out is the model's default, then OpenAI's.

    Raises:
        RequestError: a field does not fit this model.
    """
    return GenerateRequest(
        request_id=request_id,
        messages=to_messages(body.messages),
        sampling=sampling_of(body, card),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=stops_of(body.stop),
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        use_prefix_cache=body.use_prefix_cache,
        format=format_of(body),
        tool_use=tool_use_of(body),
        template=_template(body),
        effort=body.reasoning_effort,
        continues=_continues(body),
    )


def _template(body: ChatRequest) -> dict[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    if reserved := sorted(_RESERVED.intersection(given)):
        raise RequestError(f"'{reserved[0]}' is exo's own to set.", param="chat_template_kwargs")
    if body.enable_thinking is not None:
        given["enable_thinking"] = body.enable_thinking
    if body.reasoning_effort is not None and {"enable_thinking", "thinking"}.intersection(given):
        raise RequestError(
            "reasoning_effort and enable_thinking exclude each other.", param="reasoning_effort"
        )
    return given


def _continues(body: ChatRequest) -> bool:
    """Whether the answer goes on where the last message, if the assistant's, ends."""
    last = body.messages[-1].role == "assistant"
    return last and body.continue_final_message is not False


def to_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates know them.

    Raises:
        RequestError: one is the result of no call.
    """
    _calls_are_answered(messages)
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, Any]:
    """A message as chat templates know them: text content, and calls with parsed arguments."""
    role = "system" if message.role == "developer" else message.role
    refusal = getattr(message, "refusal", None)
    plain: dict[str, Any] = {"role": role, "content": _text(message.content) or refusal or ""}
    for field in ("name", "tool_call_id", "reasoning_content"):
        if value := getattr(message, field, None):
            plain[field] = value
    if calls := getattr(message, "tool_calls", None):
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": arguments_of(call.function.arguments),
                },
            }
            for call in calls
        ]
    return plain


def _text(content: str | Sequence[TextPart | RefusalPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def arguments_of(text: str) -> Any:
    """The arguments of a call, read if they can be."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def message_view(answer: Collected) -> AnswerView:
    """A whole answer as a message. One that only calls says nothing: null, not an empty text."""
    calls = [
        ToolCallView(id=call_id(), function=FunctionView(name=call.name, arguments=call.arguments))
        for call in answer.calls
    ]
    return AnswerView(
        content=answer.text if answer.text or not calls else None,
        reasoning_content=answer.reasoning or None,
        tool_calls=calls or None,
    )


def call_delta(call: ToolCall) -> ToolCallDeltaView:
    """A part of a call: its beginning has the id, the type and the name."""
    if call.name is None:
        return ToolCallDeltaView(
            index=call.index, function=FunctionDeltaView(arguments=call.arguments)
        )
    return ToolCallDeltaView(
        index=call.index,
        id=call_id(),
        type="function",
        function=FunctionDeltaView(name=call.name, arguments=call.arguments),
    )


def call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def logprobs_view(tokens: Iterable[TokenLogprob]) -> LogprobsView:
    return LogprobsView(
        content=[
            TokenLogprobView(**_top(token).model_dump(), top_logprobs=[_top(t) for t in token.top])
            for token in tokens
        ]
    )


def _top(token: TokenLogprob) -> TopLogprobView:
    return TopLogprobView(token=token.token, logprob=token.logprob, bytes=list(token.raw))


def generation_stats(stats: Stats) -> GenerationStats:
    return GenerationStats(
        prompt_tps=stats.prompt_tps,
        generation_tps=stats.generation_tps,
        prompt_tokens=stats.prompt_tokens,
        generation_tokens=stats.generation_tokens,
        peak_memory_usage=stats.peak_memory_usage,
        prefix_cache_hit=stats.prefix_cache_hit.value,
        ttft=stats.ttft,
    )
