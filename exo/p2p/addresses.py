"""Where a peer can be reached: multiaddrs (https://github.com/multiformats/multiaddr).

Of these, as text:

    /ip4/10.0.0.2/tcp/52416
    /ip6/fd00::2/tcp/52416
    /ip6zone/en0/ip6/fe80::2/tcp/52416      link-local, through one interface
    /dns/studio.local/tcp/52416             also dns4 and dns6: one family only
    /memory/3                               within one process, for tests

each with or without `/p2p/PEER_ID` at the end.
"""

import ipaddress
from dataclasses import dataclass, replace
from typing import Literal

from exo.errors import ConfigError, HandshakeError
from exo.p2p.identity import public_key

Kind = Literal["ip4", "ip6", "dns", "dns4", "dns6", "memory"]
MAX_LENGTH = 512
# RFC 4291, section 2.5.5.2.
_MAPPED = "::ffff:"


@dataclass(frozen=True)
class Address:
    """One multiaddr. `host` is an IP address, a name, or the number of a `/memory` address; `zone`
    the interface of a link-local IPv6 address."""

    kind: Kind
    host: str
    port: int = 0
    peer_id: str | None = None
    zone: str | None = None

    def __str__(self) -> str:
        zone = f"/ip6zone/{self.zone}" if self.zone else ""
        port = "" if self.kind == "memory" else f"/tcp/{self.port}"
        peer = f"/p2p/{self.peer_id}" if self.peer_id else ""
        return f"{zone}/{self.kind}/{self.host}{port}{peer}"

    def with_peer(self, peer_id: str | None) -> "Address":
        return replace(self, peer_id=peer_id)

    def with_port(self, port: int) -> "Address":
        return replace(self, port=port)


def parse(text: str) -> Address:
    """Read a multiaddr.

    Raises:
        ConfigError: it is none, or of a kind that exo does not speak.
    """
    parts = text.split("/")
    if len(text) > MAX_LENGTH or parts[0]:
        raise _wrong(text)
    rest = parts[1:]
    zone = peer_id = None
    if len(rest) > 2 and rest[0] == "ip6zone" and rest[2] == "ip6":
        zone, rest = rest[1], rest[2:]
    if len(rest) > 2 and rest[-2] == "p2p":
        peer_id, rest = rest[-1], rest[:-2]
        try:
            public_key(peer_id)
        except HandshakeError as error:
            raise _wrong(text) from error
    match rest:
        case ["memory", number] if _is_number(number):
            return Address("memory", number, peer_id=peer_id)
        case ["ip4" | "ip6" | "dns" | "dns4" | "dns6" as kind, host, "tcp", port] if (
            _is_number(port) and int(port) < 2**16
        ):
            return Address(kind, _host(kind, host, text), int(port), peer_id, zone)
        case _:
            raise _wrong(text)


def of_ip(ip: str, port: int) -> Address:
    """The multiaddr of an IP address, as `ipaddress` or a socket writes it, with or without zone;
    of an IPv4 one also where an IPv6 socket writes it as `::ffff:10.0.0.2`.

    Raises:
        ConfigError: it is no IP address.
    """
    host, _, zone = ip.removeprefix(_MAPPED).partition("%")
    kind = "ip6" if ":" in host else "ip4"
    return Address(kind, _host(kind, host, ip), port, zone=zone or None)


def origin(address: str) -> str:
    """Who is counted together when connections are limited: an IPv4 address, or the /64 network of
    an IPv6 address, which one host can have to itself."""
    try:
        parsed = parse(address)
    except ConfigError:
        return address
    if parsed.kind == "ip6":
        return str(ipaddress.ip_network(f"{parsed.host}/64", strict=False))
    return parsed.host


def _host(kind: Kind, host: str, text: str) -> str:
    if kind in ("ip4", "ip6"):
        family = ipaddress.IPv4Address if kind == "ip4" else ipaddress.IPv6Address
        try:
            if "%" not in host:
                return str(family(host))
        except ValueError as error:
            raise _wrong(text) from error
        raise _wrong(text)
    if not host or host.startswith("-") or not host.isprintable() or len(host) > 253:
        raise _wrong(text)
    return host


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _wrong(text: str) -> ConfigError:
    return ConfigError(
        f"'{text[:MAX_LENGTH]}' is no address of a peer.",
        hint="One looks like /ip4/10.0.0.2/tcp/52416, with or without /p2p/ and a peer id.",
    )
