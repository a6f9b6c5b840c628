"""Who may join the cluster: open to its network, or locked with a secret that every node holds."""

import asyncio
import logging
import secrets
from dataclasses import dataclass

from exo.cluster.node import Node
from exo.errors import Forbidden, NotMaster, PeerError, RequestError
from exo.p2p.admission import Token, encode_token
from exo.p2p.network import Body, Network
from exo.p2p.secret_file import ClusterSecret, SecretFile

LOCK = "cluster.lock"
SECRET = "cluster.secret"  # noqa: S105  a method's name
SECRET_BYTES = 32
_PATIENCE = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lock:
    """What came of locking: the token to join with, and the names of nodes that were not told."""

    token: str
    missed: tuple[str, ...]


class Security:
    """Locks the cluster in place: the links that are there stay, new ones must prove the secret.

    The master makes the secret and gives it to every node over its link, so it is never on a
    wire in the clear and never in the replicated state.
    """

    def __init__(self, network: Network, file: SecretFile, node: Node) -> None:
        self._network = network
        self._file = file
        self._node = node
        network.services.requests[LOCK] = self._serve_lock
        network.services.requests[SECRET] = self._serve_secret

    @property
    def name(self) -> str:
        """The cluster's."""
        return self._network.admission.cluster

    @property
    def locked(self) -> bool:
        return self._network.admission.secret is not None

    def token(self) -> str:
        """What `exo start --join` takes on a new device."""
        return encode_token(
            Token(
                cluster=self.name,
                secret=self._network.admission.secret,
                addresses=self._network.listening,
            )
        )

    async def lock(self) -> Lock:
        """Close an open cluster to strangers.

        Raises:
            RequestError: it is locked already.
        """
        if self.locked:
            raise RequestError(
                "The cluster is locked already.",
                hint="`exo cluster token` shows how to join it, `exo cluster rotate` changes its "
                "secret.",
            )
        return await self._renew()

    async def rotate(self) -> Lock:
        """Change the secret: who does not get it now needs the new token to come back.

        Raises:
            RequestError: the cluster is open.
        """
        if not self.locked:
            raise RequestError("The cluster is open.", hint="`exo cluster lock` locks it.")
        return await self._renew()

    async def _renew(self) -> Lock:
        term = self._network.term
        if term is None or term.master_id == self._network.peer_id:
            missed = await self._give_out()
        else:
            body = await self._network.request(term.master_id, LOCK, patience=3 * _PATIENCE)
            missed = tuple(map(str, body)) if isinstance(body, list) else ()
        return Lock(self.token(), missed)

    async def _give_out(self) -> tuple[str, ...]:
        """Make a secret and give it to every linked node; the names of those that missed it."""
        secret = secrets.token_bytes(SECRET_BYTES)
        peers = [link.hello.peer_id for link in self._network.links()]
        told = await asyncio.gather(*(self._give(peer_id, secret) for peer_id in peers))
        await self._keep(secret)
        gone = [n for n in self._node.state.nodes.values() if not n.online]
        missed = {peer_id for peer_id, ok in zip(peers, told, strict=True) if not ok}
        return tuple(self._name(peer_id) for peer_id in missed) + tuple(n.name for n in gone)

    async def _give(self, peer_id: str, secret: bytes) -> bool:
        try:
            await self._network.request(peer_id, SECRET, secret, patience=_PATIENCE)
        except PeerError as error:
            log.warning("%s did not get the cluster's secret: %s", self._name(peer_id), error)
            return False
        return True

    async def _keep(self, secret: bytes) -> None:
        kept = ClusterSecret(name=self.name, secret=secret, addresses=())
        await asyncio.to_thread(self._file.save, kept)
        self._network.admission.secret = secret

    def _name(self, peer_id: str) -> str:
        node = self._node.state.nodes.get(peer_id)
        return node.name if node else peer_id

    async def _serve_lock(self, _: str, __: Body) -> Body:
        term = self._network.term
        if term is None or term.master_id != self._network.peer_id:
            raise NotMaster("This node is not the master.", retry_after=1)
        return list(await self._give_out())

    async def _serve_secret(self, peer_id: str, body: Body) -> Body:
        term = self._network.term
        if term is None or term.master_id != peer_id or not isinstance(body, bytes):
            raise Forbidden("Only the master gives out the secret of the cluster.")
        await self._keep(body)
        return None
