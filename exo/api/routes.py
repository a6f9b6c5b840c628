"""A route, as data: what it takes and gives, for the router and for `/openapi.json` alike."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from exo.api.access import Access
from exo.api.views import ErrorView
from exo.errors import RequestError, UnsupportedField

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Route:
    """`response` is the type of the 200 body; `errors` the other statuses it may answer with,
    with an `error` as their body. `streams` is the type of the `data:` lines where the answer may
    be an event stream. With `lines` it may be a stream of lines, each of which is a
    `response`. `form` is the type of a multipart body. `media` are the content types of an
    answer that is no JSON. What is `free` does not count as a request for an answer, with its
    limits."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    summary: str
    response: Any
    tag: str
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    streams: Any = None
    lines: bool = False
    media: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    access: Access = Access.ADMIN
    free: bool = False
    error: type[BaseModel] = ErrorView

    @property
    def is_counted(self) -> bool:
        """Whether it asks for an answer: the key's rate counts it, and it has a limit of time."""
        return self.method == "POST" and self.access is Access.INFERENCE and not self.free


async def read_body(request: web.Request, model: type[M]) -> M:
    """The JSON body as `model`.

    Raises:
        RequestError: it is no JSON object, or a field is wrong or unknown; the message names it.
    """
    return validate(model, await read_json(request))


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object, not yet validated.

    Raises:
        RequestError: it is none.
    """
    try:
        data: object = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is no valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise RequestError("The body must be a JSON object.")
    return cast("dict[str, Any]", data)


async def no_body(request: web.Request) -> None:
    """See that the body, where nothing is to be said in it, says nothing.

    Raises:
        RequestError: it does.
    """
    if request.can_read_body:
        await read_body(request, _Nothing)


def read_query(request: web.Request, model: type[M], lists: Sequence[str] = ()) -> M:
    """The query string as `model`. Those of `lists` may come several times, also with `[]` behind
    their name.

    Raises:
        RequestError: a parameter is wrong, unknown or missing.
    """
    given: dict[str, Any] = dict(request.query)
    for name in lists:
        given.pop(f"{name}[]", None)
        given[name] = [*request.query.getall(name, []), *request.query.getall(f"{name}[]", [])]
    return _checked(lambda: model.model_validate(given))


def json_response(body: BaseModel, status: int = 200) -> web.Response:
    return web.Response(text=body.model_dump_json(), status=status, content_type="application/json")


def json_list(adapter: TypeAdapter[T], items: T) -> web.Response:
    return web.Response(body=adapter.dump_json(items), content_type="application/json")


def validate(model: type[M], data: dict[str, Any]) -> M:
    """`data`, as it was in JSON, as `model`: a number is no string, and true is no number.

    Raises:
        RequestError: a field is wrong, unknown or missing; the message names it.
    """
    return _checked(lambda: model.model_validate_json(json.dumps(data), strict=True))


def _checked(read: Callable[[], M]) -> M:
    try:
        return read()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        clash = first.get("ctx", {}).get("param")
        place = str(clash) if clash else ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "extra_forbidden":
            raise UnsupportedField(f"The field '{place}' is not supported.", param=place) from error
        message = first["msg"].removeprefix("Value error, ")
        where = f"'{place}': " if place else ""
        raise RequestError(f"{where}{message}.".replace("..", "."), param=place) from error
