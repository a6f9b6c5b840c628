"""`/v1/chat/completions` and its benchmarked twin."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from exo import __version__
from exo.api.access import Access
from exo.api.answers import Collected, collect
from exo.api.chat_adapter import (
    call_delta,
    check,
    generation_stats,
    logprobs_view,
    message_view,
    to_generate,
)
from exo.api.chat_schema import ChatRequest
from exo.api.chat_views import (
    BenchCompletion,
    ChatChunk,
    ChatCompletion,
    ChoiceView,
    ChunkChoiceView,
    DeltaView,
    UsageView,
)
from exo.api.context import context_of
from exo.api.routes import Route, read_json, validate
from exo.api.sse import EventStream
from exo.api.unsupported import without_unsupported
from exo.cluster.requests import Output
from exo.inference.ids import new_id
from exo.inference.messages import Finished
from exo.inference.types import Delta, FinishReason, Stats


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
        """The chunks for one delta: its thoughts, its text, its calls, then its end."""
        parts: list[DeltaView] = []
        if delta.reasoning:
            parts.append(DeltaView(reasoning_content=delta.reasoning))
        if delta.text or delta.logprobs:
            parts.append(DeltaView(content=delta.text))
        parts += [DeltaView(tool_calls=[call_delta(call)]) for call in delta.calls]
        chunks = [self._chunk_of(delta, part) for part in parts]
        if delta.finish_reason:
            chunks.append(self._chunk_of(delta, DeltaView(), delta.finish_reason))
        return chunks

    def _chunk_of(
        self, delta: Delta, part: DeltaView, reason: FinishReason | None = None
    ) -> ChatChunk:
        says = part.content is not None and delta.logprobs
        choice = ChunkChoiceView(
            index=delta.index,
            delta=part,
            logprobs=logprobs_view(delta.logprobs) if says else None,
            finish_reason=reason,
        )
        return self.chunk([choice])

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

    def whole(self, answers: list[Collected], stats: Stats) -> ChatCompletion:
        choices = [
            ChoiceView(
                index=index,
                message=message_view(answer),
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
    check(body)  # What is wrong with the request itself is said before a model is loaded.
    stream = EventStream(request) if body.stream else None
    instance = await context.begin(body.model, stream=stream)
    completion = _Completion(body, instance.card.model_id, bench=bench)
    generate = to_generate(body, instance.card, completion.id)
    outputs = context.generate(instance, generate)
    async with aclosing(outputs):
        await anext(outputs)  # Accepted; or a refusal, which still can be an HTTP status.
        if stream is not None:
            return await _stream(stream, completion, outputs, generate.n)
        return await _whole(completion, outputs, generate.n)


async def _whole(completion: _Completion, outputs: AsyncGenerator[Output], n: int) -> web.Response:
    data = completion.whole(*await collect(outputs, n)).model_dump(mode="json")
    for choice in data["choices"]:
        message = choice["message"]
        for name in ("reasoning_content", "tool_calls"):
            if message[name] is None:
                del message[name]
    return web.json_response(data)


async def _stream(
    stream: EventStream, completion: _Completion, outputs: AsyncGenerator[Output], n: int
) -> web.StreamResponse:
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
        choice["delta"] = _told(choice["delta"])
    return data


def _told(value: Any) -> Any:
    """Without what is not said."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _told(each) for name, each in fields.items() if each is not None}
    return [_told(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/v1/chat/completions", create, "Answer a conversation", ChatCompletion, "chat",
          body=ChatRequest, streams=ChatChunk, errors=_ERRORS, access=Access.INFERENCE),
    Route("POST", "/bench/chat/completions", create_bench, "Answer, with statistics",
          BenchCompletion, "chat", body=ChatRequest, streams=ChatChunk, errors=_ERRORS,
          access=Access.INFERENCE),
]  # fmt: skip
