"""The engine for encoders: it makes vectors, and nothing else."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import NoReturn

import mlx.core as mx
from tokenizers import Tokenizer

from exo.errors import EngineError, ModelInvalid, RequestError
from exo.inference.engine import (
    WARM_UP,
    Detokenizer,
    EmbedSpec,
    OnProgress,
    Prepared,
    Sampled,
    SequenceSpec,
)
from exo.inference.kernels.use import use_kernels
from exo.inference.messages import DraftStats, Load
from exo.inference.mlx.encoder_loading import open_encoder, read_weights
from exo.inference.mlx.encoding import EncoderEmbedder
from exo.inference.mlx.loading import size_of
from exo.inference.types import EmbedRequest, GenerateRequest
from exo.models.pooling import Pooling, read_pooling

# Tokens that are computed in one step: others' requests wait for it.
_STEP_CPU = 256
_STEP_GPU = 2048


class EncoderEngine:
    """A whole encoder on this node's device."""

    def __init__(self) -> None:
        self._on_cpu = mx.default_device() == mx.Device(mx.cpu)
        if self._on_cpu:
            # As in `MlxEngine`.
            mx.disable_compile()
        self._kernels = use_kernels()
        self._load: Load | None = None
        self._tokenizer: Tokenizer | None = None
        self._pooling: Pooling | None = None
        self._embedder: EncoderEmbedder | None = None

    def load(self, load: Load, progress: OnProgress) -> int:
        model = open_encoder(load.path, cast_float32=load.cast_float32, kernels=self._kernels)
        self._tokenizer = _open_tokenizer(load)
        read_weights(model, progress)
        self._pooling = read_pooling(load.path)
        self._load = load
        step = _STEP_CPU if self._on_cpu else _STEP_GPU
        self._embedder = EncoderEmbedder(model, self._pooling, step=step, limit=load.kv_tokens)
        return size_of(model)

    def warm_up(self) -> None:
        embedder = self._loaded()
        embedder.add(EmbedSpec(WARM_UP.sequence_id, [WARM_UP.prompt]))
        while not embedder.waiting:
            embedder.step()
        mx.reset_peak_memory()

    def prepare(self, request: GenerateRequest) -> Prepared:
        """Only for what a prompt's tokens are."""
        if not request.dry or request.prompt is None or self._tokenizer is None:
            _refuse()
        prompt = request.prompt
        if isinstance(prompt, str):
            prompt = self._tokenizer.encode(prompt, add_special_tokens=request.special).ids
        text = self._tokenizer.decode(list(prompt), skip_special_tokens=False)
        return Prepared(prompt, text=text)

    def prepare_texts(self, request: EmbedRequest) -> Prepared:
        tokenizer, pooling, load = self._tokenizer, self._pooling, self._load
        if tokenizer is None or pooling is None or load is None:
            raise EngineError("No model is loaded in this runner.")
        pooling.check(request.dimensions)
        texts = [
            tokenizer.encode(text).ids if isinstance(text, str) else text for text in request.inputs
        ]
        if request.truncate:
            # What ends a text stays behind it.
            most = load.context_length
            texts = [t if len(t) <= most else [*t[: most - 1], t[-1]] for t in texts]
        return Prepared(texts=texts)

    @property
    def embedder(self) -> EncoderEmbedder:
        return self._loaded()

    def detokenizer(self) -> Detokenizer:
        _refuse()

    def token_text(self, token: int) -> tuple[str, bytes]:
        del token
        _refuse()

    def add(self, sequences: Sequence[SequenceSpec]) -> None:
        if sequences:
            _refuse()

    def remove(self, sequence_ids: Sequence[int]) -> None:
        """There are none."""

    def step(self) -> list[Sampled]:
        return []

    @property
    def waiting(self) -> bool:
        return self._loaded().waiting

    @property
    def draft_stats(self) -> DraftStats | None:
        return None

    def peak_memory(self) -> int:
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
        return peak

    def _loaded(self) -> EncoderEmbedder:
        if self._embedder is None:
            raise EngineError("No model is loaded in this runner.")
        return self._embedder


def _open_tokenizer(load: Load) -> Tokenizer:
    """Many say that texts be cut and filled up: that is the request's to decide, and a batch's."""
    try:
        tokenizer = Tokenizer.from_file(str(load.path / "tokenizer.json"))
    except Exception as error:  # It raises nothing more precise.
        raise ModelInvalid(f"The tokenizer.json of {load.path} cannot be read: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _refuse() -> NoReturn:
    raise RequestError(
        "This model makes vectors; it does not answer in words.",
        hint="Use /v1/embeddings.",
        param="model",
    )
