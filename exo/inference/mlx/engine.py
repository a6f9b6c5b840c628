"""The engine that computes with MLX and mlx-lm."""

from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
from jinja2 import TemplateError

from exo.errors import EngineError, RequestError
from exo.inference.engine import Detokenizer, OnProgress, Sampled, SequenceSpec
from exo.inference.messages import Load
from exo.inference.mlx import loading
from exo.inference.mlx.adapter import (
    Batch,
    Item,
    Output,
    PrefixCache,
    TokenizerWrapper,
    make_batch,
    open_tokenizer,
)
from exo.inference.mlx.sampling import make_processors, make_sampler, scalar, top_logprobs
from exo.inference.mlx.token_text import TokenText
from exo.inference.types import FinishReason, Sampling

# A prefill chunk holds up everyone's next token; a CPU takes long over the same number of tokens.
_PREFILL_STEP_CPU = 256
_PREFILL_STEP_GPU = 2048
_WARM_UP_TOKENS = 4

T = TypeVar("T")


class MlxEngine:
    """One whole model on this node's device."""

    def __init__(self) -> None:
        self._on_cpu = mx.default_device() == mx.Device(mx.cpu)
        if self._on_cpu:
            # On a CPU mx.compile runs the system's C++ compiler at the first call of each shape,
            # and two processes that do so at once may write the same file.
            mx.disable_compile()
        self._batch: Batch | None = None
        self._tokenizer: TokenizerWrapper | None = None
        self._token_text: TokenText | None = None
        self._prefix_cache = PrefixCache(0)
        self._specs: dict[int, SequenceSpec] = {}
        self._uids: dict[int, int] = {}

    def load(self, load: Load, progress: OnProgress) -> int:
        model, config = loading.load(load.path, load.cast_float32, progress)
        tokenizer = open_tokenizer(load.path, config)
        self._tokenizer = tokenizer
        self._token_text = TokenText(tokenizer)
        self._prefix_cache = PrefixCache(load.prefix_cache_bytes)
        self._batch = make_batch(
            model,
            sorted(tokenizer.eos_token_ids),
            load.max_concurrency,
            _PREFILL_STEP_CPU if self._on_cpu else _PREFILL_STEP_GPU,
        )
        return loading.size_of(model)

    def warm_up(self) -> None:
        batch = _loaded(self._batch)
        item = Item(
            prompt=[0] * _WARM_UP_TOKENS,
            max_tokens=2,
            sampler=make_sampler(Sampling(temperature=0), 0),
            processors=[],
        )
        batch.insert([item])
        while not any(output.finish_reason for output in batch.step()):
            pass
        mx.reset_peak_memory()

    def tokenize(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        tokenizer = _loaded(self._tokenizer)
        if not tokenizer.has_chat_template:
            raise RequestError(
                "This model has no chat template.", hint="Use an instruction-tuned model."
            )
        goes_on = bool(messages) and messages[-1].get("role") == "assistant"
        try:
            return tokenizer.apply_chat_template(
                list(messages),
                tokenize=True,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise RequestError(
                f"The model's chat template refuses these messages: {error}.", param="messages"
            ) from error

    def detokenizer(self) -> Detokenizer:
        return _loaded(self._tokenizer).detokenizer

    def token_text(self, token: int) -> tuple[str, bytes]:
        return _loaded(self._token_text)(token)

    def add(self, sequences: Sequence[SequenceSpec]) -> list[int]:
        batch = _loaded(self._batch)
        items = [self._item(spec) for spec in sequences]
        for spec, uid in zip(sequences, batch.insert(items), strict=True):
            self._specs[uid] = spec
            self._uids[spec.sequence_id] = uid
        return [len(item.cached) for item in items]

    def remove(self, sequence_ids: Sequence[int]) -> None:
        uids = [self._uids.pop(sequence_id) for sequence_id in sequence_ids]
        for uid in uids:
            del self._specs[uid]
        _loaded(self._batch).remove(uids)

    def step(self) -> list[Sampled]:
        return [self._sampled(output) for output in _loaded(self._batch).step()]

    def peak_memory(self) -> int:
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
        return peak

    def _item(self, spec: SequenceSpec) -> Item:
        prompt = list(spec.prompt)
        caches, cached = self._prefix_cache.take(prompt) if spec.use_prefix_cache else (None, 0)
        return Item(
            prompt=prompt[cached:],
            max_tokens=spec.max_tokens,
            sampler=make_sampler(spec.sampling, spec.index),
            processors=make_processors(spec.sampling, len(prompt)),
            caches=caches,
            cached=prompt[:cached],
        )

    def _sampled(self, output: Output) -> Sampled:
        spec = self._specs[output.uid]
        if output.finish_reason:
            del self._specs[output.uid]
            del self._uids[spec.sequence_id]
            if spec.use_prefix_cache and output.caches and output.cached_tokens:
                self._prefix_cache.put(output.cached_tokens, output.caches)
        wanted = spec.logprobs is not None and output.finish_reason is not FinishReason.STOP
        return Sampled(
            sequence_id=spec.sequence_id,
            token=output.token,
            finish_reason=output.finish_reason,
            logprob=scalar(output.logprobs[output.token]) if wanted else None,
            top=top_logprobs(output.logprobs, spec.logprobs or 0) if wanted else (),
        )


def _loaded(part: T | None) -> T:
    if part is None:
        raise EngineError("No model is loaded in this runner.")
    return part
