"""OpenAI's older completions (https://platform.openai.com/docs/api-reference/completions), and
what tokenises (as vLLM has it)."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from exo.api.chat_schema import (
    MAX_ANSWERS,
    MAX_TOP_LOGPROBS,
    Message,
    Part,
    SampledRequest,
    Tool,
    clash,
)
from exo.api.chat_views import UsageView
from exo.api.views import View
from exo.inference.types import FinishReason

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


def _as_one(given: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """One error for the field, in place of one for each of the forms that it may have."""
    try:
        return read(given)
    except ValidationError as error:
        raise PydanticCustomError(
            "inputs",
            "It must be a text, a list of texts, a list of tokens or a list of such lists,"
            " none of them empty and not too many",
        ) from error


def each_input(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """One or several, each text or tokens."""
    if isinstance(given, str):
        return [given]
    tokens = [each for each in given if isinstance(each, int)]
    return [tokens] if tokens else [each for each in given if not isinstance(each, int)]


AS_ONE = WrapValidator(_as_one)


class CompletionRequest(SampledRequest):
    """The body of a completion. `suffix` and `best_of` ask for nothing only."""

    prompt: Annotated[
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_ANSWERS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_ANSWERS)],
        AS_ONE,
    ]
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or several, each text or tokens."""
        return each_input(self.prompt)

    @model_validator(mode="after")
    def _fits_together(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise clash("best_of", "best_of other than n is not supported")
        if self.echo and self.logprobs is not None:
            raise clash("logprobs", "echo and logprobs exclude each other: a prompt has none")
        if len(self.prompts) * (self.n or 1) > MAX_ANSWERS:
            raise clash("n", f"Prompts times n must be at most {MAX_ANSWERS}")
        return self


class CompletionLogprobs(View):
    """By token of the text: itself, its place in the text, its log probability, and the likeliest
    ones beside it."""

    tokens: list[str]
    text_offset: list[int]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class CompletionChoice(View):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(View):
    """A whole answer, or one event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageView | None = None


class TokenizeRequest(Part):
    """A prompt as text, or messages as for a chat."""

    model: str = Field(min_length=1)
    prompt: str | None = None
    add_special_tokens: bool = True
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise clash("prompt", "Either prompt or messages must be given")
        extras = (self.tools, self.chat_template_kwargs, self.continue_final_message)
        if self.messages is None and any(extra is not None for extra in extras):
            raise clash("messages", "tools and what the template is told need messages")
        return self


class TokenizeView(View):
    """`max_model_len` is the context of the model."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeRequest(Part):
    model: str = Field(min_length=1)
    tokens: list[Annotated[int, Field(ge=0)]]


class DetokenizeView(View):
    prompt: str
