"""Anthropic's messages (https://docs.anthropic.com/en/api/messages), as far as exo honours them.

`cache_control` may stand wherever Anthropic has it: prefixes are kept without being asked for.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from exo.api.chat_schema import MAX_STOPS, MAX_TOOLS, NAME, Label, Part, clash
from exo.api.views import View

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class CacheControl(Part):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Part):
    cache_control: CacheControl | None = None


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


class ThinkingBlock(Part):
    """`signature` is the one that exo gives, which is empty."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool = False


class UserTurn(Part):
    role: Literal["user"]
    content: (
        str
        | Annotated[
            list[Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]],
            Field(min_length=1),
        ]
    )


class AssistantTurn(Part):
    role: Literal["assistant"]
    content: (
        str
        | Annotated[
            list[Annotated[TextBlock | ToolUseBlock | ThinkingBlock, Field(discriminator="type")]],
            Field(min_length=1),
        ]
    )


Turn = Annotated[UserTurn | AssistantTurn, Field(discriminator="role")]


class ToolSchema(Block):
    """A tool of the client's own. `allowed_callers`, `defer_loading` and `input_examples` ask for
    nothing only."""

    type: Literal["custom"] | None = None
    name: str = Field(pattern=NAME)
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    input_examples: Annotated[list[Any], Field(max_length=0)] | None = None


class AnyChoice(Part):
    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool = False


class OneChoice(Part):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False


class NoChoice(Part):
    type: Literal["none"]


ToolChoice = Annotated[AnyChoice | OneChoice | NoChoice, Field(discriminator="type")]


class ThinkingSwitch(Part):
    """`enabled` comes with a budget, which cannot be kept; a model thinks as `adaptive` has it."""

    type: Literal["disabled", "adaptive"]
    display: Literal["summarized"] | None = None


class JsonFormat(Part):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Part):
    effort: Effort | None = None
    format: JsonFormat | None = None


class UserData(Part):
    user_id: Label | None = None


class CountRequest(Part):
    """What tokens are counted of."""

    model: str = Field(min_length=1)
    messages: list[Turn] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[ToolSchema], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingSwitch | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    speed: Literal["standard"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "CountRequest":
        if not self.tools and isinstance(self.tool_choice, AnyChoice | OneChoice):
            raise clash("tool_choice", "tool_choice needs tools to choose from")
        return self


class MessagesRequest(CountRequest):
    """The body of a message. `top_k` and `min_p` filter as elsewhere."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: UserData | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: None = None
    diagnostics: None = None
    inference_geo: None = None


class MessageUsage(View):
    """`input_tokens` are those that were computed; those of a prefix that was kept are told apart,
    as Anthropic does."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessageView(View):
    """An answer: blocks of thoughts, text and calls."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(View):
    """An event of a stream; what else it has depends on its type."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ]


class CountView(View):
    input_tokens: int
