"""What a node says of itself by mDNS, and what is believed of it when another says it: pure.

    <peer id>._exo._tcp.local.      SRV   port, <peer id>.local.
                                    TXT   id, cluster, version, protocols, boot
    <peer id>.local.                A, AAAA

(DNS-SD, RFC 6763). Names are made of the peer id, so no two nodes want the same one. Anyone on the
network can say anything in anyone's name: a record suggests addresses to try, and nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from exo.errors import HandshakeError
from exo.p2p.addresses import of_ip
from exo.p2p.identity import public_key

SERVICE = "_exo._tcp.local."
# A node has few addresses; more than this are tried by nobody.
MAX_ADDRESSES = 16
_MAX_PROTOCOLS = 16
_MAX_VERSION = 64
_MAX_BOOT = 32
# A TXT string has 255 bytes with its key, and a cluster's name may be of 64 long characters.
_MAX_CLUSTER_BYTES = 200
_KEYS = ("id", "cluster", "version", "protocols", "boot")


@dataclass(frozen=True)
class Seen:
    """A node that announced itself, as it says. `addresses` are multiaddrs with its peer id, the
    most useful first; `boot` is another one in each life of its daemon."""

    peer_id: str
    cluster: str
    addresses: tuple[str, ...]
    version: str
    protocols: tuple[int, ...]
    boot: str


def instance_name(peer_id: str) -> str:
    return f"{peer_id}.{SERVICE}"


def host_name(peer_id: str) -> str:
    return f"{peer_id}.local."


def cluster_label(name: str) -> str:
    """A cluster's name as it is announced: cut where it is too long for a record."""
    return name.encode()[:_MAX_CLUSTER_BYTES].decode("utf-8", "ignore")


def to_txt(node: Seen) -> dict[bytes, bytes | None]:
    """The TXT record of a node."""
    return {
        b"id": node.peer_id.encode(),
        b"cluster": cluster_label(node.cluster).encode(),
        b"version": node.version.encode(),
        b"protocols": ",".join(map(str, node.protocols)).encode(),
        b"boot": node.boot.encode(),
    }


def peer_of(name: str) -> str | None:
    """The peer id that an instance name claims, None if it is no name of exo's."""
    peer_id = name[: -len(SERVICE) - 1]
    if name != instance_name(peer_id):
        return None
    try:
        public_key(peer_id)
    except HandshakeError:
        return None
    return peer_id


def read(
    name: str, txt: Mapping[bytes, bytes | None], ips: Iterable[str], port: int | None
) -> Seen | None:
    """The node that a set of records tells of, None if they cannot be right.

    `ips` may have a zone (`fe80::1%en0`); those that lead nowhere are dropped.
    """
    peer_id = peer_of(name)
    if peer_id is None or port is None or not 0 < port < 2**16:
        return None
    try:
        text = {key: (txt.get(key.encode()) or b"").decode("utf-8") for key in _KEYS}
        protocols = tuple(map(int, text["protocols"].split(",")))
    except ValueError:
        return None
    cluster, version, boot = text["cluster"], text["version"], text["boot"]
    if (
        text["id"] != peer_id
        or not cluster
        or len(version) > _MAX_VERSION
        or len(boot) > _MAX_BOOT
        or len(protocols) > _MAX_PROTOCOLS
        or not all(0 < one < 2**16 for one in protocols)
        # What is shown on a terminal must not steer it.
        or not (cluster + version + boot).isprintable()
    ):
        return None
    return Seen(peer_id, cluster, multiaddrs(peer_id, ips, port), version, protocols, boot)


def multiaddrs(peer_id: str, ips: Iterable[str], port: int) -> tuple[str, ...]:
    """Multiaddrs of those of the IP addresses that may lead to another node, best first."""
    usable = best(filter(_leads_somewhere, ips))
    return tuple(str(of_ip(ip, port).with_peer(peer_id)) for ip in usable)


def best(ips: Iterable[str]) -> tuple[str, ...]:
    """At most `MAX_ADDRESSES` of these, link-local ones last."""
    return tuple(sorted(set(ips), key=_preference)[:MAX_ADDRESSES])


def _leads_somewhere(text: str) -> bool:
    try:
        ip = ip_address(text)
    except ValueError:
        return False
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        return False
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped is None and ip.is_link_local == bool(ip.scope_id)
    return int(ip) >> 24 != 0  # 0.0.0.0/8 is this host.


def _preference(text: str) -> tuple[bool, int, int, str]:
    ip = ip_address(text)
    return (ip.is_link_local, ip.version, int(ip), text)
