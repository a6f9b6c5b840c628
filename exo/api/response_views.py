"""OpenAI's response object, the events of its stream, and what else its endpoints answer."""

from typing import Annotated, Any, Literal

from pydantic import Field

from exo.api.response_items import Item, OutputItem
from exo.api.views import View
from exo.inference.types import Stats

EventType = Literal[
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
]


class InputDetails(View):
    """What is kept of a prompt for later ones is not counted."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(View):
    reasoning_tokens: int


class ResponseUsage(View):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, stats: Stats) -> "ResponseUsage":
        return cls(
            input_tokens=stats.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=stats.cached_tokens),
            output_tokens=stats.generation_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=stats.reasoning_tokens),
            total_tokens=stats.prompt_tokens + stats.generation_tokens,
        )


class ResponseFailure(View):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Incomplete(View):
    reason: Literal["max_output_tokens"]


class ReasoningView(View):
    effort: str | None = None
    summary: Literal["auto"] | None = None


class TextView(View):
    format: dict[str, Any]
    verbosity: Literal["medium"] = "medium"


class ToolView(View):
    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class ResponseView(View):
    """A response: what was asked of the model, but for the input, and what it answered. Times in
    seconds since the epoch."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "failed", "in_progress", "cancelled", "incomplete"]
    background: bool = False
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningView
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    temperature: float
    text: TextView
    tool_choice: str | dict[str, Any]
    tools: list[ToolView]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None


class ResponseEvent(View):
    """An event of a stream; what else it has depends on its type."""

    type: EventType
    sequence_number: int


class ItemListView(View):
    """A page of the items that a response was made from."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool


class DeletedResponse(View):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputCountView(View):
    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class Kept(View):
    """A response as it is stored: with all items that came before it, so that none depends on
    another one that may go. `events` are those of a stream that anyone may read again."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    response: ResponseView
    items: list[Item]
    events: list[dict[str, Any]] | None = None
