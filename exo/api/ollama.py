"""Ollama's `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`, `/api/ps`, `/api/version`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from exo import __version__
from exo.api.access import ASKER, Access
from exo.api.context import Context, context_of
from exo.api.error_shapes import OllamaErrorView, ollama_error
from exo.api.ollama_adapter import (
    Speaker,
    check,
    details_of,
    info_of,
    model_name,
    modified_at,
    running_of,
    tag_of,
    to_generate,
)
from exo.api.ollama_schema import (
    OllamaChat,
    OllamaGenerate,
    OllamaVersion,
    RunningListView,
    Said,
    ShowRequest,
    ShowView,
    TagsView,
)
from exo.api.routes import Route, json_response, read_body
from exo.api.sse import LineStream
from exo.cluster.requests import Output
from exo.cluster.state import Instance
from exo.errors import EngineError, RequestError
from exo.inference.ids import new_id
from exo.inference.messages import Finished
from exo.inference.types import Delta
from exo.models.card import Task
from exo.models.template import capabilities, read_template


async def chat(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, OllamaChat)
    return await _answer(request, body, empty=not body.messages)


async def generate(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, OllamaGenerate)
    return await _answer(request, body, empty=not body.prompt)


async def _answer(
    request: web.Request, body: OllamaChat | OllamaGenerate, *, empty: bool
) -> web.StreamResponse:
    context = context_of(request)
    check(body)  # What is wrong with the request itself is said before a model is loaded.
    speaker = Speaker(body.model, chat=isinstance(body, OllamaChat))
    keep = body.keep_seconds
    if empty and keep == 0:
        await _unload(context, model_name(body.model))
        return web.json_response(_line(speaker.loaded("unload")))
    task = Task.EMBEDDING if empty else Task.TEXT  # One for vectors can be loaded as well.
    instance = await context.begin(model_name(body.model), task)
    if empty:
        await keep_for(context, instance, keep)
        return web.json_response(_line(speaker.loaded()))
    asked = to_generate(body, instance.card, new_id("ollama"))
    outputs = context.generate(instance, asked)
    async with aclosing(outputs):
        await anext(outputs)  # Accepted; or a refusal, which still can be an HTTP status.
        await keep_for(context, instance, keep)
        if body.stream:
            return await _stream(request, speaker, outputs)
        deltas: list[Delta] = []
        async for output in outputs:
            if isinstance(output, Delta):
                deltas.append(output)
            elif isinstance(output, Finished):
                return web.json_response(_line(speaker.whole(deltas, output.stats)))
    raise EngineError("The runner ended the answer without finishing it.")


async def keep_for(context: Context, instance: Instance, seconds: float | None) -> None:
    """Have the model stay for so long after this. What is pinned stays anyway."""
    if seconds is not None and not instance.pinned:
        await context.node.keeper.keep(instance, seconds)


async def _unload(context: Context, name: str) -> None:
    """End what is not in use of a model.

    Raises:
        RequestError: a person created it, and must delete it.
    """
    card = await context.able_card(name, Task.EMBEDDING)
    for instance in list(context.node.state.instances.values()):
        if instance.card.model_id != card.model_id:
            continue
        if instance.pinned:
            raise RequestError(
                f"{card.model_id} is pinned, and stays.",
                hint=f"`exo instance delete {instance.instance_id}` ends it.",
                param="keep_alive",
            )
        await context.node.keeper.unload(instance)


async def _stream(
    request: web.Request, speaker: Speaker, outputs: AsyncIterator[Output]
) -> web.StreamResponse:
    stream = LineStream(request, ollama_error)
    await stream.open()

    async def send(output: Output) -> None:
        said: Said | None = None
        if isinstance(output, Delta):
            said = speaker.say(output)
        elif isinstance(output, Finished):
            said = speaker.end(output.stats)
        if said is not None:
            await stream.send(_line(said))

    await stream.forward(outputs, send)
    return stream.response


def _line(said: Said) -> dict[str, Any]:
    return said.model_dump(mode="json", exclude_none=True)


async def tags(request: web.Request) -> web.Response:
    cards = await context_of(request).cards()
    found = [tag_of(card) for card in cards if card.path is not None and card.does(Task.EMBEDDING)]
    return json_response(TagsView(models=found))


async def show(request: web.Request) -> web.Response:
    body = await read_body(request, ShowRequest)
    card = await context_of(request).card(model_name(body.model or body.name or ""))
    template = await asyncio.to_thread(read_template, card.path) if card.path else ""
    return json_response(
        ShowView(
            modified_at=modified_at(card),
            template=template,
            details=details_of(card),
            model_info=info_of(card),
            capabilities=["embedding"] if card.encodes else capabilities(template),
        )
    )


async def running(request: web.Request) -> web.Response:
    node, asker = context_of(request).node, ASKER.get()
    found = [
        running_of(each.card, node.keeper.expires_in(each, node.idle(each)))
        for each in node.state.instances.values()
        if node.state.status(each) == "ready"
        and each.card.does(Task.EMBEDDING)
        and asker.may_use(each.card)
    ]
    return json_response(RunningListView(models=found))


async def version(_: web.Request) -> web.Response:
    return json_response(OllamaVersion(version=__version__))


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/api/chat", chat, "Answer a conversation (Ollama's way)", Said, "ollama",
          body=OllamaChat, lines=True, errors=_ERRORS, error=OllamaErrorView,
          access=Access.INFERENCE),
    Route("POST", "/api/generate", generate, "Answer a prompt (Ollama's way)", Said, "ollama",
          body=OllamaGenerate, lines=True, errors=_ERRORS, error=OllamaErrorView,
          access=Access.INFERENCE),
    Route("POST", "/api/show", show, "What a model is", ShowView, "ollama",
          body=ShowRequest, errors=(400, 404), error=OllamaErrorView, access=Access.INFERENCE),
    Route("GET", "/api/tags", tags, "The models that are here", TagsView, "ollama",
          error=OllamaErrorView, access=Access.INFERENCE),
    Route("GET", "/api/ps", running, "The models that answer", RunningListView, "ollama",
          error=OllamaErrorView, access=Access.INFERENCE),
    Route("GET", "/api/version", version, "exo's version", OllamaVersion, "ollama",
          error=OllamaErrorView, access=Access.INFERENCE),
]  # fmt: skip
