"""What every handler can reach."""

from dataclasses import dataclass

from aiohttp import web

from exo.api.image_store import ImageStore
from exo.api.meters import Meters
from exo.cluster.catalogue import Catalogue
from exo.cluster.node import Node
from exo.cluster.security import Security
from exo.cluster.serving import Serving
from exo.cluster.state import Instance
from exo.cluster.tracing import Tracing
from exo.errors import Unavailable
from exo.models.card import ModelCard


@dataclass
class Context:
    """The node behind the API. While `draining`, no new answers are begun."""

    node: Node
    catalogue: Catalogue
    serving: Serving
    security: Security
    images: ImageStore
    tracing: Tracing
    meters: Meters
    draining: bool = False

    async def begin(self, model: str) -> Instance:
        """The instance for a new answer. See `Serving.instance_for`.

        Raises:
            Unavailable: this node is about to stop.
        """
        if self.draining:
            raise Unavailable("This node is stopping.", hint="Try another node.", retry_after=5)
        return await self.serving.instance_for(model)

    async def card(self, name: str) -> ModelCard:
        """See `Catalogue.card`."""
        return await self.catalogue.card(name)


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]
