"""Instances: create, look at, delete, and see where a model would go."""

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from exo.api.context import Context, context_of
from exo.api.placement_schema import (
    GivenPlacement,
    PlacementBody,
    PlacementQuery,
    given_placement,
    wanted,
)
from exo.api.routes import Route, json_list, json_response, no_body, read_body, read_query
from exo.api.views import (
    CreatedView,
    DeletedView,
    InstanceListView,
    InstanceView,
    PlacementView,
    PreviewView,
    instance_view,
    placement_view,
)
from exo.cluster.commands import find_instance
from exo.cluster.placement import Objective, Option, Wanted, options, place
from exo.cluster.room import create_with_room
from exo.cluster.state import NGRAM, Draft
from exo.inference.ids import new_id

_previews: TypeAdapter[list[PreviewView]] = TypeAdapter(list[PreviewView])


class NewInstance(PlacementBody):
    """With `pin` it stays until somebody deletes it; without, it is unloaded when nobody uses it
    for the time of the setting `keep_alive`, or another model needs its place."""

    pin: bool = True
    placement: GivenPlacement | None = None


class CreateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instance: NewInstance


class PreviewQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1)
    objective: Objective = Objective.LATENCY
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, le=1024)


async def create(request: web.Request) -> web.Response:
    context = context_of(request)
    asked = (await read_body(request, CreateBody)).instance
    card = await context.card(asked.model_id)
    given = asked.placement
    # An empty one leaves the choice to exo.
    placement = given_placement(asked, given, card) if given and given.shards else None
    command_id = request.headers.get("Idempotency-Key") or new_id("cmd")
    choice = wanted(asked, await _draft(context, asked))
    instance = await create_with_room(
        context.node, card, choice, placement, command_id, pinned=asked.pin
    )
    view = instance_view(context.node, instance)
    created = CreatedView(
        **view.model_dump(),
        message="Instance created.",
        command_id=command_id,
        model_card=card.to_api(),
    )
    return json_response(created)


async def list_all(request: web.Request) -> web.Response:
    node = context_of(request).node
    views = [instance_view(node, instance) for instance in node.state.instances.values()]
    return json_response(InstanceListView(data=views))


async def show(request: web.Request) -> web.Response:
    node = context_of(request).node
    return json_response(instance_view(node, find_instance(node.state, _id(request))))


async def delete(request: web.Request) -> web.Response:
    command_id = request.headers.get("Idempotency-Key") or new_id("cmd")
    await context_of(request).node.delete_instance(_id(request), command_id)
    return json_response(
        DeletedView(message="Instance deleted.", command_id=command_id, instance_id=_id(request))
    )


async def pin(request: web.Request) -> web.Response:
    return await _set_pinned(request, pinned=True)


async def unpin(request: web.Request) -> web.Response:
    return await _set_pinned(request, pinned=False)


async def _set_pinned(request: web.Request, *, pinned: bool) -> web.Response:
    await no_body(request)
    node = context_of(request).node
    instance = await node.pin_instance(_id(request), pinned=pinned)
    return json_response(instance_view(node, instance))


async def get_placement(request: web.Request) -> web.Response:
    return await _placement(context_of(request), read_query(request, PlacementQuery))


async def post_placement(request: web.Request) -> web.Response:
    return await _placement(context_of(request), await read_body(request, PlacementBody))


async def _placement(context: Context, asked: PlacementQuery | PlacementBody) -> web.Response:
    card = await context.card(asked.model_id)
    draft = await _draft(context, asked)
    resources = await context.node.resources(card, draft)
    links = context.node.state.links.values()
    return json_response(placement_view(place(card, wanted(asked, draft), resources, links)))


async def _draft(context: Context, asked: PlacementQuery | PlacementBody) -> Draft | None:
    """
    Raises:
        ModelNotFound: the draft model is not known.
    """
    if asked.draft is None:
        return None
    if asked.draft == NGRAM:
        return Draft(name=NGRAM)
    card = await context.card(asked.draft)
    return Draft(name=card.model_id, card=card)


async def previews(request: web.Request) -> web.Response:
    context = context_of(request)
    asked = read_query(request, PreviewQuery)
    card = await context.card(asked.model_id)
    resources = await context.node.resources(card)
    links = context.node.state.links.values()
    found = options(card, Wanted(**asked.model_dump(exclude={"model_id"})), resources, links)
    return json_list(_previews, [_preview(card.model_id, option) for option in found])


def _preview(model_id: str, option: Option) -> PreviewView:
    known: dict[str, Any] = {
        "model_id": model_id,
        "sharding": option.sharding,
        "instance_meta": option.instance_meta,
        "min_nodes": option.nodes,
        "error": option.reason,
    }
    placement = option.placement
    if placement is None:
        return PreviewView(**known, instance=None, memory_delta_by_node=None)
    memory = placement.memory_by_node
    return PreviewView(**known, instance=placement_view(placement), memory_delta_by_node=memory)


def _id(request: web.Request) -> str:
    return request.match_info["instance_id"]


_FAILURES = (400, 404)
# An id, but not the name of a resource beside it: those have their own methods.
_ONE = "/instance/{instance_id:(?!previews$|placement$)[^/]+}"
ROUTES = [
    Route("POST", "/instance", create, "Create an instance of a model", CreatedView, "instances",
          body=CreateBody, errors=(*_FAILURES, 503, 507)),
    Route("GET", "/instance", list_all, "All instances", InstanceListView, "instances"),
    Route("GET", "/instance/previews", previews, "Ways to place a model", list[PreviewView],
          "instances", query=PreviewQuery, errors=_FAILURES),
    Route("GET", "/instance/placement", get_placement, "Where a model would go", PlacementView,
          "instances", query=PlacementQuery, errors=_FAILURES),
    Route("POST", "/place_instance", post_placement, "Where a model would go (dry run)",
          PlacementView, "instances", body=PlacementBody, errors=_FAILURES),
    Route("GET", _ONE, show, "One instance", InstanceView, "instances",
          errors=(404,)),
    Route("DELETE", _ONE, delete, "Delete an instance", DeletedView,
          "instances", errors=(*_FAILURES, 507)),
    Route("POST", f"{_ONE}/pin", pin, "Have an instance stay until it is deleted", InstanceView,
          "instances", errors=(*_FAILURES, 503, 507)),
    Route("POST", f"{_ONE}/unpin", unpin, "Have an instance go when nobody uses it", InstanceView,
          "instances", errors=(*_FAILURES, 503, 507)),
]  # fmt: skip
