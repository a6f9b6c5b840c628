"""A response in the making: its object, and the events of its stream. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from exo.api.chat_adapter import call_id, logprobs_view
from exo.api.response_ids import item_id
from exo.api.response_items import (
    CallView,
    OutputItem,
    OutputTextView,
    SaidView,
    Status,
    ThoughtTextView,
    ThoughtView,
)
from exo.api.response_messages import encoded
from exo.api.response_views import (
    EventType,
    Incomplete,
    ResponseFailure,
    ResponseUsage,
    ResponseView,
)
from exo.errors import ExoError
from exo.inference.types import Delta, FinishReason, Stats, TokenLogprob, ToolCall

Event = dict[str, Any]
Kind = Literal["message", "reasoning", "function_call"]
_PREFIXES: dict[Kind, str] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


@dataclass
class _Open:
    """The item that is being made; `index` is its place in the output."""

    kind: Kind
    index: int
    id: str
    call_id: str = ""
    name: str = ""
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def item(self, status: Status, *, encode: bool) -> OutputItem:
        if self.kind == "function_call":
            return CallView(
                id=self.id,
                status=status,
                call_id=self.call_id,
                name=self.name,
                arguments=self.text,
            )
        started = status != "in_progress"
        if self.kind == "reasoning":
            thoughts = [ThoughtTextView(text=self.text)] if started else []
            kept = encoded(self.text) if encode and started else None
            return ThoughtView(id=self.id, status=status, content=thoughts, encrypted_content=kept)
        return SaidView(id=self.id, status=status, content=[self.part()] if started else [])

    def part(self) -> OutputTextView:
        return OutputTextView(text=self.text, logprobs=logprobs_view(self.logprobs).content)


class Answering:
    """Takes what comes of a request; gives events, and `view`, the response so far.

    Items get numbers from `first` on. With `encode`, thoughts also come as the one text that some
    clients keep of them.
    """

    def __init__(self, view: ResponseView, first: int, *, encode: bool = False) -> None:
        self.view = view
        self._first = first
        self._encode = encode
        self._number = 0
        self._open: _Open | None = None
        self._reason: FinishReason | None = None
        # Of tokens whose text has not come yet.
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> list[Event]:
        return [self._told("response.created"), self._told("response.in_progress")]

    def take(self, delta: Delta) -> list[Event]:
        """What is new of the answer."""
        events: list[Event] = []
        if delta.reasoning:
            events += self._in("reasoning")
            events += self._more("response.reasoning_text.delta", delta.reasoning)
        self._logprobs += delta.logprobs
        if delta.text:
            events += self._say(delta.text)
        for call in delta.calls:
            events += self._call(call)
        self._reason = delta.finish_reason or self._reason
        return events

    def end(self, stats: Stats, now: int) -> list[Event]:
        """The answer is complete, or was cut; `now` in seconds since the epoch."""
        cut = self._reason is FinishReason.LENGTH
        events: list[Event] = []
        if self._logprobs and self._open is not None and self._open.kind == "message":
            events += self._say("")
        events += self._close("incomplete" if cut else "completed")
        said = any(not isinstance(item, ThoughtView) for item in self.view.output)
        if not said and not cut:
            events += [*self._in("message"), *self._close("completed")]
        self._update(
            status="incomplete" if cut else "completed",
            completed_at=None if cut else now,
            incomplete_details=Incomplete(reason="max_output_tokens") if cut else None,
            usage=ResponseUsage.of(stats),
        )
        return [*events, self._told("response.incomplete" if cut else "response.completed")]

    def fail(self, error: ExoError) -> list[Event]:
        """The answer ends here, with an error."""
        self._leave()
        self._update(status="failed", error=failure(error))
        return [self._told("response.failed")]

    def cancel(self) -> list[Event]:
        """The client wants no more."""
        self._leave()
        self._update(status="cancelled")
        told = {"code": "cancelled", "message": "The response was cancelled.", "param": None}
        return [self._event("error", **told)]

    # Items.

    def _say(self, text: str) -> list[Event]:
        found, self._logprobs = self._logprobs, []
        opened = self._in("message")
        assert self._open is not None  # noqa: S101  `_in` has opened it
        self._open.logprobs += found
        told = [_without_bytes(each) for each in logprobs_view(found).model_dump()["content"]]
        return [*opened, *self._more("response.output_text.delta", text, logprobs=told)]

    def _call(self, call: ToolCall) -> list[Event]:
        events: list[Event] = []
        if call.name is not None:
            self._logprobs = []
            events += self._close("completed")
            events += self._in("function_call", call)
        if call.arguments:
            events += self._more("response.function_call_arguments.delta", call.arguments)
        return events

    def _in(self, kind: Kind, call: ToolCall | None = None) -> list[Event]:
        """Open an item of this kind, unless it is open."""
        if self._open is not None and self._open.kind == kind:
            return []
        events = self._close("completed")
        index = len(self.view.output)
        number = self._first + index
        opened = _Open(kind, index, item_id(_PREFIXES[kind], self.view.id, number))
        if call is not None:
            opened.call_id, opened.name = call_id(), call.name or ""
        self._open = opened
        item = opened.item("in_progress", encode=self._encode).model_dump(mode="json")
        events.append(self._event("response.output_item.added", output_index=index, item=item))
        if kind != "function_call":
            part = _part(kind, "", [])
            events.append(self._event("response.content_part.added", **self._where(), part=part))
        return events

    def _more(self, kind: EventType, text: str, **more: Any) -> list[Event]:
        if self._open is None:
            return []
        self._open.text += text
        return [self._event(kind, **self._where(), delta=text, **more)]

    def _close(self, status: Status) -> list[Event]:
        """End the open item, and tell so."""
        opened, where = self._open, self._where()
        if opened is None:
            return []
        item = self._keep(opened, status)
        events: list[Event] = []
        match opened.kind:
            case "function_call":
                kind: EventType = "response.function_call_arguments.done"
                events.append(self._event(kind, **where, arguments=opened.text))
            case "reasoning":
                kind = "response.reasoning_text.done"
                events.append(self._event(kind, **where, text=opened.text))
            case "message":
                told = opened.part().model_dump(mode="json")["logprobs"]
                logprobs = [_without_bytes(each) for each in told]
                kind = "response.output_text.done"
                events.append(self._event(kind, **where, text=opened.text, logprobs=logprobs))
        if opened.kind != "function_call":
            part = _part(opened.kind, opened.text, opened.logprobs)
            events.append(self._event("response.content_part.done", **where, part=part))
        data = item.model_dump(mode="json")
        done = self._event("response.output_item.done", output_index=opened.index, item=data)
        return [*events, done]

    def _keep(self, opened: _Open, status: Status) -> OutputItem:
        """The item that was open, as it is in the output now."""
        item = opened.item(status, encode=self._encode)
        self._open = None
        self._update(output=[*self.view.output, item])
        return item

    # Events.

    def _where(self) -> dict[str, Any]:
        opened = self._open
        if opened is None:
            return {}
        where: dict[str, Any] = {"item_id": opened.id, "output_index": opened.index}
        return where if opened.kind == "function_call" else {**where, "content_index": 0}

    def _told(self, kind: EventType) -> Event:
        return self._event(kind, response=self.view.model_dump(mode="json"))

    def _event(self, kind: EventType, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _leave(self) -> None:
        """What is open stays as it is."""
        if self._open is not None:
            self._keep(self._open, "incomplete")

    def _update(self, **fields: Any) -> None:
        self.view = self.view.model_copy(update=fields)


def failure(error: ExoError) -> ResponseFailure:
    """An error as a response that failed has it."""
    code = {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(error.status, "server_error")
    return ResponseFailure.model_validate({"code": code, "message": str(error)})


def _part(kind: Kind, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    if kind == "reasoning":
        return ThoughtTextView(text=text).model_dump(mode="json")
    found = logprobs_view(logprobs).content
    return OutputTextView(text=text, logprobs=found).model_dump(mode="json")


def _without_bytes(found: dict[str, Any]) -> dict[str, Any]:
    """A log probability as events have it."""
    top = [{k: v for k, v in each.items() if k != "bytes"} for each in found["top_logprobs"]]
    return {"token": found["token"], "logprob": found["logprob"], "top_logprobs": top}
