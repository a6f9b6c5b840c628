"""TCP as links need it."""

import asyncio
import socket
from typing import Any

from exo.errors import ConfigError, PeerUnreachable, PortInUse
from exo.p2p.addresses import Address

SocketAddress = tuple[Any, ...]

_FAMILIES = {
    "ip4": socket.AF_INET,
    "ip6": socket.AF_INET6,
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}
_BACKLOG = 128
# Seconds of silence before a host is asked whether it is there, between asking, and in all; a
# backstop, since members look after each other much sooner.
_IDLE, _INTERVAL, _PROBES, _GIVE_UP = 15, 5, 3, 30
# Bytes that the kernel takes before they can leave. What is urgent waits behind them.
_UNSENT = 2**18
_TCP_OPTIONS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": _IDLE,
    "TCP_KEEPALIVE": _IDLE,  # what macOS calls it
    "TCP_KEEPINTVL": _INTERVAL,
    "TCP_KEEPCNT": _PROBES,
    "TCP_USER_TIMEOUT": _GIVE_UP * 1000,
    "TCP_NOTSENT_LOWAT": _UNSENT,
}


def tune(sock: socket.socket) -> None:
    """Make a connection quick to send and quick to notice that its other end is gone."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if option := getattr(socket, name, None):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(there: Address) -> socket.socket:
    """A socket that is connected to the first of an address's hosts that answers.

    Raises:
        PeerUnreachable: none does; `refused` if the last of them said that nobody listens.
    """
    loop = asyncio.get_running_loop()
    refused, reason = False, "it has no address"
    for family, address in await _resolve(there):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            refused = isinstance(error, ConnectionRefusedError)
            reason = error.strerror or str(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise PeerUnreachable(f"{there} cannot be reached: {reason}.", refused=refused)


def listen(here: Address) -> socket.socket:
    """A socket that listens. `/ip6/::` means every address, IPv4 too, and IPv4 alone where the
    system has no IPv6; other IPv6 addresses take IPv6 only.

    Raises:
        ConfigError: it is no address to listen on.
        PortInUse: it is taken.
    """
    if here.kind not in ("ip4", "ip6"):
        raise ConfigError(f"{here} is no address to listen on.", hint="/ip4/0.0.0.0/tcp/52416 is.")
    everywhere = here.host == "::"
    if everywhere and not socket.has_dualstack_ipv6():
        here = Address("ip4", "0.0.0.0", here.port)  # noqa: S104  it was asked for
    sock = socket.socket(_FAMILIES[here.kind], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if here.kind == "ip6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not everywhere)
        sock.bind(_socket_address(here))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortInUse(
            f"exo cannot listen for peers on {here}: {error.strerror}.",
            hint="Another daemon may run there; --p2p-port picks another port.",
        ) from error
    return sock


async def _resolve(there: Address) -> list[tuple[int, SocketAddress]]:
    family = _FAMILIES.get(there.kind)
    if family is None:
        raise PeerUnreachable(f"{there} is not on this network.")
    try:
        if there.kind in ("ip4", "ip6"):
            return [(family, _socket_address(there))]
        found = await asyncio.get_running_loop().getaddrinfo(
            there.host, there.port, family=family, type=socket.SOCK_STREAM
        )
    except OSError as error:
        raise PeerUnreachable(f"{there} cannot be reached: {error.strerror}.") from error
    return [(family, address) for family, _, _, _, address in found]


def _socket_address(address: Address) -> SocketAddress:
    if address.kind == "ip6":
        scope = socket.if_nametoindex(address.zone) if address.zone else 0
        return address.host, address.port, 0, scope
    return address.host, address.port
