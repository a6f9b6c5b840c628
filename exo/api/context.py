"""What every handler can reach."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from exo.cluster.node import Node
from exo.cluster.serving import Serving
from exo.models.card import ModelCard
from exo.models.registry import Registry


@dataclass
class Context:
    """The node behind the API. While `draining`, no new answers are begun."""

    node: Node
    registry: Registry
    serving: Serving
    cluster_name: str
    draining: bool = False

    async def card(self, name: str) -> ModelCard:
        """The model called `name`; see `Registry.resolve`. Of two folders with one name, the one
        that was placed later goes by its path."""
        card = await asyncio.to_thread(self.registry.resolve, name)
        for instance in self.node.state.instances.values():
            if instance.card.model_id == card.model_id and instance.card.path != card.path:
                return card.model_copy(update={"model_id": str(card.path)})
        return card


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]
