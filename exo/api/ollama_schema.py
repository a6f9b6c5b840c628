"""Ollama's chat and generate (https://docs.ollama.com/api), as far as exo honours them."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from exo.api.chat_schema import MAX_STOPS, MAX_TOOLS, MAX_TOP_LOGPROBS, Part, Tool, clash
from exo.api.views import View


class Options(Part):
    """`num_ctx` is a context that the model must have, `num_predict` -1 as much as that holds;
    `repeat_last_n` -1 all tokens, which is what penalties look at."""

    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    num_predict: int | None = Field(None, ge=-1)
    num_ctx: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    repeat_last_n: Literal[-1] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None

    @model_validator(mode="after")
    def _wants_something(self) -> "Options":
        if self.num_predict == 0:
            raise clash("options.num_predict", "num_predict must be -1 or at least 1")
        return self


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)")


def seconds_of(duration: float | str) -> float | None:
    """A duration as Go writes it, or a number of seconds, in seconds; None if it is neither."""
    try:
        seconds = float(duration)
    except ValueError:
        text = str(duration)
        sign = -1.0 if text.startswith("-") else 1.0
        text = text[1:] if text[:1] in {"+", "-"} else text
        if not text or _DURATION.sub("", text):
            return None
        return sign * sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(text))
    return seconds if math.isfinite(seconds) else None


class Lasting(Part):
    """`keep_alive` is how long the model stays after this: seconds, or a text such as `5m`; below 0
    for ever, and 0 not at all."""

    keep_alive: float | str | None = None

    @model_validator(mode="after")
    def _stays(self) -> Self:
        if self.keep_alive is not None and self.keep_seconds is None:
            raise clash("keep_alive", "keep_alive is seconds, or a duration such as 5m or 1h30m")
        return self

    @property
    def keep_seconds(self) -> float | None:
        """`keep_alive` in seconds, None if it is not given or not one."""
        return None if self.keep_alive is None else seconds_of(self.keep_alive)


class Ask(Lasting):
    """What chats and prompts both have."""

    model: str = Field(min_length=1)
    stream: bool = True
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    @model_validator(mode="after")
    def _fits_together(self) -> "Ask":
        if self.top_logprobs and not self.logprobs:
            raise clash("top_logprobs", "top_logprobs needs logprobs to be true")
        return self


class CalledFunction(Part):
    name: str
    arguments: dict[str, Any]
    index: int | None = None
    description: str | None = None


class CalledTool(Part):
    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Part):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaChat(Ask):
    """Without messages, the model is loaded and nothing else."""

    messages: list[OllamaMessage] = Field(default_factory=list[OllamaMessage])
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None


class OllamaGenerate(Ask):
    """Without a prompt, the model is loaded and nothing else. `raw` goes on with the prompt as it
    is, without the model's template."""

    prompt: str = ""
    system: str | None = None
    raw: bool = False
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _is_raw_or_not(self) -> "OllamaGenerate":
        if self.raw and (self.system or self.think is not None):
            raise clash("raw", "raw excludes system and think, which are the template's")
        return self


class ShowRequest(Part):
    """`name` is what `model` was called before."""

    model: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)
    verbose: bool | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "ShowRequest":
        if (self.model is None) == (self.name is None):
            raise clash("model", "Either model or name must be given")
        return self


class FunctionSaid(View):
    name: str
    arguments: dict[str, Any]


class ToolSaid(View):
    function: FunctionSaid


class MessageSaid(View):
    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | None = None
    tool_calls: list[ToolSaid] | None = None


class TokenSaid(View):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list["TokenSaid"] | None = None


class Said(View):
    """A whole answer, or one line of a stream; the last one has the counts. Durations in
    nanoseconds."""

    model: str
    created_at: str
    message: MessageSaid | None = None
    response: str | None = None
    thinking: str | None = None
    logprobs: list[TokenSaid] | None = None
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class Details(View):
    parent_model: str = ""
    format: Literal["safetensors"] = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class TagView(View):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagsView(View):
    models: list[TagView]


class ShowView(View):
    modified_at: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]


class RunningView(View):
    """A model that answers. It is unloaded at `expires_at` if nobody uses it before."""

    name: str
    model: str
    size: int
    size_vram: int
    digest: str
    details: Details
    expires_at: str
    context_length: int


class RunningListView(View):
    models: list[RunningView]


class OllamaVersion(View):
    version: str
