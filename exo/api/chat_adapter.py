"""Between OpenAI's chat objects and exo's one request type: pure."""

import json
import secrets
from collections.abc import Iterable
from typing import Any

from exo.api.chat_format import format_of
from exo.api.chat_schema import (
    ChatRequest,
    GenerationStats,
    LogprobsView,
    Message,
    TextPart,
    TokenLogprobView,
    TopLogprobView,
)
from exo.errors import RequestError
from exo.inference.types import GenerateRequest, Sampling, Stats, TokenLogprob
from exo.models.card import ModelCard


def to_generate(body: ChatRequest, card: ModelCard, request_id: str) -> GenerateRequest:
    """What the engine is asked. What the client leaves out is the model's default, then OpenAI's.

    Raises:
        RequestError: a field does not fit this model.
    """
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    seed = secrets.randbits(63) if body.seed is None else body.seed
    sampling = Sampling.model_validate(
        {**card.sampling, **chosen, "seed": seed, "logit_bias": _logit_bias(body, card)}
    )
    return GenerateRequest(
        request_id=request_id,
        messages=[_message(message) for message in body.messages],
        sampling=sampling,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=_stops(body),
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        use_prefix_cache=body.use_prefix_cache,
        format=format_of(body),
    )


def _logit_bias(body: ChatRequest, card: ModelCard) -> dict[int, float]:
    bias: dict[int, float] = {}
    for key, value in (body.logit_bias or {}).items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
        if not 0 <= token < card.vocab_size:
            raise RequestError(
                f"'{key}' in logit_bias is no token of {card.model_id}: those are the numbers from "
                f"0 to {card.vocab_size - 1}.",
                param="logit_bias",
            )
        bias[token] = value
    return bias


def _stops(body: ChatRequest) -> list[str]:
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if not all(stops):
        raise RequestError("A stop string must not be empty.", param="stop")
    return stops


def _message(message: Message) -> dict[str, Any]:
    """A message as chat templates know them: text content, and calls with parsed arguments."""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": _text(message.content)}
    for field in ("name", "tool_call_id"):
        if value := getattr(message, field, None):
            plain[field] = value
    if calls := getattr(message, "tool_calls", None):
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(call.function.arguments),
                },
            }
            for call in calls
        ]
    return plain


def _text(content: str | list[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def logprobs_view(tokens: Iterable[TokenLogprob]) -> LogprobsView:
    return LogprobsView(
        content=[
            TokenLogprobView(**_top(token).model_dump(), top_logprobs=[_top(t) for t in token.top])
            for token in tokens
        ]
    )


def _top(token: TokenLogprob) -> TopLogprobView:
    return TopLogprobView(token=token.token, logprob=token.logprob, bytes=list(token.raw))


def generation_stats(stats: Stats) -> GenerationStats:
    return GenerationStats(
        prompt_tps=stats.prompt_tps,
        generation_tps=stats.generation_tps,
        prompt_tokens=stats.prompt_tokens,
        generation_tokens=stats.generation_tokens,
        peak_memory_usage=stats.peak_memory_usage,
        prefix_cache_hit=stats.prefix_cache_hit.value,
        ttft=stats.ttft,
    )
