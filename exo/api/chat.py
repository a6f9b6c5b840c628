"""`/v1/chat/completions` and its benchmarked twin."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from aiohttp import web

from exo import __version__
from exo.api.chat_adapter import generation_stats, logprobs_view, to_generate
from exo.api.chat_format import format_of
from exo.api.chat_schema import (
    AnswerView,
    BenchCompletion,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChoiceView,
    ChunkChoiceView,
    DeltaView,
    UsageView,
)
from exo.api.context import context_of
from exo.api.routes import Route, json_response, read_json, validate
from exo.api.sse import EventStream
from exo.api.unsupported import without_unsupported
from exo.cluster.requests import Output
from exo.errors import EngineError, Unavailable
from exo.inference.ids import new_id
from exo.inference.messages import Finished
from exo.inference.types import Delta, FinishReason, Stats, TokenLogprob


@dataclass
class _Answer:
    """Answer `index` as far as it has come."""

    text: list[str] = field(default_factory=list[str])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish_reason: FinishReason | None = None


class _Completion:
    """One request on its way through the API."""

    def __init__(self, body: ChatRequest, model: str, *, bench: bool) -> None:
        self.id = new_id("chatcmpl")
        self.created = int(time.time())
        self.model = model
        self.fingerprint = f"exo-{__version__}"
        self.wants_logprobs = bool(body.logprobs)
        self.wants_usage = body.stream_options is not None and body.stream_options.include_usage
        self.bench = bench

    def chunk(self, choices: list[ChunkChoiceView]) -> ChatChunk:
        return ChatChunk(
            id=self.id,
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
        )

    def opening(self, index: int) -> ChatChunk:
        """The first chunk of an answer, which names the role."""
        delta = DeltaView(role="assistant", content="")
        choice = ChunkChoiceView(index=index, delta=delta, logprobs=None, finish_reason=None)
        return self.chunk([choice])

    def progress(self, delta: Delta) -> list[ChatChunk]:
        """The chunks for one delta: its text, then its end."""
        chunks: list[ChatChunk] = []
        logprobs = logprobs_view(delta.logprobs) if delta.logprobs else None
        if delta.text or logprobs:
            choice = ChunkChoiceView(
                index=delta.index,
                delta=DeltaView(content=delta.text),
                logprobs=logprobs,
                finish_reason=None,
            )
            chunks.append(self.chunk([choice]))
        if delta.finish_reason:
            end = ChunkChoiceView(
                index=delta.index,
                delta=DeltaView(),
                logprobs=None,
                finish_reason=delta.finish_reason,
            )
            chunks.append(self.chunk([end]))
        return chunks

    def ending(self, stats: Stats) -> ChatChunk | None:
        """The chunk after the last choice, if the client asked for usage or statistics."""
        if not self.wants_usage and not self.bench:
            return None
        return self.chunk([]).model_copy(
            update={
                "usage": UsageView.of(stats) if self.wants_usage else None,
                "generation_stats": generation_stats(stats) if self.bench else None,
            }
        )

    def whole(self, answers: list[_Answer], stats: Stats) -> ChatCompletion:
        choices = [
            ChoiceView(
                index=index,
                message=AnswerView(content="".join(answer.text)),
                logprobs=logprobs_view(answer.logprobs) if self.wants_logprobs else None,
                finish_reason=answer.finish_reason or FinishReason.STOP,
            )
            for index, answer in enumerate(answers)
        ]
        completion = ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=UsageView.of(stats),
            system_fingerprint=self.fingerprint,
        )
        if not self.bench:
            return completion
        return BenchCompletion(**dict(completion), generation_stats=generation_stats(stats))


async def create(request: web.Request) -> web.StreamResponse:
    return await _create(request, bench=False)


async def create_bench(request: web.Request) -> web.StreamResponse:
    return await _create(request, bench=True)


async def _create(request: web.Request, *, bench: bool) -> web.StreamResponse:
    context = context_of(request)
    body = validate(ChatRequest, without_unsupported(await read_json(request)))
    if context.draining:
        raise Unavailable("This node is stopping.", hint="Try another node.", retry_after=5)
    format_of(body)  # What is wrong with the request itself is said before a model is loaded.
    instance = await context.serving.instance_for(body.model)
    completion = _Completion(body, instance.card.model_id, bench=bench)
    generate = to_generate(body, instance.card, completion.id)
    outputs = context.node.generate(instance, generate)
    async with aclosing(outputs):
        await anext(outputs)  # Accepted; or a refusal, which still can be an HTTP status.
        if body.stream:
            return await _stream(request, completion, outputs, generate.n)
        return await _whole(completion, outputs, generate.n)


async def _whole(completion: _Completion, outputs: AsyncGenerator[Output], n: int) -> web.Response:
    answers = [_Answer() for _ in range(n)]
    async for output in outputs:
        match output:
            case Delta():
                answer = answers[output.index]
                answer.text.append(output.text)
                answer.logprobs += output.logprobs
                answer.finish_reason = output.finish_reason or answer.finish_reason
            case Finished(stats=stats):
                return json_response(completion.whole(answers, stats))
            case _:
                pass
    raise EngineError("The runner ended the answer without finishing it.")


async def _stream(
    request: web.Request, completion: _Completion, outputs: AsyncGenerator[Output], n: int
) -> web.StreamResponse:
    stream = EventStream(request)
    await stream.open()

    async def send(output: Output) -> None:
        chunks: list[ChatChunk] = []
        if isinstance(output, Delta):
            chunks = completion.progress(output)
        elif isinstance(output, Finished):
            ending = completion.ending(output.stats)
            chunks = [ending] if ending else []
        for chunk in chunks:
            await stream.send(_chunk_json(completion, chunk))

    for index in range(n):
        await stream.send(_chunk_json(completion, completion.opening(index)))
    if await stream.forward(outputs, send):
        await stream.done()
    return stream.response


def _chunk_json(completion: _Completion, chunk: ChatChunk) -> dict[str, object]:
    """A chunk as OpenAI sends it: `usage` is there (null) only when usage was asked for, and a
    delta has only what is new."""
    data = chunk.model_dump(mode="json")
    if not completion.wants_usage:
        del data["usage"]
    if chunk.generation_stats is None:
        del data["generation_stats"]
    for choice in data["choices"]:
        choice["delta"] = {k: v for k, v in choice["delta"].items() if v is not None}
    return data


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/v1/chat/completions", create, "Answer a conversation", ChatCompletion, "chat",
          body=ChatRequest, streams=ChatChunk, errors=_ERRORS),
    Route("POST", "/bench/chat/completions", create_bench, "Answer, with statistics",
          BenchCompletion, "chat", body=ChatRequest, streams=ChatChunk, errors=_ERRORS),
]  # fmt: skip
