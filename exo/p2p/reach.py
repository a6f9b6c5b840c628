"""The addresses that nodes may reach each other at."""

from collections.abc import Iterable

from exo.p2p.addresses import parse
from exo.p2p.announcement import multiaddrs
from exo.p2p.discovery import announced_ips
from exo.p2p.interfaces import Interface


def reachable(
    peer_id: str, listening: Iterable[str], interfaces: Iterable[Interface]
) -> tuple[str, ...]:
    """Multiaddrs for others, of those that this node listens on: pure. "Every address" becomes
    those of the interfaces; what only this machine reaches stays, if there is nothing else."""
    there = tuple(interfaces)
    found: list[str] = []
    for text in listening:
        address = parse(text)
        ips = announced_ips(there, address.host) if address.kind in {"ip4", "ip6"} else ()
        own = (str(address.with_peer(peer_id)),)
        found += multiaddrs(peer_id, ips, address.port) if ips else own
    return tuple(dict.fromkeys(found))


def hosts(addresses: Iterable[str]) -> tuple[str, ...]:
    """The hosts of a peer's multiaddrs, as a socket takes them, IPv4 first: pure."""
    found: dict[str, bool] = {}
    for address in map(parse, addresses):
        if address.kind == "memory":
            found["127.0.0.1"] = False  # It is in this process.
        else:
            host = f"{address.host}%{address.zone}" if address.zone else address.host
            found[host] = address.kind == "ip6"
    return tuple(sorted(found, key=lambda host: found[host]))
