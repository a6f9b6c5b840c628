"""The events of an Anthropic stream, from what comes of a request: pure."""

from typing import Any

from exo.api.anthropic_adapter import stop_reason, tool_id, usage_of
from exo.inference.types import Delta, FinishReason, Stats, ToolCall

Event = dict[str, Any]


class Blocks:
    """Opens a block where something of another kind begins, and closes the one before."""

    def __init__(self) -> None:
        self._index = -1
        self._kind: str | None = None
        self._reason: FinishReason | None = None
        self._stop: str | None = None

    def events(self, delta: Delta) -> list[Event]:
        """What is new of the answer."""
        events: list[Event] = []
        if delta.reasoning:
            start = {"type": "thinking", "thinking": "", "signature": ""}
            events += self._in("thinking", start)
            events.append(self._delta({"type": "thinking_delta", "thinking": delta.reasoning}))
        if delta.text:
            events += self._in("text", {"type": "text", "text": "", "citations": None})
            events.append(self._delta({"type": "text_delta", "text": delta.text}))
        for call in delta.calls:
            events += self._call(call)
        self._reason = delta.finish_reason or self._reason
        self._stop = delta.stop or self._stop
        return events

    def ending(self, stats: Stats) -> list[Event]:
        """The events at the end of the answer."""
        told = {"stop_reason": stop_reason(self._reason, self._stop), "stop_sequence": self._stop}
        usage = usage_of(stats).model_dump(mode="json")
        return [
            *self._close(),
            {"type": "message_delta", "delta": told, "usage": usage},
            {"type": "message_stop"},
        ]

    def _call(self, call: ToolCall) -> list[Event]:
        events: list[Event] = []
        if call.name is not None:
            start: Event = {"type": "tool_use", "id": tool_id(), "name": call.name, "input": {}}
            events += self._in(f"tool {call.index}", start)
        if call.arguments:
            told = {"type": "input_json_delta", "partial_json": call.arguments}
            events.append(self._delta(told))
        return events

    def _in(self, kind: str, start: Event) -> list[Event]:
        if self._kind == kind:
            return []
        closed = self._close()
        self._kind = kind
        self._index += 1
        opened = {"type": "content_block_start", "index": self._index, "content_block": start}
        return [*closed, opened]

    def _close(self) -> list[Event]:
        if self._kind is None:
            return []
        self._kind = None
        return [{"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}
