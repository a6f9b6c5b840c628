"""OpenAI's chat answers, whole and in chunks
(https://platform.openai.com/docs/api-reference/chat/object)."""

from collections.abc import Sequence
from typing import Literal

from exo.api.views import View
from exo.inference.types import FinishReason, Stats


class TopLogprobView(View):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobView(TopLogprobView):
    top_logprobs: list[TopLogprobView]


class LogprobsView(View):
    content: list[TokenLogprobView]
    refusal: None = None


class FunctionView(View):
    name: str
    arguments: str


class ToolCallView(View):
    id: str
    type: Literal["function"] = "function"
    function: FunctionView


class AnswerView(View):
    """`reasoning_content` and `tool_calls` are there only if the model thought, or called."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallView] | None = None


class ChoiceView(View):
    index: int
    message: AnswerView
    logprobs: LogprobsView | None
    finish_reason: FinishReason


class PromptDetails(View):
    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(View):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageView(View):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails = CompletionDetails()

    @classmethod
    def of(cls, stats: Stats) -> "UsageView":
        return cls(
            prompt_tokens=stats.prompt_tokens,
            completion_tokens=stats.generation_tokens,
            total_tokens=stats.prompt_tokens + stats.generation_tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=stats.cached_tokens),
            completion_tokens_details=CompletionDetails(reasoning_tokens=stats.reasoning_tokens),
        )

    @classmethod
    def of_all(cls, each: Sequence[Stats]) -> "UsageView":
        """Of several requests together."""
        prompt = sum(stats.prompt_tokens for stats in each)
        answers = sum(stats.generation_tokens for stats in each)
        cached = sum(stats.cached_tokens for stats in each)
        return cls(
            prompt_tokens=prompt,
            completion_tokens=answers,
            total_tokens=prompt + answers,
            prompt_tokens_details=PromptDetails(cached_tokens=cached),
        )


class ChatCompletion(View):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChoiceView]
    usage: UsageView
    system_fingerprint: str


class GenerationStats(View):
    """How a request was computed: tokens/s, seconds, bytes."""

    prompt_tps: float
    generation_tps: float
    prompt_tokens: int
    generation_tokens: int
    peak_memory_usage: int
    prefix_cache_hit: Literal["none", "partial", "exact"]
    ttft: float


class BenchCompletion(ChatCompletion):
    generation_stats: GenerationStats


class FunctionDeltaView(View):
    name: str | None = None
    arguments: str | None = None


class ToolCallDeltaView(View):
    """A part of a call: the first has the id, the type and the name, the others arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDeltaView


class DeltaView(View):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDeltaView] | None = None


class ChunkChoiceView(View):
    index: int
    delta: DeltaView
    logprobs: LogprobsView | None
    finish_reason: FinishReason | None


class ChatChunk(View):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoiceView]
    usage: UsageView | None = None
    generation_stats: GenerationStats | None = None
