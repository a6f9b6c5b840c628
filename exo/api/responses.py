"""`/v1/responses`, as OpenAI has it (https://platform.openai.com/docs/api-reference/responses)."""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, contextmanager

from aiohttp import web

from exo.api.access import Access
from exo.api.context import context_of
from exo.api.dry import dry
from exo.api.response_adapter import begun, check, to_count, to_generate
from exo.api.response_asked import all_items, fitting, saver
from exo.api.response_events import Answering, Event
from exo.api.response_runs import Run
from exo.api.response_schema import (
    ENCRYPTED,
    InputCountRequest,
    ItemsQuery,
    ResponseRequest,
    RetrieveQuery,
)
from exo.api.response_unsupported import supported
from exo.api.response_views import (
    DeletedResponse,
    InputCountView,
    ItemListView,
    ResponseEvent,
    ResponseView,
)
from exo.api.routes import Route, json_response, no_body, read_json, read_query, validate
from exo.api.sse import EventStream
from exo.errors import ExoError, RequestError, renamed
from exo.inference.ids import new_id

_LISTS = ("include",)


class _Stream(EventStream):
    """The events of a response, of which an error is one."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request, self._told)
        self._next = 0

    async def follow(self, events: AsyncGenerator[Event]) -> web.StreamResponse:
        """Send them all."""
        await self.open()
        await self.forward(events, self._send)
        return self.response

    async def _send(self, event: Event) -> None:
        self._next = event["sequence_number"] + 1
        await self.send(event, event=event["type"])

    def _told(self, error: ExoError) -> Event:
        found = error.to_json()["error"]
        fields = {name: found[name] for name in ("code", "message", "param")}
        return {"type": "error", "sequence_number": self._next, **fields}


async def create(request: web.Request) -> web.StreamResponse:
    context = context_of(request)
    body = validate(ResponseRequest, supported(await read_json(request)))
    check(body)  # What is wrong with the request itself is said before a model is loaded.
    save = saver(context.responses, body)
    response_id = context.responses.new_id()
    items = await all_items(context.responses, body, response_id)
    stream = _Stream(request) if body.stream else None
    instance = await context.begin(body.model, stream=stream)
    with _about_input():
        answered = await fitting(context, instance, body, items)
    asked = to_generate(body, answered, instance.card, response_id)
    view = begun(body, asked, instance.card.model_id, int(time.time()))
    answering = Answering(view, len(items), encode=ENCRYPTED in (body.include or ()))
    outputs = context.generate(instance, asked)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(outputs.aclose)
        with _about_input():
            await anext(outputs)  # Accepted; or a refusal, which still can be an HTTP status.
        if not body.background:
            run = Run(answering, outputs, items, save)
            if stream is not None:
                return await stream.follow(run.events())
            return json_response(await run.whole())
        run = Run(answering, outputs, items)
        begun_run = await context.responses.begin(run, streams=stream is not None)
        stack.pop_all()  # It ends when it is complete, or cancelled.
    if stream is not None:
        return await stream.follow(begun_run.follow(-1))
    return json_response(run.view)


@contextmanager
def _about_input() -> Generator[None]:
    """What is wrong with the messages is wrong with the input that they were made from.

    Raises:
        ExoError: that, by the client's name for it.
    """
    try:
        yield
    except ExoError as error:
        if error.param != "messages":
            raise
        raise renamed(error, "input") from error


async def count(request: web.Request) -> web.Response:
    context = context_of(request)
    body = validate(InputCountRequest, supported(await read_json(request)))
    check(body)
    items = await all_items(context.responses, body, context.responses.new_id())
    instance = await context.begin(body.model)
    with _about_input():
        answered = await fitting(context, instance, body, items)
        found = await dry(context, instance, to_count(body, answered, new_id("tok")))
    return json_response(InputCountView(input_tokens=found.prompt_tokens))


async def retrieve(request: web.Request) -> web.StreamResponse:
    query = read_query(request, RetrieveQuery, lists=_LISTS)
    responses, response_id = context_of(request).responses, request.match_info["response_id"]
    kept = await responses.load(response_id)
    if not query.stream:
        return json_response(kept.response)
    if kept.events is None:
        raise RequestError(
            "Only what was created with background and stream can be streamed again.",
            param="stream",
        )
    after = -1 if query.starting_after is None else query.starting_after
    return await _Stream(request).follow(responses.follow(response_id, after))


async def delete(request: web.Request) -> web.Response:
    await no_body(request)
    response_id = request.match_info["response_id"]
    await context_of(request).responses.delete(response_id)
    return json_response(DeletedResponse(id=response_id))


async def cancel(request: web.Request) -> web.Response:
    await no_body(request)
    response_id = request.match_info["response_id"]
    return json_response(await context_of(request).responses.cancel(response_id))


async def list_items(request: web.Request) -> web.Response:
    query = read_query(request, ItemsQuery, lists=_LISTS)
    kept = await context_of(request).responses.load(request.match_info["response_id"])
    items = kept.items if query.order == "asc" else kept.items[::-1]
    first = 0
    if query.after is not None:
        first = next((n for n, item in enumerate(items, 1) if item.id == query.after), -1)
        if first < 0:
            raise RequestError(f"There is no item '{query.after}' in it.", param="after")
    page = items[first : first + query.limit]
    return json_response(
        ItemListView(
            data=page,
            first_id=page[0].id if page else "",
            last_id=page[-1].id if page else "",
            has_more=first + query.limit < len(items),
        )
    )


_ERRORS = (400, 404, 429, 500, 503, 507)
_FOUND = (400, 404, 503)
ROUTES = [
    Route("POST", "/v1/responses", create, "Answer, and keep the answer", ResponseView,
          "responses", body=ResponseRequest, streams=ResponseEvent, errors=_ERRORS,
          access=Access.INFERENCE),
    Route("POST", "/v1/responses/input_tokens", count, "Count the tokens of an input",
          InputCountView, "responses", body=InputCountRequest, errors=_ERRORS,
          access=Access.INFERENCE),
    Route("GET", "/v1/responses/{response_id}", retrieve, "A stored response", ResponseView,
          "responses", query=RetrieveQuery, streams=ResponseEvent, errors=_FOUND,
          access=Access.INFERENCE),
    Route("DELETE", "/v1/responses/{response_id}", delete, "Forget a response", DeletedResponse,
          "responses", errors=_FOUND, access=Access.INFERENCE),
    Route("POST", "/v1/responses/{response_id}/cancel", cancel,
          "Compute no more of a response in the background", ResponseView, "responses",
          errors=_FOUND, access=Access.INFERENCE, free=True),
    Route("GET", "/v1/responses/{response_id}/input_items", list_items,
          "What a response was made from", ItemListView, "responses", query=ItemsQuery,
          errors=_FOUND, access=Access.INFERENCE),
]  # fmt: skip
