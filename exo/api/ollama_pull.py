"""Ollama's `/api/pull`: whether a model's files are here, since exo does not download them."""

from typing import Literal

from aiohttp import web
from pydantic import Field, model_validator

from exo.api.access import Access
from exo.api.chat_schema import Part, clash
from exo.api.context import context_of
from exo.api.error_shapes import OllamaErrorView
from exo.api.ollama_adapter import model_name, tag_of
from exo.api.routes import Route, json_response, read_body
from exo.api.sse import LineStream
from exo.api.views import View
from exo.errors import ModelNotFound
from exo.models.card import ModelCard


class PullRequest(Part):
    """`name` is what `model` was called before."""

    model: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)
    stream: bool = True
    insecure: Literal[False] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "PullRequest":
        if (self.model is None) == (self.name is None):
            raise clash("model", "Either model or name must be given")
        return self


class PullView(View):
    """How far it is; sizes in bytes."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


async def pull(request: web.Request) -> web.StreamResponse:
    context = context_of(request)
    body = await read_body(request, PullRequest)
    card = await context.card(model_name(body.model or body.name or ""))
    if card.path is None:
        raise ModelNotFound(
            f"The files of {card.model_id} are on no node, and exo does not download them.",
            hint=f"Put its folder, in mlx-lm layout, into {context.node.registry.models_dir}"
            f"{f' (from {card.repo})' if card.repo else ''}.",
            param="model",
        )
    told = _told(card)
    if not body.stream:
        return json_response(told[-1])
    stream = LineStream(request)
    await stream.open()
    for each in told:
        await stream.send(each.model_dump(exclude_none=True))
    return stream.response


def _told(card: ModelCard) -> list[PullView]:
    digest = f"sha256:{tag_of(card).digest}"
    size = card.storage_size
    return [
        PullView(status="pulling manifest"),
        PullView(status=f"pulling {digest[7:19]}", digest=digest, total=size, completed=size),
        PullView(status="success"),
    ]


ROUTES = [
    Route("POST", "/api/pull", pull, "See that a model's files are here", PullView, "ollama",
          body=PullRequest, lines=True, errors=(400, 404), error=OllamaErrorView,
          access=Access.INFERENCE, free=True),
]  # fmt: skip
