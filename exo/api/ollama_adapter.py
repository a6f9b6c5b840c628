"""Between Ollama's objects and exo's one request type: pure."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from exo.api.answers import MadeCall, add_call
from exo.api.ollama_schema import (
    Ask,
    CalledTool,
    Details,
    FunctionSaid,
    MessageSaid,
    OllamaChat,
    OllamaGenerate,
    OllamaMessage,
    Options,
    RunningView,
    Said,
    TagView,
    TokenSaid,
    ToolSaid,
)
from exo.api.sampling import sampling_of, stops_of
from exo.errors import RequestError
from exo.inference.grammars.schema import check_schema
from exo.inference.types import (
    Delta,
    FinishReason,
    Format,
    GenerateRequest,
    Stats,
    TokenLogprob,
    ToolUse,
)
from exo.models.card import ModelCard

# When a model goes that stays.
_NEVER = "9999-12-31T23:59:59Z"


class _Drawing:
    """Ollama's options about drawing, under the names that the others have for them."""

    def __init__(self, options: Options) -> None:
        self.temperature = options.temperature
        self.top_p = options.top_p
        self.top_k = options.top_k
        self.min_p = options.min_p
        self.repetition_penalty = options.repeat_penalty
        self.presence_penalty = options.presence_penalty
        self.frequency_penalty = options.frequency_penalty
        self.seed = options.seed
        self.logit_bias: dict[str, float] | None = None


def model_name(name: str) -> str:
    """Without the tag that Ollama's clients put behind names."""
    return name.removesuffix(":latest")


def check(body: OllamaChat | OllamaGenerate) -> None:
    """Raises:
    RequestError: something is wrong with the request, whatever the model.
    """
    _format(body)
    _stops(body)


def to_generate(
    body: OllamaChat | OllamaGenerate, card: ModelCard, request_id: str
) -> GenerateRequest:
    """What the engine is asked.

    Raises:
        RequestError: a field does not fit this model.
    """
    options = body.options or Options.model_validate({})
    if options.num_ctx is not None and options.num_ctx > card.context_length:
        raise RequestError(
            f"The context of {card.model_id} is {card.context_length} tokens.",
            param="options.num_ctx",
        )
    shared: dict[str, Any] = {
        "request_id": request_id,
        "sampling": sampling_of(_Drawing(options), card),
        "max_tokens": None if options.num_predict == -1 else options.num_predict,
        "stop": _stops(body),
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
        "format": _format(body),
        "effort": _effort(body),
    }
    if isinstance(body, OllamaChat):
        tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
        return GenerateRequest(
            **shared,
            messages=_messages(body.messages),
            tool_use=ToolUse(tools=tools) if tools else None,
            continues=body.messages[-1].role == "assistant",
        )
    if body.raw:
        return GenerateRequest(**shared, prompt=body.prompt)
    system = [{"role": "system", "content": body.system}] if body.system else []
    return GenerateRequest(**shared, messages=[*system, {"role": "user", "content": body.prompt}])


def _stops(body: Ask) -> list[str]:
    try:
        return stops_of(body.options.stop if body.options else None)
    except RequestError as error:
        raise RequestError(error.message, param="options.stop") from error


def _format(body: Ask) -> Format | None:
    if not body.format:
        return None
    schema = {"type": "object"} if body.format == "json" else body.format
    check_schema(schema, "format")
    return Format(kind="json", text=json.dumps(schema), param="format")


def _effort(body: Ask) -> str | None:
    match body.think:
        case None:
            return None
        case False:
            return "none"
        case True:
            return "medium"
        case level:
            return level


