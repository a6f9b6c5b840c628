"""`/openapi.json`, made from the routes."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, cast

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from exo import __version__
from exo.api.access import Access
from exo.api.routes import Route

_REF = "#/components/schemas/{model}"
_REASONS = {
    400: "The request is wrong",
    401: "No API key, or none that is known",
    403: "Not allowed",
    404: "Not found",
    413: "The body is too large",
    429: "Too many requests wait, or the API key has used up its rate",
    499: "The request was cancelled",
    500: "The runner failed",
    501: "Not available in this version",
    503: "Not now",
    504: "The request took longer than it may",
    507: "The disk is full",
}
# A node beyond loopback asks for a key, in either header.
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key that `exo key create` made. A node that listens on loopback only "
        "does not ask for one. An operation with `x-access: admin` takes an admin key.",
    },
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, as Anthropic's clients send it.",
    },
}
_ANY_KEY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"x-api-key": []}]


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "exo",
            "version": __version__,
            "description": "One AI endpoint over the devices you own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:52415"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
    }


def _operation(route: Route, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{path.replace('/', '_').replace('{', '')}".replace(
            "}", ""
        ),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(path), *_query_parameters(route)],
        "responses": _responses(route, schemas),
        "security": [] if route.access is Access.OPEN else _ANY_KEY,
        "x-access": route.access.value,
    }
    for content_type, body in (
        ("application/json", route.body),
        ("multipart/form-data", route.form),
    ):
        if body is not None:
            schema = _schema(body, schemas, "validation")
            operation["requestBody"] = {
                "required": True,
                "content": {content_type: {"schema": schema}},
            }
    return operation


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        media: {"schema": {"type": "string", "contentMediaType": media}} for media in route.media
    } or {"application/json": {"schema": _schema(route.response, schemas, "serialization")}}
    if route.streams is not None:
        content["text/event-stream"] = {
            "schema": {
                "type": "object",
                "description": "One event: `data` is JSON, or `[DONE]` at the end of an answer.",
                "properties": {"data": {"type": "string"}},
            },
            "x-data-schema": _schema(route.streams, schemas, "serialization"),
        }
    if route.lines:
        media = "application/x-ndjson"
        content[media] = {"schema": {"type": "string", "contentMediaType": media}}
    responses: dict[str, Any] = {}
    if 501 not in route.errors:
        responses["200"] = {"description": route.summary, "content": content}
    errors = {403, *route.errors, *((413, 400) if route.body or route.form else ())}
    if route.access is not Access.OPEN:
        errors.add(401)
    if route.is_counted:
        errors |= {429, 499, 504}
    for status in sorted(errors):
        schema = _schema(route.error, schemas, "serialization")
        responses[str(status)] = {
            "description": _REASONS[status],
            "content": {"application/json": {"schema": schema}},
        }
    return responses


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema()
    definitions = schema.get("$defs", {})
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": _inlined(field, definitions),
        }
        for name, field in schema["properties"].items()
    ]


def _inlined(schema: object, definitions: dict[str, Any]) -> object:
    """A parameter's schema, with the few enumerations that it refers to put in place."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, object]", schema)
    if "$ref" in fields:
        return definitions[str(fields["$ref"]).rsplit("/", 1)[-1]]
    return {key: _inlined(value, definitions) for key, value in fields.items()}


def _schema(
    kind: Any, schemas: dict[str, Any], mode: Literal["validation", "serialization"]
) -> dict[str, Any]:
    """The schema of a type; the named ones it uses go into `schemas`."""
    schema = TypeAdapter(kind).json_schema(ref_template=_REF, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        schemas[kind.__name__] = schema
        return {"$ref": _REF.format(model=kind.__name__)}
    return schema


def openapi_route(routes: Sequence[Route]) -> Route:
    """Where the document of `routes` is served. It is made when somebody first asks for it: that
    takes a fifth of what a whole start does."""
    made = cache(lambda: json.dumps(document(routes)))

    async def get(_: web.Request) -> web.Response:
        return web.json_response(text=made())

    what = "The routes, as OpenAPI has them"
    return Route("GET", "/openapi.json", get, what, Any, "models", access=Access.INFERENCE)
