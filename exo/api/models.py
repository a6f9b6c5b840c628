"""The models that this node knows."""

from typing import Literal

from aiohttp import web

from exo.api.access import ASKER, Access
from exo.api.context import context_of
from exo.api.routes import Route, json_response
from exo.api.views import View
from exo.models.card import ModelCard
from exo.models.image_traits import ImageTraits


class ModelView(View):
    """OpenAI's model object, with what exo knows beyond it. Sizes in bytes. `image` is what an
    image model can draw."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    aliases: list[str]
    hugging_face_id: str | None
    family: str
    architecture: str
    n_layers: int
    context_length: int
    quantization: str | None
    storage_size: int
    available: bool
    path: str | None
    supports_tensor: bool
    tasks: list[str]
    image: ImageTraits | None


class ModelListView(View):
    object: Literal["list"] = "list"
    data: list[ModelView]


async def list_all(request: web.Request) -> web.Response:
    cards = await context_of(request).cards()
    return json_response(ModelListView(data=[_view(card) for card in cards]))


async def show(request: web.Request) -> web.Response:
    name = request.match_info["model_id"]
    context = context_of(request)
    for instance in context.node.state.instances.values():
        if instance.card.model_id == name:
            ASKER.get().require(instance.card)
            return json_response(_view(instance.card))
    return json_response(_view(await context.card(name)))


def _view(card: ModelCard) -> ModelView:
    return ModelView(**card.to_api(), image=card.image)


ROUTES = [
    Route("GET", "/v1/models", list_all, "All known models", ModelListView, "models",
          access=Access.INFERENCE),
    Route("GET", "/models", list_all, "All known models", ModelListView, "models",
          access=Access.INFERENCE),
    Route("GET", "/v1/models/{model_id:.+}", show, "One model", ModelView, "models",
          errors=(400, 404), access=Access.INFERENCE),
]  # fmt: skip
