"""The parts of this node's network, put together as the settings ask."""

import logging
import platform
import secrets
from collections.abc import Callable
from functools import partial

from exo import __version__
from exo.config import Paths, Settings
from exo.p2p.addresses import of_ip
from exo.p2p.admission import Admission, Hello
from exo.p2p.core import Core
from exo.p2p.discovery import Discovery, OnFound
from exo.p2p.identity import Identity
from exo.p2p.link_events import LinkEvent, PeerInfo
from exo.p2p.links import Links
from exo.p2p.machine import machine_id, settle_identity
from exo.p2p.network import Network, NetworkOptions
from exo.p2p.secret_file import ClusterSecret
from exo.p2p.services import Services
from exo.p2p.term import Term
from exo.p2p.term_file import TermFile
from exo.p2p.tls import TlsTransport
from exo.p2p.transport import Transport

log = logging.getLogger(__name__)


def keep_to_machine(paths: Paths) -> None:
    """See that the key in the data folder was made on this machine; see `settle_identity`."""
    settle_identity(paths.identity, paths.machine, machine_id())


def make_network(
    settings: Settings, paths: Paths, identity: Identity, joined: ClusterSecret | None
) -> Network:
    """This node's network, not started yet. `joined` is the cluster that a token named, or that
    was locked around this node."""
    cluster, secret = cluster_of(settings, joined)
    me = PeerInfo(
        peer_id=identity.peer_id,
        name=settings.name or platform.node() or "exo",
        version=__version__,
        boot=secrets.token_hex(8),
        addresses=(),
        eligible=settings.eligible,
    )
    options = NetworkOptions(
        # "::" is every address of both families.
        listen=str(of_ip(settings.p2p_host or "::", settings.p2p_port)),
        peers=(*settings.peers, *(joined.addresses if joined and cluster == joined.name else ())),
    )
    return Network(
        me,
        options,
        make_links=partial(
            make_links, identity, TlsTransport(identity), Admission(cluster, secret)
        ),
        make_core=partial(make_core, secrets.randbits(64)),
        terms=TermFile(paths.term),
        make_discovery=_discovery_of(settings, identity, cluster) if settings.discovery else None,
    )


def cluster_of(settings: Settings, joined: ClusterSecret | None) -> tuple[str, bytes | None]:
    """The cluster's name and secret: those of the token, unless the settings name another."""
    default = Settings.model_fields["cluster_name"].default
    if joined is None:
        return settings.cluster_name, None
    if settings.cluster_name in {default, joined.name}:
        return joined.name, joined.secret
    log.warning(
        "The secret of the cluster '%s' is not used: this node is set to '%s'.",
        joined.name,
        settings.cluster_name,
    )
    return settings.cluster_name, None


def make_links(
    identity: Identity,
    transport: Transport,
    admission: Admission,
    services: Services,
    hello: Callable[[], Hello],
    on_event: Callable[[LinkEvent], None],
) -> Links:
    return Links(
        identity=identity,
        transport=transport,
        admission=admission,
        hello=hello,
        services=services,
        on_event=on_event,
    )


def make_core(seed: int, me: PeerInfo, term: Term | None) -> Core:
    return Core(me, term, seed=seed)


def _discovery_of(
    settings: Settings, identity: Identity, cluster: str
) -> Callable[[int, OnFound], Discovery]:
    def make(port: int, on_found: OnFound) -> Discovery:
        return Discovery(
            identity.peer_id,
            cluster,
            port,
            on_found=on_found,
            version=__version__,
            host=settings.p2p_host,
        )

    return make
