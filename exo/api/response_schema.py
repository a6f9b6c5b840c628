"""OpenAI's request for a response (https://platform.openai.com/docs/api-reference/responses), as
far as exo honours it (`response_unsupported` refuses the rest by name)."""

from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag, model_validator

from exo.api.chat_schema import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    NAME,
    Effort,
    Label,
    Metadata,
    ObjectFormat,
    Part,
    RefusalPart,
    TextFormat,
    clash,
)
from exo.api.response_items import Status

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
Id = Annotated[str, Field(min_length=1, max_length=256)]


class InputText(Part):
    type: Literal["input_text"]
    text: str


class OutputText(Part):
    """As it came in an answer; what is beside the text is not looked at again."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[dict[str, Any]], Field(max_length=0)] | None = None
    logprobs: list[dict[str, Any]] | None = None


Content = Annotated[InputText | OutputText | RefusalPart, Field(discriminator="type")]


class ItemBase(Part):
    """What all items but references may have."""

    id: Id | None = None
    status: Status | None = None


class MessageItem(ItemBase):
    """`phase` is a label of other models' answers."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Content]
    phase: Literal["commentary", "final_answer"] | None = None

    @model_validator(mode="after")
    def _speaks_for_itself(self) -> "MessageItem":
        if self.role == "assistant" or isinstance(self.content, str):
            return self
        if not all(isinstance(part, InputText) for part in self.content):
            raise ValueError(f"The content of the {self.role} is of type input_text")
        if not self.content:
            raise ValueError("A message needs content")
        return self


class Direct(Part):
    type: Literal["direct"]


class CallItem(ItemBase):
    type: Literal["function_call"]
    call_id: Id
    name: str
    arguments: str
    caller: Direct | None = None
    async_: Literal[False] | None = Field(None, alias="async")


class ResultItem(ItemBase):
    type: Literal["function_call_output"]
    call_id: Id
    output: str | list[InputText]
    name: str | None = None
    caller: Direct | None = None


class SummaryPart(Part):
    type: Literal["summary_text"]
    text: str


class ThoughtPart(Part):
    type: Literal["reasoning_text"]
    text: str


class ThoughtItem(ItemBase):
    type: Literal["reasoning"]
    summary: list[SummaryPart] = Field(default_factory=list[SummaryPart])
    content: list[ThoughtPart] | None = None
    encrypted_content: str | None = None


class ReferenceItem(Part):
    """An item of an earlier response, by its id."""

    type: Literal["item_reference"] | None = None
    id: Id


def _kind(value: object) -> str | None:
    """What an item is: clients leave out the type of messages and references."""
    if not isinstance(value, dict):
        return None
    item = cast("dict[str, object]", value)
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference"
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")]
    | Annotated[ThoughtItem, Tag("reasoning")]
    | Annotated[ReferenceItem, Tag("item_reference")],
    Discriminator(_kind),
]


class TextSchemaFormat(Part):
    type: Literal["json_schema"]
    name: str = Field(pattern=NAME)
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Part):
    format: (
        Annotated[TextFormat | ObjectFormat | TextSchemaFormat, Field(discriminator="type")] | None
    ) = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Part):
    """Thoughts come whole. A summary may be asked for only if none is good as well."""

    effort: Effort | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class FunctionTool(Part):
    type: Literal["function"]
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    output_schema: None = None
    async_: Literal[False] | None = Field(None, alias="async")


class NamedChoice(Part):
    type: Literal["function"]
    name: str


class AllowedFunctions(Part):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Field(min_length=1)]


Choice = (
    Literal["none", "auto", "required"]
    | Annotated[NamedChoice | AllowedFunctions, Field(discriminator="type")]
)


class ResponseStreamOptions(Part):
    """Nothing is padded so that sizes tell less."""

    include_obfuscation: Literal[False] | None = None


class CountedRequest(Part):
    """What makes the prompt."""

    model: str = Field(min_length=1)
    input: str | Annotated[list[InputItem], Field(min_length=1)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @model_validator(mode="after")
    def _asks(self) -> "CountedRequest":
        if self.input is None and self.previous_response_id is None:
            raise clash("input", "input is missing")
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise clash("tool_choice", "tool_choice needs tools to choose from")
        return self


class ResponseRequest(CountedRequest):
    """The body of a response. `max_tool_calls` is of tools that exo does not have."""

    background: bool | None = None
    include: list[Include] | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
    safety_identifier: Label | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    top_p: float | None = Field(None, gt=0, le=1)
    user: Label | None = None
    # Beyond OpenAI's.
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    use_prefix_cache: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> "ResponseRequest":
        if self.stream_options is not None and not self.stream:
            raise clash("stream_options", "stream_options is only allowed when stream is true")
        if self.background and self.store is False:
            raise clash("store", "What is computed in the background has to be stored")
        return self

    @property
    def logprobs(self) -> int | None:
        """How many alternatives are wanted of each token, None for no log probabilities."""
        if LOGPROBS in (self.include or ()):
            return self.top_logprobs or 0
        return self.top_logprobs or None


class InputCountRequest(CountedRequest):
    """The body where only tokens are counted."""


Listed = Annotated[list[Include], Field(default_factory=list[Include])]


class RetrieveQuery(Part):
    """`include` is part of what is stored already, and says nothing more. With `stream`, the events
    of a response that was made so in the background come from behind `starting_after`."""

    include: Listed
    stream: bool = False
    starting_after: int | None = Field(None, ge=0)
    include_obfuscation: Literal["false"] | None = None

    @model_validator(mode="after")
    def _streams(self) -> "RetrieveQuery":
        if self.starting_after is not None and not self.stream:
            raise clash("starting_after", "starting_after is only allowed when stream is true")
        return self


class ItemsQuery(Part):
    """A page of the items, from behind the one called `after`."""

    include: Listed
    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
