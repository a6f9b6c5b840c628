"""`/v1/messages` and `/v1/messages/count_tokens`, as Anthropic has them."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from exo.api.access import Access
from exo.api.answers import collect
from exo.api.anthropic_adapter import (
    check,
    content_of,
    stop_reason,
    supported,
    to_count,
    to_generate,
    usage_of,
)
from exo.api.anthropic_schema import (
    CountRequest,
    CountView,
    MessageEvent,
    MessagesRequest,
    MessageUsage,
    MessageView,
)
from exo.api.anthropic_stream import Blocks, Event
from exo.api.context import context_of
from exo.api.dry import dry
from exo.api.error_shapes import ANTHROPIC, AnthropicErrorView, anthropic_error
from exo.api.routes import Route, json_response, read_json, validate
from exo.api.sse import EventStream
from exo.cluster.requests import Output
from exo.inference.ids import new_id
from exo.inference.messages import Accepted, Finished
from exo.inference.types import Delta


async def create(request: web.Request) -> web.StreamResponse:
    context = context_of(request)
    body = validate(MessagesRequest, supported(await read_json(request)))
    check(body)  # What is wrong with the request itself is said before a model is loaded.
    stream = EventStream(request, anthropic_error) if body.stream else None
    instance = await context.begin(body.model, stream=stream)
    name = f"msg_{new_id('').strip('-')}"
    generate = to_generate(body, instance.card, name)
    outputs = context.generate(instance, generate)
    view = MessageView(
        id=name,
        model=instance.card.model_id,
        content=[],
        stop_reason=None,
        stop_sequence=None,
        usage=MessageUsage(input_tokens=0, output_tokens=0),
    )
    async with aclosing(outputs):
        accepted = await anext(outputs)  # Or a refusal, which still can be an HTTP status.
        if stream is not None:
            tokens = accepted.prompt_tokens if isinstance(accepted, Accepted) else 0
            usage = MessageUsage(input_tokens=tokens, output_tokens=0)
            return await _stream(stream, view.model_copy(update={"usage": usage}), outputs)
        [answer], stats = await collect(outputs, 1)
    told = {
        "content": content_of(answer),
        "stop_reason": stop_reason(answer.finish_reason, answer.stop),
        "stop_sequence": answer.stop,
        "usage": usage_of(stats),
    }
    return json_response(view.model_copy(update=told))


async def _stream(
    stream: EventStream, view: MessageView, outputs: AsyncIterator[Output]
) -> web.StreamResponse:
    await stream.open()
    blocks = Blocks()

    async def send(output: Output) -> None:
        events: list[Event] = []
        if isinstance(output, Delta):
            events = blocks.events(output)
        elif isinstance(output, Finished):
            events = blocks.ending(output.stats)
        for event in events:
            await stream.send(event, event=event["type"])

    await stream.send(
        {"type": "message_start", "message": view.model_dump(mode="json")}, event="message_start"
    )
    await stream.forward(outputs, send)
    return stream.response


async def count(request: web.Request) -> web.Response:
    context = context_of(request)
    body = validate(CountRequest, supported(await read_json(request)))
    check(body)
    instance = await context.begin(body.model)
    found = await dry(context, instance, to_count(body, new_id("tok")))
    return json_response(CountView(input_tokens=found.prompt_tokens))


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", ANTHROPIC, create, "Answer a conversation (Anthropic's way)",
          MessageView, "anthropic", body=MessagesRequest, streams=MessageEvent, errors=_ERRORS,
          error=AnthropicErrorView, access=Access.INFERENCE),
    Route("POST", f"{ANTHROPIC}/count_tokens", count, "Count a conversation's tokens",
          CountView, "anthropic", body=CountRequest, errors=_ERRORS, error=AnthropicErrorView,
          access=Access.INFERENCE),
]  # fmt: skip