def _messages(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        plain: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking:
            plain["reasoning_content"] = message.thinking
        if message.tool_name:
            plain["name"] = message.tool_name
        if message.tool_call_id:
            plain["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            plain["tool_calls"] = [_called(call) for call in message.tool_calls]
        found.append(plain)
    return found


def _called(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id or "", "type": "function", "function": function}


# Answers.


class Speaker:
    """What is said of one answer, as Ollama says it: calls are told whole."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._model = model
        self._chat = chat
        self._calls: list[MadeCall] = []
        self._told = 0
        self._reason: FinishReason | None = None

    def say(self, delta: Delta) -> Said | None:
        """What is new; nothing, if that is a part of a call or nothing at all."""
        self._reason = delta.finish_reason or self._reason
        for call in delta.calls:
            add_call(self._calls, call)
        calls = self._complete(last=delta.finish_reason is not None)
        if not (delta.text or delta.reasoning or delta.logprobs or calls):
            return None
        return self._said(delta.text, delta.reasoning, calls, delta.logprobs)

    def whole(self, deltas: Sequence[Delta], stats: Stats) -> Said:
        """All of it at once."""
        for delta in deltas:
            self._reason = delta.finish_reason or self._reason
            for call in delta.calls:
                add_call(self._calls, call)
        text = "".join(delta.text for delta in deltas)
        thought = "".join(delta.reasoning for delta in deltas)
        logprobs = [each for delta in deltas for each in delta.logprobs]
        said = self._said(text, thought, self._complete(last=True), logprobs)
        return said.model_copy(update=self._ending(stats))

    def end(self, stats: Stats) -> Said:
        """The last line of a stream."""
        return self._said("", "", [], []).model_copy(update=self._ending(stats))

    def loaded(self, reason: Literal["load", "unload"] = "load") -> Said:
        """The answer where nothing was to be said."""
        update = {"done": True, "done_reason": reason}
        return self._said("", "", [], []).model_copy(update=update)

    def _complete(self, *, last: bool) -> list[ToolSaid]:
        """Calls that have come to their end: another has begun, or the answer has ended."""
        end = len(self._calls) if last else max(len(self._calls) - 1, 0)
        calls = self._calls[self._told : end]
        self._told = max(end, self._told)
        return [
            ToolSaid(function=FunctionSaid(name=call.name, arguments=call.fields)) for call in calls
        ]

    def _said(
        self, text: str, thought: str, calls: list[ToolSaid], logprobs: Sequence[TokenLogprob]
    ) -> Said:
        said = Said(
            model=self._model,
            created_at=_time(datetime.now(UTC)),
            logprobs=[_token(each) for each in logprobs] or None,
            done=False,
        )
        thinking = thought or None
        if not self._chat:
            return said.model_copy(update={"response": text, "thinking": thinking})
        message = MessageSaid(content=text, thinking=thinking, tool_calls=calls or None)
        return said.model_copy(update={"message": message})

    def _ending(self, stats: Stats) -> dict[str, Any]:
        prefill = max(stats.ttft - stats.queue_time, 0.0)
        return {
            "done": True,
            "done_reason": "length" if self._reason is FinishReason.LENGTH else "stop",
            "total_duration": _nanoseconds(stats.total_time),
            "load_duration": 0,
            "prompt_eval_count": stats.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(prefill),
            "eval_count": stats.generation_tokens,
            "eval_duration": _nanoseconds(max(stats.total_time - stats.ttft, 0.0)),
        }


def _token(found: TokenLogprob) -> TokenSaid:
    top = [_token(each) for each in found.top] or None
    return TokenSaid(
        token=found.token, logprob=found.logprob, bytes=list(found.raw), top_logprobs=top
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


# Models.


def tag_of(card: ModelCard) -> TagView:
    return TagView(
        name=card.model_id,
        model=card.model_id,
        modified_at=modified_at(card),
        size=card.storage_size,
        digest=_digest(card),
        details=details_of(card),
    )


def running_of(card: ModelCard, expires_in: float | None) -> RunningView:
    """A model that is unloaded in so many seconds if nobody uses it; None: it stays."""
    return RunningView(
        name=card.model_id,
        model=card.model_id,
        size=card.storage_size,
        size_vram=card.storage_size,
        digest=_digest(card),
        details=details_of(card),
        expires_at=_NEVER if expires_in is None else _time(_in(expires_in)),
        context_length=card.context_length,
    )


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def modified_at(card: ModelCard) -> str:
    return _time(datetime.fromtimestamp(card.created, UTC))


def details_of(card: ModelCard) -> Details:
    return Details(
        family=card.family,
        families=[card.family],
        parameter_size=_parameters(card),
        quantization_level=str(card.quantization) if card.quantization else card.dtype,
    )


def info_of(card: ModelCard) -> dict[str, Any]:
    """The model's shape, under the names of Ollama's."""
    kind = card.architecture
    return {
        "general.architecture": kind,
        f"{kind}.context_length": card.context_length,
        f"{kind}.block_count": card.n_layers,
        f"{kind}.embedding_length": card.hidden_size,
        f"{kind}.attention.head_count": card.n_heads,
        f"{kind}.attention.head_count_kv": card.n_kv_heads,
        f"{kind}.vocab_size": card.vocab_size,
    }


def _parameters(card: ModelCard) -> str:
    """Roughly how many weights, by the bytes that they take."""
    bits = card.quantization.bits if card.quantization else (32 if card.dtype == "float32" else 16)
    count = card.storage_size * 8 / bits
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


def _digest(card: ModelCard) -> str:
    """The same for two copies of a model, and not for others."""
    return hashlib.sha256(card.shape.encode()).hexdigest()
