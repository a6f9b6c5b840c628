"""What a runner does with messages: pure but for the engine it drives.

`handle` takes a message from the daemon, `step` advances all sequences by one step; both return
the messages to send back. No thread and no socket; the clock is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from exo.errors import ContextLengthExceeded, ExoError, RequestError
from exo.inference.answer import Answer
from exo.inference.engine import Engine, Prepared, Sampled, SequenceSpec
from exo.inference.messages import (
    Accepted,
    Cancel,
    DraftStats,
    Embed,
    Finished,
    Generate,
    Load,
    LoadStats,
    RequestFailed,
    Tokens,
    WireError,
)
from exo.inference.runner.embedding import Embeddings
from exo.inference.scheduler import Scheduler
from exo.inference.types import (
    Delta,
    EmbedRequest,
    GenerateRequest,
    PrefixCacheHit,
    Stats,
    Wire,
)

NEWS_SECONDS = 1.0
_NOTHING = Prepared()


@dataclass
class _Open:
    """A request that is not finished."""

    request: GenerateRequest
    prompt: Sequence[int]
    arrived: float
    sequences: set[int] = field(default_factory=set[int])
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    prefill: tuple[float, ...] = ()
    decode: tuple[float, ...] = ()
    step: int | None = None

    def spend(self, token: Sampled) -> None:
        """Take in how long the stages computed for a token; a step counts once, however many of
        the request's tokens come of it."""
        self.prefill = _sum(self.prefill, token.prompt_seconds)
        if token.step != self.step:
            self.step = token.step
            self.decode = _sum(self.decode, token.seconds)


