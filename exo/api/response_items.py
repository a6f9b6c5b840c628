"""The items of a response, as OpenAI has them and as exo keeps them: what was asked, said, thought
and called (https://platform.openai.com/docs/api-reference/responses/object)."""

from typing import Any, Literal

from pydantic import Field

from exo.api.chat_views import TokenLogprobView
from exo.api.views import View

Status = Literal["in_progress", "completed", "incomplete"]


class InputTextView(View):
    type: Literal["input_text"] = "input_text"
    text: str


class OutputTextView(View):
    """`annotations` are of tools that exo does not have."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]], max_length=0)
    logprobs: list[TokenLogprobView] = Field(default_factory=list[TokenLogprobView])


class RefusalView(View):
    """Another model's, that a client sent."""

    type: Literal["refusal"] = "refusal"
    refusal: str


class SummaryView(View):
    """Another model's, that a client sent."""

    type: Literal["summary_text"] = "summary_text"
    text: str


class ThoughtTextView(View):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class AskedView(View):
    """A message to the model."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    status: Status = "completed"
    content: list[InputTextView]


class SaidView(View):
    """A message of the model."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status = "completed"
    content: list[OutputTextView | RefusalView]


class ThoughtView(View):
    """`encrypted_content` is the same text in base64, where a client asked for it."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: Status = "completed"
    summary: list[SummaryView] = Field(default_factory=list[SummaryView])
    content: list[ThoughtTextView]
    encrypted_content: str | None = None


class CallView(View):
    """A call of a function; `arguments` are a JSON text."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Status = "completed"
    call_id: str
    name: str
    arguments: str


class ResultView(View):
    """What a function gave. `name` is the function's, where the client says it."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    status: Status = "completed"
    call_id: str
    output: str | list[InputTextView]
    name: str | None = None


OutputItem = SaidView | ThoughtView | CallView
Item = AskedView | ResultView | OutputItem
