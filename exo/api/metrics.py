"""`/metrics`, for Prometheus."""

from aiohttp import web

from exo.api.context import context_of
from exo.api.gauges import readings
from exo.api.routes import Route


async def get(request: web.Request) -> web.Response:
    context = context_of(request)
    body, content_type = context.meters.render(
        request.headers.get("Accept", ""), lambda: readings(context.node)
    )
    return web.Response(body=body, headers={"Content-Type": content_type})


ROUTES = [
    Route("GET", "/metrics", get, "Metrics of this node, for Prometheus", str, "health",
          media=("text/plain", "application/openmetrics-text")),
]  # fmt: skip
