"""Instances: create, look at, delete, and see where a model would go."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from exo.api.context import Context, context_of
from exo.api.routes import Route, json_list, json_response, read_body, read_query
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
from exo.cluster.placement import NodeResources, Wanted, place
from exo.cluster.state import InstanceMeta, Placement, Shard, Sharding
from exo.errors import PlacementImpossible
from exo.inference.ids import new_id
from exo.models.card import ModelCard

_WAYS = (
    (Sharding.PIPELINE, InstanceMeta.LOCAL),
    (Sharding.PIPELINE, InstanceMeta.TCP),
    (Sharding.TENSOR, InstanceMeta.MLX),
)
_previews: TypeAdapter[list[PreviewView]] = TypeAdapter(list[PreviewView])


class PlacementQuery(BaseModel):
    """What is asked of a placement; exo chooses what is left out."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1)
    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta | None = None
    min_nodes: int = Field(1, ge=1)
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, le=1024)

    def wanted(self) -> Wanted:
        return Wanted(**self.model_dump(exclude={"model_id", "placement"}))


class GivenShard(BaseModel):
    model_config = ConfigDict(extra="ignore")

    rank: int = Field(ge=0)
    node_id: str
    start_layer: int = Field(ge=0)
    end_layer: int = Field(ge=1)


class GivenPlacement(BaseModel):
    """A placement as `GET /instance/placement` gives it. Memory is computed anew."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    sharding: Sharding = Sharding.PIPELINE
    instance_meta: InstanceMeta = InstanceMeta.LOCAL
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, le=1024)
    shards: list[GivenShard] = []


class NewInstance(PlacementQuery):
    placement: GivenPlacement | None = None


class CreateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instance: NewInstance


class PreviewQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(min_length=1)


async def create(request: web.Request) -> web.Response:
    context = context_of(request)
    asked = (await read_body(request, CreateBody)).instance
    card = await context.card(asked.model_id)
    given = _given_placement(asked, card)
    command_id = request.headers.get("Idempotency-Key") or new_id("cmd")
    instance = await context.node.create_instance(card, asked.wanted(), given, command_id)
    view = instance_view(context.node.state, instance)
    created = CreatedView(
        **view.model_dump(),
        message="Instance created.",
        command_id=command_id,
        model_card=card.to_api(),
    )
    return json_response(created)


def _given_placement(asked: NewInstance, card: ModelCard) -> Placement | None:
    """The placement of the body, if it has shards: an empty one leaves the choice to exo."""
    given = asked.placement
    if given is None or not given.shards:
        return None
    shards = [Shard(**shard.model_dump(), memory=0) for shard in given.shards]
    return Placement(
        model_id=card.model_id,
        sharding=given.sharding,
        instance_meta=given.instance_meta,
        context_length=given.context_length or asked.context_length or card.context_length,
        concurrency=given.concurrency or asked.concurrency or 1,
        kv_tokens=0,
        cast_float32=False,
        shards=tuple(shards),
    )


async def list_all(request: web.Request) -> web.Response:
    state = context_of(request).node.state
    views = [instance_view(state, instance) for instance in state.instances.values()]
    return json_response(InstanceListView(data=views))


async def show(request: web.Request) -> web.Response:
    state = context_of(request).node.state
    return json_response(instance_view(state, find_instance(state, _id(request))))


async def delete(request: web.Request) -> web.Response:
    command_id = request.headers.get("Idempotency-Key") or new_id("cmd")
    await context_of(request).node.delete_instance(_id(request), command_id)
    return json_response(
        DeletedView(message="Instance deleted.", command_id=command_id, instance_id=_id(request))
    )


async def get_placement(request: web.Request) -> web.Response:
    return await _placement(context_of(request), read_query(request, PlacementQuery))


async def post_placement(request: web.Request) -> web.Response:
    return await _placement(context_of(request), await read_body(request, PlacementQuery))


async def _placement(context: Context, asked: PlacementQuery) -> web.Response:
    card = await context.card(asked.model_id)
    placement = place(card, asked.wanted(), await context.node.resources(card))
    return json_response(placement_view(placement))


async def previews(request: web.Request) -> web.Response:
    context = context_of(request)
    card = await context.card(read_query(request, PreviewQuery).model_id)
    resources = await context.node.resources(card)
    found = [
        _preview(card, Wanted(sharding=sharding, instance_meta=meta), meta, resources)
        for sharding, meta in _WAYS
    ]
    return json_list(_previews, found)


def _preview(
    card: ModelCard, wanted: Wanted, meta: InstanceMeta, resources: Sequence[NodeResources]
) -> PreviewView:
    known: dict[str, Any] = {
        "model_id": card.model_id,
        "sharding": wanted.sharding,
        "instance_meta": meta,
        "min_nodes": wanted.min_nodes,
    }
    try:
        placement = place(card, wanted, resources)
    except PlacementImpossible as error:
        return PreviewView(**known, instance=None, memory_delta_by_node=None, error=error.message)
    view = placement_view(placement)
    return PreviewView(
        **known, instance=view, memory_delta_by_node=placement.memory_by_node, error=None
    )


def _id(request: web.Request) -> str:
    return request.match_info["instance_id"]


_FAILURES = (400, 404)
# An id, but not the name of a resource beside it: those have their own methods.
_ONE = "/instance/{instance_id:(?!previews$|placement$)[^/]+}"
ROUTES = [
    Route("POST", "/instance", create, "Create an instance of a model", CreatedView, "instances",
          body=CreateBody, errors=(*_FAILURES, 507)),
    Route("GET", "/instance", list_all, "All instances", InstanceListView, "instances"),
    Route("GET", "/instance/previews", previews, "Ways to place a model", list[PreviewView],
          "instances", query=PreviewQuery, errors=_FAILURES),
    Route("GET", "/instance/placement", get_placement, "Where a model would go", PlacementView,
          "instances", query=PlacementQuery, errors=_FAILURES),
    Route("POST", "/place_instance", post_placement, "Where a model would go (dry run)",
          PlacementView, "instances", body=PlacementQuery, errors=_FAILURES),
    Route("GET", _ONE, show, "One instance", InstanceView, "instances",
          errors=(404,)),
    Route("DELETE", _ONE, delete, "Delete an instance", DeletedView,
          "instances", errors=(*_FAILURES, 507)),
]  # fmt: skip
