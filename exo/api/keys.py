"""`/keys`: who may use the API."""

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from exo.api.access import ASKER
from exo.api.context import Context, context_of
from exo.api.routes import Route, json_response, read_body
from exo.api.security import only_here, unkept
from exo.api.views import View
from exo.cluster.state import ApiKey, Scope


class CreateKeyBody(BaseModel):
    """`models` are names of the only models that the key is for, `rate` is how many requests a
    minute it may send; without them there is no such limit."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")
    scope: Scope = Scope.INFERENCE
    models: list[str] = Field(default_factory=list[str], max_length=100)
    rate: int | None = Field(None, ge=1, le=1_000_000)


class KeyView(View):
    """A key, without its secret; `last_used` is exact to the hour."""

    key_id: str
    name: str
    scope: Scope
    models: list[str]
    rate: int | None
    created_at: str
    last_used: str | None


class NewKeyView(KeyView):
    """A new key, and its text, which is told this once."""

    key: str


class KeyListView(View):
    object: str = "list"
    data: list[KeyView]


async def create(request: web.Request) -> web.Response:
    body = await read_body(request, CreateKeyBody)
    keys = _trusted(request).keys
    made = await keys.create(body.name.strip(), body.scope, body.models, body.rate)
    view = _view(made.key)
    return unkept(json_response(NewKeyView(**view.model_dump(), key=made.text)))


async def list_all(request: web.Request) -> web.Response:
    keys = _trusted(request).keys
    return json_response(KeyListView(data=[_view(key) for key in keys.keys]))


async def revoke(request: web.Request) -> web.Response:
    keys = _trusted(request).keys
    return json_response(_view(await keys.revoke(request.match_info["key"])))


def _trusted(request: web.Request) -> Context:
    """A key is good on all nodes for as long as it lives: an API that asks for none does not hand
    it to whoever comes by."""
    if not ASKER.get().is_known:
        only_here(request, "Keys are managed on the node's own device, or with an admin key.")
    return context_of(request)


def _view(key: ApiKey) -> KeyView:
    return KeyView(**key.model_dump(exclude={"hashed_secret", "models"}), models=list(key.models))


ROUTES = [
    Route("POST", "/keys", create, "Make an API key", NewKeyView, "keys", body=CreateKeyBody,
          errors=(400, 503, 507)),
    Route("GET", "/keys", list_all, "The API keys, without their secrets", KeyListView, "keys"),
    Route("DELETE", "/keys/{key}", revoke, "Revoke an API key, called by its id or name", KeyView,
          "keys", errors=(404, 503, 507)),
]  # fmt: skip
