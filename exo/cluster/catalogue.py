"""What a model's name means in the cluster."""

import asyncio

from exo.cluster.node import Node
from exo.errors import ModelNotFound
from exo.models.card import ModelCard


class Catalogue:
    """The models that this node knows, and those that other nodes have."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._registry = node.registry

    async def here(self) -> list[ModelCard]:
        """Every model that this node knows, and those that are placed."""
        cards = await asyncio.to_thread(self._registry.all)
        known = {card.model_id for card in cards}
        placed = [instance.card for instance in self._node.state.instances.values()]
        return cards + [card for card in placed if card.model_id not in known]

    async def card(self, name: str) -> ModelCard:
        """The model called `name`; see `Registry.resolve`. Of two folders with one name, the one
        that was placed later goes by its path.

        Raises:
            ModelNotFound, ModelInvalid: as `Registry.resolve` says; no other node has it either.
        """
        try:
            card = await asyncio.to_thread(self._registry.resolve, name)
        except ModelNotFound:
            found = await self._node.find_card(name)
            if found is None:
                raise
            card = found
        for instance in self._node.state.instances.values():
            if instance.card.model_id == card.model_id and _differ(instance.card, card):
                return card.model_copy(update={"model_id": str(card.path)})
        return card


def _differ(one: ModelCard, other: ModelCard) -> bool:
    """Whether two cards of one name are of two models: two folders here, or two sizes."""
    if one.path is None or other.path is None or one.path == other.path:
        return False
    return one.path.is_dir() or one.shape != other.shape
