"""OpenAI's chat request (https://platform.openai.com/docs/api-reference/chat), as far as exo
honours it (`unsupported` refuses the rest by name)."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_ANSWERS = 128
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_METADATA = 16
NAME = r"^[a-zA-Z0-9_-]{1,64}$"

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def clash(param: str, message: str) -> PydanticCustomError:
    """Fields that do not go together; `param` is the one to change."""
    return PydanticCustomError("clash", message, {"param": param})  # pyright: ignore[reportArgumentType]  LiteralString, against injection


class Part(BaseModel):
    """Base of what the client sends."""

    model_config = ConfigDict(extra="forbid")


class TextPart(Part):
    type: Literal["text"]
    text: str


class RefusalPart(Part):
    type: Literal["refusal"]
    refusal: str


class FunctionCall(Part):
    name: str
    arguments: str


class ToolCall(Part):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


Content = str | Annotated[list[TextPart], Field(min_length=1)]


class SystemMessage(Part):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Part):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Part):
    """What the assistant said before. The last fields come back from clients that send a whole
    answer as OpenAI gives it; exo's answers leave them empty."""

    role: Literal["assistant"]
    content: (
        str
        | Annotated[
            list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]],
            Field(min_length=1),
        ]
        | None
    ) = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    annotations: Annotated[list[dict[str, Any]], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> "AssistantMessage":
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise ValueError("An assistant message needs content or tool_calls")
        return self


class ToolMessage(Part):
    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


class FunctionMessage(Part):
    role: Literal["function"]
    content: Content
    name: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class StreamOptions(Part):
    """`include_obfuscation` would pad chunks so that their sizes tell less; nothing is padded."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


Label = Annotated[str, Field(max_length=512)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Label], Field(max_length=MAX_METADATA)
]


class TextFormat(Part):
    type: Literal["text"]


class ObjectFormat(Part):
    type: Literal["json_object"]


class JsonSchema(Part):
    name: str = Field(pattern=NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class SchemaFormat(Part):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Function(Part):
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Part):
    type: Literal["function"]
    function: Function


class FunctionName(Part):
    name: str


class NamedTool(Part):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Part):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedChoice(Part):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[NamedTool | AllowedChoice, Field(discriminator="type")]
)


class StructuredOutputs(Part):
    """What an answer must be, in vLLM's words: one of these. `grammar` is Lark, as llguidance
    reads it."""

    json_: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = Field(None, min_length=1)
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> "StructuredOutputs":
        given = [self.json_, self.regex, self.choice, self.grammar]
        if sum(value is not None for value in given) != 1:
            raise ValueError("Exactly one of json, regex, choice and grammar must be given")
        return self


class SampledRequest(Part):
    """What chat completions and the older completions both take."""

    model: str = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Label | None = None
    structured_outputs: StructuredOutputs | None = None
    use_prefix_cache: bool = True

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise clash("stream_options", "stream_options is only allowed when stream is true")
        return self


class ChatRequest(SampledRequest):
    """The body of a chat completion."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    metadata: Metadata | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise clash("top_logprobs", "top_logprobs needs logprobs to be true")
        free = self.response_format is None or self.response_format.type == "text"
        if self.structured_outputs is not None and not free:
            raise clash(
                "structured_outputs", "structured_outputs and response_format exclude each other"
            )
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise clash("tool_choice", "tool_choice needs tools to choose from")
        if not self.tools and self.parallel_tool_calls is not None:
            raise clash("parallel_tool_calls", "parallel_tool_calls is only allowed with tools")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise clash(
                "continue_final_message", "Only a last message of the assistant can be continued"
            )
        return self
