"""What an engine says in an answer with thoughts, words and two calls, piece by piece."""

from typing import Any

from exo.inference.types import Delta, FinishReason, ToolCall


def delta(**fields: Any) -> Delta:
    return Delta(request_id="r", **fields)


SAID = [
    delta(text="I "),
    delta(),
    delta(text="ask"),
    delta(calls=[ToolCall(index=0, name="f"), ToolCall(index=0, arguments='{"a"')]),
    delta(calls=[ToolCall(index=0, arguments=": 1}"), ToolCall(index=1, name="g", arguments="{}")]),
    delta(finish_reason=FinishReason.TOOL_CALLS),
]
