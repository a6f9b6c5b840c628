"""The API as one aiohttp application."""

from aiohttp import web

from exo.api import (
    anthropic,
    chat,
    cluster,
    completions,
    images,
    instances,
    metrics,
    middleware,
    models,
    nodes,
    ollama,
    recording,
    requests,
    security,
    stored_images,
)
from exo.api.context import CONTEXT, Context
from exo.api.openapi import add_openapi
from exo.api.routes import Route

ROUTES: list[Route] = [
    *cluster.ROUTES,
    *security.ROUTES,
    *nodes.ROUTES,
    *instances.ROUTES,
    *models.ROUTES,
    *chat.ROUTES,
    *completions.ROUTES,
    *anthropic.ROUTES,
    *ollama.ROUTES,
    *images.ROUTES,
    *stored_images.ROUTES,
    *requests.ROUTES,
    *metrics.ROUTES,
]


def make_app(context: Context, *, host: str, max_body: int) -> web.Application:
    """The application. `host` is the address it will listen on, `max_body` in bytes."""
    app = web.Application(
        client_max_size=max_body,
        middlewares=[recording.record, middleware.errors, middleware.guard(host)],
    )
    app[CONTEXT] = context
    app.on_response_prepare.append(recording.name_response)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    add_openapi(app, ROUTES)
    app.cleanup_ctx.append(stored_images.keep_clean)
    return app