class Service:
    """The requests of one shard, from arrival to the last token."""

    def __init__(self, engine: Engine, load: Load, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._load = load
        self._scheduler = Scheduler(load.max_concurrency, load.kv_tokens, load.max_queue)
        self._embeddings = Embeddings(engine, load, self._scheduler, clock)
        self._open: dict[str, _Open] = {}
        self._specs: dict[int, SequenceSpec] = {}
        self._answers: dict[int, Answer] = {}
        self._next_id = 0
        self._told: list[DraftStats | LoadStats] = []
        self._told_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._answers) or self._embeddings.busy

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return self._scheduler.waiting

    @property
    def load_stats(self) -> LoadStats:
        """How much there is to do, in sequences and bytes of KV memory."""
        per_token = self._load.kv_bytes_per_token
        return LoadStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            kv_reserved=self._scheduler.reserved * per_token,
            kv_capacity=self._load.kv_tokens * per_token,
        )

    @property
    def trace_ids(self) -> list[str]:
        """Of the requests that are open."""
        answers = [entry.request.trace_id for entry in self._open.values()]
        return [*answers, *self._embeddings.trace_ids]

    def handle(
        self, message: Generate | Embed | Cancel, prepared: Prepared = _NOTHING
    ) -> list[Wire]:
        """Take in a request, made ready, or a cancellation."""
        if isinstance(message, Cancel):
            self._forget(message.request_id)
            # Nobody may step any more to tell it.
            return [] if self.busy else self._news(self._clock())
        request = message.request
        if isinstance(request, EmbedRequest):
            return self._embed(request, prepared)
        if request.dry:
            return _dry(request, prepared)
        try:
            self._submit(request, prepared)
        except ExoError as error:
            return [RequestFailed(request_id=request.request_id, error=WireError.of(error))]
        return [Accepted(request_id=request.request_id, prompt_tokens=len(prepared.prompt))]

    def step(self) -> list[Wire]:
        """Admit what fits, compute one step, report it, and admit what fits then."""
        refused = self._admit()
        sampled = self._engine.step()
        now = self._clock()
        messages = [*refused, *self._report(sampled, now), *self._embeddings.step()]
        return [*messages, *self._admit(), *self._news(now)]

    def _news(self, now: float) -> list[Wire]:
        """How much there is to do and what became of drafts, as far as it has changed: every
        second, and when nothing is open."""
        if self.busy and now - self._told_at < NEWS_SECONDS:
            return []
        news = [each for each in (self._engine.draft_stats, self.load_stats) if each is not None]
        fresh = [each for each in news if each not in self._told]
        self._told, self._told_at = news, now
        return list(fresh)

    def fail_all(self, error: ExoError) -> list[Wire]:
        """Give up every open request, when a step could not be computed."""
        failed = [*self._open, *self._embeddings.requests]
        for request_id in failed:
            self._forget(request_id)
        told = [RequestFailed(request_id=r, error=WireError.of(error)) for r in failed]
        return [*told, self.load_stats]

    def _embed(self, request: EmbedRequest, prepared: Prepared) -> list[Wire]:
        try:
            tokens = self._embeddings.submit(request, prepared.texts, self._next_id)
        except ExoError as error:
            return [RequestFailed(request_id=request.request_id, error=WireError.of(error))]
        self._next_id += 1
        return [Accepted(request_id=request.request_id, prompt_tokens=tokens)]

    def _submit(self, request: GenerateRequest, prepared: Prepared) -> None:
        prompt = prepared.prompt
        if not prompt:
            what, param = "The model's chat template makes nothing of these messages.", "messages"
            if request.prompt is not None:
                what, param = "The prompt is empty.", "prompt"
            raise RequestError(what, param=param)
        room = self._load.context_length - len(prompt)
        wanted = request.max_tokens or max(room, 1)
        if wanted > room:
            raise ContextLengthExceeded(
                f"This model's context is {self._load.context_length} tokens; the request needs "
                f"{len(prompt) + wanted} ({len(prompt)} of the messages, {wanted} for the answer).",
                hint="Shorten the messages or max_tokens.",
                param="messages",
            )
        ids = range(self._next_id, self._next_id + request.n)
        tokens = dict.fromkeys(ids, len(prompt) + wanted)
        self._scheduler.submit(tokens, request.lane, batch=request.batch)
        self._next_id = ids.stop
        self._open[request.request_id] = _Open(request, prompt, self._clock(), set(ids))
        for index, sequence_id in enumerate(ids):
            self._answers[sequence_id] = Answer(request, index, self._engine, prepared.speech)
            self._specs[sequence_id] = SequenceSpec(
                sequence_id=sequence_id,
                prompt=prompt,
                max_tokens=wanted,
                sampling=request.sampling,
                index=index,
                logprobs=request.logprobs,
                use_prefix_cache=request.use_prefix_cache,
                grammar=prepared.grammar,
            )

    def _admit(self) -> list[Wire]:
        """Begin with what fits; tell of what cannot be begun after all."""
        admitted = self._scheduler.admit()
        refused = [wire for each in admitted for wire in self._embeddings.admit(each)]
        specs = [self._specs.pop(each) for each in admitted if each in self._specs]
        if not specs:
            return refused
        now = self._clock()
        self._engine.add(specs)
        for spec in specs:
            entry = self._open[self._answers[spec.sequence_id].request_id]
            if entry.started is None:
                entry.started = now
        return refused

    def _report(self, sampled: Sequence[Sampled], now: float) -> list[Wire]:
        deltas: list[Delta] = []
        finished: list[Wire] = []
        stopped: list[int] = []
        for token in sampled:
            answer = self._answers.get(token.sequence_id)
            if answer is None:
                continue
            if token.failure is not None:
                finished.append(self._give_up(answer.request_id, token.failure))
                continue
            delta = answer.add(token)
            deltas.append(delta)
            entry = self._open[delta.request_id]
            entry.tokens += 1
            entry.spend(token)
            if delta.finish_reason is not None:
                entry.reasoning_tokens += answer.reasoning_tokens
            entry.cached_tokens = max(entry.cached_tokens, token.cached_tokens)
            if entry.first_token is None:
                entry.first_token = now
            entry.last_token = now
            if delta.finish_reason is not None:
                if token.finish_reason is None:
                    stopped.append(token.sequence_id)
                self._release(token.sequence_id)
                if not entry.sequences:
                    finished.append(self._finish(entry, now))
        if stopped:
            self._engine.remove(stopped)
        return [Tokens(deltas=deltas), *finished] if deltas else finished

    def _give_up(self, request_id: str, failure: str) -> RequestFailed:
        """A grammar that was taken, and is too costly after all for what came of it."""
        form = self._open[request_id].request.format
        self._forget(request_id)
        error = RequestError(
            f"The answer could not be held to its grammar any further: {failure}.",
            param=form.param if form else None,
        )
        return RequestFailed(request_id=request_id, error=WireError.of(error))

    def _finish(self, entry: _Open, now: float) -> Finished:
        del self._open[entry.request.request_id]
        started = now if entry.started is None else entry.started
        first = now if entry.first_token is None else entry.first_token
        prefill = max(first - started, 1e-9)
        decode = (first if entry.last_token is None else entry.last_token) - first
        prompt = len(entry.prompt)
        stats = Stats(
            prompt_tokens=prompt,
            generation_tokens=entry.tokens,
            cached_tokens=entry.cached_tokens,
            reasoning_tokens=entry.reasoning_tokens,
            prefix_cache_hit=_hit(entry.cached_tokens, prompt),
            queue_time=started - entry.arrived,
            ttft=first - entry.arrived,
            total_time=now - entry.arrived,
            prompt_tps=(prompt - entry.cached_tokens) / prefill,
            generation_tps=(entry.tokens - entry.request.n) / decode if decode > 0 else 0.0,
            peak_memory_usage=self._engine.peak_memory(),
            prefill_stages=entry.prefill,
            decode_stages=entry.decode,
        )
        return Finished(request_id=entry.request.request_id, stats=stats)

    def _forget(self, request_id: str) -> None:
        entry = self._open.pop(request_id, None)
        if entry is None:
            self._embeddings.forget(request_id)
            return
        running = [s for s in sorted(entry.sequences) if self._release(s)]
        if running:
            self._engine.remove(running)

    def _release(self, sequence_id: int) -> bool:
        answer = self._answers.pop(sequence_id)
        self._specs.pop(sequence_id, None)
        if entry := self._open.get(answer.request_id):
            entry.sequences.discard(sequence_id)
        return self._scheduler.release(sequence_id)


def _sum(known: tuple[float, ...], more: tuple[float, ...]) -> tuple[float, ...]:
    """By stage."""
    return tuple(a + b for a, b in zip_longest(known, more, fillvalue=0.0)) if more else known


def _dry(request: GenerateRequest, prepared: Prepared) -> list[Wire]:
    count = len(prepared.prompt)
    accepted = Accepted(
        request_id=request.request_id,
        prompt_tokens=count,
        prompt=list(prepared.prompt),
        text=prepared.text,
    )
    stats = Stats(
        prompt_tokens=count,
        generation_tokens=0,
        queue_time=0.0,
        ttft=0.0,
        total_time=0.0,
        prompt_tps=0.0,
        generation_tps=0.0,
        peak_memory_usage=0,
    )
    return [accepted, Finished(request_id=request.request_id, stats=stats)]


def _hit(cached: int, prompt: int) -> PrefixCacheHit:
    if not cached:
        return PrefixCacheHit.NONE
    # The last token of a prompt is always computed: its logits are what is wanted.
    return PrefixCacheHit.EXACT if cached >= prompt - 1 else PrefixCacheHit.PARTIAL
