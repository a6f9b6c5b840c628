"""The API as one aiohttp application."""

from aiohttp import web

from exo.api import (
    anthropic,
    chat,
    cluster,
    completions,
    embeddings,
    images,
    instances,
    keys,
    metrics,
    middleware,
    models,
    nodes,
    ollama,
    ollama_embed,
    ollama_pull,
    recording,
    requests,
    responses,
    security,
    stored_images,
)
from exo.api.context import CONTEXT, Context
from exo.api.openapi import openapi_route
from exo.api.routes import Route

ROUTES: list[Route] = [
    *cluster.ROUTES,
    *security.ROUTES,
    *keys.ROUTES,
    *nodes.ROUTES,
    *instances.ROUTES,
    *models.ROUTES,
    *chat.ROUTES,
    *completions.ROUTES,
    *embeddings.ROUTES,
    *anthropic.ROUTES,
    *responses.ROUTES,
    *ollama.ROUTES,
    *ollama_embed.ROUTES,
    *ollama_pull.ROUTES,
    *images.ROUTES,
    *stored_images.ROUTES,
    *requests.ROUTES,
    *metrics.ROUTES,
]


def make_app(
    context: Context, *, host: str, max_body: int, request_timeout: float = 0.0
) -> web.Application:
    """The application. `host` is the address it will listen on, `max_body` in bytes,
    `request_timeout` in seconds, 0 for no limit."""
    routes: dict[web.AbstractRoute, Route] = {}
    app = web.Application(
        client_max_size=max_body,
        middlewares=[
            recording.record,
            middleware.errors,
            middleware.guard(host),
            middleware.keys(routes, request_timeout),
        ],
    )
    app[CONTEXT] = context
    app.on_response_prepare.append(recording.name_response)
    for route in [*ROUTES, openapi_route(ROUTES)]:
        routes[app.router.add_route(route.method, route.path, route.handler)] = route
    app.cleanup_ctx.append(stored_images.keep_clean)
    app.on_cleanup.append(_end_responses)
    return app


async def _end_responses(app: web.Application) -> None:
    await app[CONTEXT].responses.close()
