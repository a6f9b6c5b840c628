"""The engine that computes with MLX and mlx-lm."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import time
from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
from jinja2 import TemplateError

from exo.errors import EngineError, ModelInvalid, RequestError
from exo.inference.engine import (
    WARM_UP,
    Detokenizer,
    OnProgress,
    Prepared,
    Sampled,
    SequenceSpec,
)
from exo.inference.grammars.compiler import Grammars
from exo.inference.grammars.text import grammar_of
from exo.inference.kernels.use import use_kernels
from exo.inference.messages import DraftStats, Load, RingStats
from exo.inference.mlx import loading
from exo.inference.mlx.adapter import TokenizerWrapper, open_tokenizer
from exo.inference.mlx.carriers import OverGroup, OverRing
from exo.inference.mlx.dialect import Dialect
from exo.inference.mlx.drafting import Drafting, open_drafting
from exo.inference.mlx.embedding import MlxEmbedder
from exo.inference.mlx.executor import Executor
from exo.inference.mlx.facts import facts
from exo.inference.mlx.group import join
from exo.inference.mlx.pipelines import Alone, Follower, Head, Pipeline
from exo.inference.mlx.slices import slices_of
from exo.inference.mlx.stage import Stage
from exo.inference.mlx.together import Leader, Member, SharedModel
from exo.inference.mlx.token_text import TokenText
from exo.inference.mlx.vocabulary import open_grammars
from exo.inference.planner import Planner, PlannerOptions
from exo.inference.prefix_index import PrefixIndex, common_length
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame
from exo.inference.ring.gathering import Address
from exo.inference.types import EmbedRequest, GenerateRequest
from exo.models.pooling import read_pooling

# A prefill chunk holds up everyone's next token; a CPU takes long over the same number of tokens.
_PREFILL_STEP_CPU = 256
_PREFILL_STEP_GPU = 2048

T = TypeVar("T")


class MlxEngine:
    """The layers of one rank on this node's device: all of a model's, or some."""

    def __init__(self) -> None:
        self._on_cpu = mx.default_device() == mx.Device(mx.cpu)
        if self._on_cpu:
            # On a CPU mx.compile runs the system's C++ compiler at the first call of each shape,
            # and two processes that do so at once may write the same file.
            mx.disable_compile()
        self._kernels = use_kernels()
        self._executor: Executor | None = None
        self._planner: Planner | None = None
        self._pipeline: Pipeline | None = None
        self._remote: Head | Follower | Leader | Member | None = None
        self._group: mx.distributed.Group | None = None
        self._stage: Stage | None = None
        self._tokenizer: TokenizerWrapper | None = None
        self._token_text: TokenText | None = None
        self._drafting = Drafting()
        self._grammars: Grammars | None = None
        self._dialect: Dialect | None = None
        self._load: Load | None = None
        self._embedder: MlxEmbedder | None = None
        self._batchable = False
        self._waiting = True

    def load(self, load: Load, progress: OnProgress) -> int:
        shard = loading.open_shard(load, self._kernels, self._group)
        if load.rank == 0:
            tokenizer = open_tokenizer(load.path, shard.config)
            self._tokenizer = tokenizer
            self._token_text = TokenText(tokenizer)
            options = PlannerOptions(
                stages=1 if load.tensor else load.size,
                ahead=not load.tensor,
                batchable=shard.batchable,
                prefill_step=_PREFILL_STEP_CPU if self._on_cpu else _PREFILL_STEP_GPU,
                slices=slices_of(shard.stage) if load.size == 1 else 1,
                end_tokens=frozenset(tokenizer.eos_token_ids),
            )
            kept = load.prefix_cache_bytes // load.kv_bytes_per_token
            self._drafting = open_drafting(load, shard, tokenizer, self._kernels)
            prefixes = PrefixIndex(kept, shard.cuttable)
            self._planner = Planner(options, prefixes, self._drafting.drafter)
        loading.read(shard.stage, load, progress)
        self._load = load
        self._stage = shard.stage
        if load.rank == 0 or shard.stage.last:
            # Where requests come in they are checked, and the last rank follows them.
            self._grammars = grammars = open_grammars(load.path, shard.config)
            if self._tokenizer is not None:
                self._dialect = Dialect(self._tokenizer, lambda: grammars.specials)
        self._executor = Executor(shard.stage, batchable=shard.batchable, grammars=self._grammars)
        if load.size == 1:
            self._pipeline = Alone(self._executor)
            self._batchable = shard.batchable
        return loading.size_of(shard.stage.model) + self._drafting.memory

    def warm_up(self) -> None:
        self.add([WARM_UP])
        while not any(sampled.finish_reason for sampled in self.step()):
            pass
        mx.reset_peak_memory()

    def prepare(self, request: GenerateRequest) -> Prepared:
        if request.prompt is not None:
            return self._plain(request, request.prompt)
        dialect = _loaded(self._dialect)
        variables = dialect.variables(request)
        messages = dialect.messages(request.messages)
        prompt = self.tokenize(messages, continues=request.continues, **variables)
        opening: Sequence[int] = ()
        if dialect.thinks:
            # What a user writes may look like a thought: only what begins the answer counts.
            before = messages[:-1] if request.continues else messages
            known = self.tokenize(before, begins=False, **variables) if before else []
            opening = prompt[common_length(prompt, known) :]
        speech = dialect.speech(request, opening)
        grammar = dialect.grammar(request, speech)
        if grammar:
            param = request.format.param if request.format else "tools"
            _loaded(self._grammars).check(grammar, param)
        return Prepared(prompt, grammar, speech, self._text(request, prompt))

    def _plain(self, request: GenerateRequest, prompt: str | Sequence[int]) -> Prepared:
        """A prompt as it is."""
        if isinstance(prompt, str):
            prompt = _loaded(self._tokenizer).encode(prompt, add_special_tokens=request.special)
        grammar = "" if request.format is None else grammar_of(request.format)
        if request.format is not None:
            _loaded(self._grammars).check(grammar, request.format.param)
        return Prepared(prompt, grammar, text=self._text(request, prompt))

    def _text(self, request: GenerateRequest, prompt: Sequence[int]) -> str:
        return _loaded(self._tokenizer).decode(list(prompt)) if request.dry else ""

    def tokenize(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        begins: bool = True,
        continues: bool = False,
        **variables: Any,
    ) -> list[int]:
        """The prompt's tokens, by the model's chat template: `begins` an answer, or `continues`
        the last message.

        Raises:
            RequestError: it refuses the messages.
        """
        tokenizer = _loaded(self._tokenizer)
        if not tokenizer.has_chat_template:
            raise RequestError(
                "This model has no chat template.", hint="Use an instruction-tuned model."
            )
        try:
            return tokenizer.apply_chat_template(
                list(messages),
                tokenize=True,
                add_generation_prompt=begins and not continues,
                continue_final_message=continues,
                **variables,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise RequestError(
                f"The model's chat template refuses these messages: {error}.", param="messages"
            ) from error

    def prepare_texts(self, request: EmbedRequest) -> Prepared:
        load = _loaded(self._load)
        pooling = read_pooling(load.path)
        pooling.check(request.dimensions)
        tokenizer = _loaded(self._tokenizer)
        texts = [
            tokenizer.encode(text) if isinstance(text, str) else text for text in request.inputs
        ]
        if request.truncate:
            # The end stays: it is where some models look.
            most = load.context_length
            texts = [t if len(t) <= most else [*t[: most - 1], t[-1]] for t in texts]
        return Prepared(texts=texts)

    @property
    def embedder(self) -> MlxEmbedder | None:
        load, stage = _loaded(self._load), _loaded(self._stage)
        if load.size > 1:
            return None
        if self._embedder is None:
            self._embedder = MlxEmbedder(
                stage.model,
                read_pooling(load.path),
                step=_PREFILL_STEP_CPU if self._on_cpu else _PREFILL_STEP_GPU,
                batchable=self._batchable,
            )
        return self._embedder

    def detokenizer(self) -> Detokenizer:
        return _loaded(self._tokenizer).detokenizer

    def token_text(self, token: int) -> tuple[str, bytes]:
        return _loaded(self._token_text)(token)

    def add(self, sequences: Sequence[SequenceSpec]) -> None:
        _loaded(self._planner).add(sequences)
        self._waiting = False

    def remove(self, sequence_ids: Sequence[int]) -> None:
        _loaded(self._planner).remove(sequence_ids)
        self._waiting = False

    def step(self) -> list[Sampled]:
        planner, pipeline = _loaded(self._planner), _loaded(self._pipeline)
        # What has come by itself is told before the next step is planned, which may follow from it;
        # what has to be waited for is told when the next step is begun.
        results = pipeline.collect() if pipeline.remote else []
        began = False
        while not results and (step := planner.next(time.perf_counter())):
            began = True
            pipeline.submit(step)
            if pipeline.remote:
                break  # Results and requests may have come meanwhile.
        if not pipeline.remote:
            results = pipeline.collect()
        self._waiting = not (began or results)
        now = time.perf_counter()
        return [sampled for result in results for sampled in planner.done(result, now)]

    @property
    def waiting(self) -> bool:
        return self._waiting and (self._embedder is None or self._embedder.waiting)

    @property
    def draft_stats(self) -> DraftStats | None:
        if self._load is None or self._load.draft is None or self._planner is None:
            return None
        speculation = self._planner.speculation
        return DraftStats(
            guessed=speculation.guessed, accepted=speculation.accepted, off=self._drafting.off
        )

    def peak_memory(self) -> int:
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
        return peak

    # As one rank of several.

    def facts(self, load: Load) -> dict[str, str]:
        try:
            return facts(load.path, load.plan)
        except OSError as error:
            raise ModelInvalid(
                f"The model at {load.path} cannot be read: {error.strerror}."
            ) from error

    def join(self, load: Load, addresses: Sequence[Address]) -> None:
        self._group = join(load.group, load.rank, addresses)

    def start(self, ring: Ring, life: int) -> None:
        executor, load = _loaded(self._executor), _loaded(self._load)
        last = load.rank == load.size - 1
        if isinstance(self._stage, SharedModel):
            if load.rank == 0:
                self._pipeline = self._remote = Leader(executor, self._stage, ring, life)
            else:
                self._remote = Member(executor, self._stage, ring, life, last=last)
            return
        carrier = OverGroup(ring, life, self._group) if self._group else OverRing(ring, life)
        if load.rank == 0:
            self._pipeline = self._remote = Head(executor, carrier)
        else:
            self._remote = Follower(executor, carrier, last=last)

    def stop(self) -> None:
        _loaded(self._executor).reset()
        if self._planner is not None:
            self._planner.reset()
        self._pipeline = self._remote = None
        self._waiting = True
        mx.clear_cache()

    def stats(self) -> RingStats:
        planner = _loaded(self._planner)
        return RingStats(
            seconds=planner.meter.seconds,
            busy=planner.meter.busy(time.perf_counter(), going_on=planner.in_flight > 0),
            hop=planner.batches.hop,
            rows=planner.decoding,
            groups=planner.groups,
        )

    def foresee(self) -> None:
        # Ranks that have parts of all layers do not wait for each other.
        if isinstance(self._remote, Head | Follower):
            _loaded(self._executor).foresee()

    def receive(self, frame: Frame) -> None:
        _loaded(self._remote).receive(frame)
        self._waiting = False


def _loaded(part: T | None) -> T:
    if part is None:
        raise EngineError("No model is loaded in this runner.")
    return part
