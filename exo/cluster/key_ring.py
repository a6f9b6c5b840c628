"""The cluster's API keys, as one node makes, revokes and sees them."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from exo.cluster.commands import CreateKey, RevokeKey
from exo.cluster.keys import USED_EVERY, NewKey, called_key, find_key, is_worth_telling, make_key
from exo.cluster.node import Node
from exo.cluster.remote import Report
from exo.cluster.replica import utc_now
from exo.cluster.state import ApiKey, Scope


class KeyRing:
    """Keys belong to the cluster: one that is made here is good on every node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        # Told to the master, and perhaps not in the state yet: by key, when it was.
        self._told: dict[str, datetime] = {}

    @property
    def keys(self) -> Sequence[ApiKey]:
        """In the order in which they were made."""
        return sorted(self._node.state.keys.values(), key=lambda key: (key.created_at, key.key_id))

    def find(self, text: str) -> ApiKey | None:
        """The key that a client showed; that it is used is taken note of."""
        key = find_key(self._node.state.keys, text)
        if key is not None:
            self._used(key)
        return key

    async def create(
        self, name: str, scope: Scope, models: Sequence[str], rate: int | None
    ) -> NewKey:
        """A new key: this is the only time that its text is there.

        Raises:
            RequestError: its name is taken, or it cannot be for these models.
            StorageFull, MasterUnknown: as they say.
        """
        made = make_key(name, scope, utc_now(), models=models, rate=rate)
        await self._node.submit(CreateKey(command_id=uuid.uuid4().hex, key=made.key))
        return made

    async def revoke(self, name: str) -> ApiKey:
        """Make a key, called by its id or name, worthless on every node.

        Raises:
            KeyNotFound, StorageFull, MasterUnknown: as they say.
        """
        key = called_key(self._node.state.keys.values(), name)
        await self._node.submit(RevokeKey(command_id=uuid.uuid4().hex, key_id=key.key_id))
        return key

    def _used(self, key: ApiKey) -> None:
        now = datetime.now(UTC)
        told = self._told.get(key.key_id)
        if (told and now - told < USED_EVERY) or not is_worth_telling(key, now):
            return
        self._told[key.key_id] = now
        used = {key.key_id: now.isoformat(timespec="seconds")}
        self._node.observe(Report(node_id=self._node.options.node_id, keys_used=used))
