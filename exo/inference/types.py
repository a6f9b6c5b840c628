"""The one request type of text generation, and what comes back for it.

Every API is an adapter to `GenerateRequest`; every engine answers it. These cross the process
border to the runner and, later, the network, so they are validated where they arrive.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """Base of what crosses a process border."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Sampling(Wire):
    """How a token is drawn from the logits.

    Penalties follow OpenAI: presence and frequency count the tokens of the answer only; the
    repetition penalty (https://arxiv.org/abs/1909.05858) also those of the prompt. The filters
    (top_k, top_p, min_p) see the distribution at temperature 1, as in mlx-lm.
    """

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = Field(default=1.0, gt=0)
    logit_bias: dict[int, float] = {}

    @property
    def looks_back(self) -> bool:
        """Whether a draw depends on the tokens before."""
        return self.repetition_penalty != 1 or bool(self.presence_penalty or self.frequency_penalty)


class Format(Wire):
    """What an answer must be, token by token: a JSON text that the schema in `text` allows, what a
    regular expression or a grammar (llguidance's Lark) describes, or one of a JSON list of texts.
    `param` is the client's field, for errors."""

    kind: Literal["json", "regex", "choice", "lark"]
    text: str
    param: str = "response_format"


class ToolUse(Wire):
    """Which tools (OpenAI's objects, functions all) are shown to the model and may be called;
    whether one has to be, and whether an answer may hold several calls."""

    tools: list[dict[str, Any]] = Field(min_length=1)
    required: bool = False
    parallel: bool = True


class Asked(Wire):
    """What every request says: its id, the API key that shares with others (`lane`), and whether
    it may wait for what is interactive."""

    request_id: str
    lane: str = ""
    batch: bool = False


class GenerateRequest(Asked):
    """One request: `messages`, which the model's chat template makes a prompt of, or a `prompt` as
    it is, as text or as tokens. `max_tokens` None means as many as the context holds.

    `n` answers are sampled from one prompt; answer i uses the stream (seed, i). `logprobs` is the
    number of alternatives wanted per token, 0 for the chosen token alone, None for no logprobs.
    `template` are variables for the model's chat template; `effort` is how much it should think
    ("none": not at all), as far as the template knows. One that `continues` goes on with the last
    message, the assistant's. One that is `dry` only wants the prompt back, as tokens and text. A
    prompt that is text gets the tokenizer's own tokens around it, unless `special` is false.
    `trace_id` is the id of the HTTP request, for logs.
    """

    messages: list[dict[str, Any]] = []
    prompt: str | list[int] | None = None
    sampling: Sampling = Sampling()
    max_tokens: int | None = Field(default=None, ge=1)
    stop: list[str] = []
    n: int = Field(default=1, ge=1)
    logprobs: int | None = Field(default=None, ge=0)
    use_prefix_cache: bool = True
    format: Format | None = None
    tool_use: ToolUse | None = None
    template: dict[str, Any] = {}
    effort: str | None = None
    continues: bool = False
    dry: bool = False
    special: bool = True
    trace_id: str = ""


class EmbedRequest(Asked):
    """One request for vectors: of `inputs`, each a text or tokens. `dimensions` is how many numbers
    a vector shall have, None for all that the model gives. With `truncate`, an input that is longer
    than the context loses what does not fit, but for its last token; without, it is refused.
    `trace_id` is the id of the HTTP request, for logs."""

    inputs: list[str | list[int]] = Field(min_length=1)
    dimensions: int | None = Field(default=None, ge=1)
    truncate: bool = False
    trace_id: str = ""


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


class TokenLogprob(Wire):
    """One token and its natural-log probability; `raw` are its bytes in the text."""

    token: str
    raw: bytes
    logprob: float
    top: list["TokenLogprob"] = []


class ToolCall(Wire):
    """A part of a tool call of an answer: the first one has the name, and all their arguments
    together are a JSON text, if the answer was not cut."""

    index: int
    name: str | None = None
    arguments: str = ""


class Delta(Wire):
    """What one step added to one answer: to what it says, to what it thinks, to its calls. `text`
    may be empty while a stop string is undecided; `stop` is the one that came."""

    request_id: str
    index: int = 0
    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    stop: str | None = None


class PrefixCacheHit(StrEnum):
    NONE = "none"
    PARTIAL = "partial"
    EXACT = "exact"


class Stats(Wire):
    """Of one finished request. Times in seconds since it reached the runner, memory in bytes.
    `prefill_stages` and `decode_stages` say how long each stage computed steps of its prompt, and
    steps that gave it a token."""

    prompt_tokens: int
    generation_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    prefix_cache_hit: PrefixCacheHit = PrefixCacheHit.NONE
    queue_time: float
    ttft: float
    total_time: float
    prompt_tps: float
    generation_tps: float
    peak_memory_usage: int
    prefill_stages: tuple[float, ...] = ()
    decode_stages: tuple[float, ...] = ()
