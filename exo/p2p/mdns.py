"""zeroconf, held so that it is quick and can follow the network: the only module that knows it.

Names are made of peer ids and thus unique, so they are not probed for first (RFC 6762, section
8.1), which would take a second.
"""

import asyncio
import errno
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, cast

# Exported in fact, though not in __all__; a browser alone asks too late and too seldom.
from zeroconf import (
    DNSOutgoing,  # pyright: ignore[reportPrivateImportUsage]  see above
    DNSQuestion,  # pyright: ignore[reportPrivateImportUsage]  see above
    Error,
    ServiceStateChange,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

# Seconds that records hold. Goodbyes and questions keep them right in the meantime. zeroconf takes
# pointers for 1125 at least.
_TTL: Final = 1200
_HOST_TTL: Final = 120
# Names whose records are being asked for at one time, and the milliseconds that may take.
_MAX_RESOLVING: Final = 32
_RESOLVE_MS: Final = 3000

_QUERY, _PTR, _IN = 0, 12, 1

# What may come of using interfaces that are just going away, or a port that is not shared.
ERRORS: Final = (OSError, Error, RuntimeError)


# The interface is going, of which the system tells in a moment.
_GONE: Final = {errno.ENETDOWN, errno.ENETUNREACH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO}

log = logging.getLogger(__name__)


class _Once(logging.Filter):
    """zeroconf logs each socket that cannot send, with a traceback, and what it raises as well."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[int | None] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OSError):
            return not str(record.msg).startswith("Address in use")
        if error.errno not in self._told | _GONE:
            self._told.add(error.errno)
            hint = (
                " Allow exo to find devices in the system's settings for privacy (Local Network)."
                if sys.platform == "darwin"
                else ""
            )
            log.warning("Other nodes may not be found, mDNS cannot send: %s.%s", error, hint)
        return False


logging.getLogger("zeroconf").addFilter(_Once())


@dataclass(frozen=True)
class Record:
    """An instance of a service. IPv6 addresses of one link have their interface as zone, if it is
    known: `fe80::1%3`."""

    name: str
    host: str
    port: int | None
    txt: Mapping[bytes, bytes | None]
    ips: tuple[str, ...]


class Mdns:
    """One service type, browsed and announced on the interfaces of certain addresses.

    `wanted` says whether a name is worth looking at; `on_record` is called when anything about it
    is new, `on_gone` when it says goodbye, runs out, or can no longer be followed. The callbacks
    must not raise: zeroconf would close its socket.
    """

    def __init__(
        self,
        service: str,
        *,
        wanted: Callable[[str], bool],
        on_record: Callable[[Record], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._service = service
        self._wanted = wanted
        self._on_record = on_record
        self._on_gone = on_gone
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announcing: asyncio.Future[None] | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._known: set[str] = set()
        self._families: set[int] = set()

    async def use(self, ips: Sequence[str], own: Record | None) -> None:
        """Speak through the interfaces of these addresses, at most one of each family each; say
        who is here, and ask who else is. What was announced before is replaced.

        Raises:
            ERRORS
        """
        self._stop_announcing()
        families = {ip_address(ip).version for ip in ips}
        if families and families != self._families:
            # The socket that listens is of the families that it was opened for.
            await self.close(goodbye=False)
            self._families = families
        if self._zeroconf is None:
            if not ips:
                return
            self._zeroconf = AsyncZeroconf(interfaces=list(ips))
            await self._zeroconf.zeroconf.async_wait_for_start()
            self._browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf, self._service, handlers=[self._changed]
            )
        else:
            # Without a registration it does not wait for its own announcements.
            registry = self._zeroconf.zeroconf.registry
            registry.async_remove(registry.async_get_service_infos())
            await self._zeroconf.async_update_interfaces(list(ips))
        if ips:
            await self._announce(own)
            self.ask(unicast=True)
            self.ask()

    def ask(self, *, unicast: bool = False) -> None:
        """Ask who is there, but for those that are known. `unicast`: the answers may come to this
        node alone, which is quicker; of several programs on one machine only one may get them."""
        if self._zeroconf is None:
            return
        zeroconf = self._zeroconf.zeroconf
        now = current_time_millis()
        question = DNSQuestion(self._service, _PTR, _IN)
        question.unicast = unicast
        out = DNSOutgoing(_QUERY)
        out.add_question(question)
        for known in zeroconf.cache.get_all_by_details(self._service, _PTR, _IN):
            if not known.is_stale(now):
                out.add_answer_at_time(known, now)
        zeroconf.async_send(out)

    async def close(self, *, goodbye: bool) -> None:
        """`goodbye`: tell the others at once, instead of leaving it to them to notice."""
        self._stop_announcing()
        for task in self._resolving.values():
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        if self._browser:
            await self._browser.async_cancel()
            self._browser = None
        if self._zeroconf:
            zeroconf = self._zeroconf.zeroconf
            # Said once: a node that leaves must not wait to say it thrice.
            last_words = zeroconf.generate_unregister_all_services()
            if goodbye and last_words:
                zeroconf.async_send(last_words)
            await self._zeroconf.async_close()
            self._zeroconf = None
        for name in self._known:
            self._on_gone(name)
        self._known.clear()

    async def _announce(self, own: Record | None) -> None:
        if own is None or self._zeroconf is None:
            return
        info = AsyncServiceInfo(
            self._service,
            own.name,
            port=own.port,
            properties=dict(own.txt),
            server=own.host,
            parsed_addresses=list(own.ips),
            host_ttl=_HOST_TTL,
            other_ttl=_TTL,
        )
        zeroconf = cast("Any", self._zeroconf)  # The type of what it returns is not whole.
        register: Callable[..., Awaitable[asyncio.Task[None]]] = zeroconf.async_register_service
        self._announcing = await register(info, cooperating_responders=True)

    def _stop_announcing(self) -> None:
        if self._announcing:
            self._announcing.cancel()
            self._announcing = None

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if service_type != self._service or not self._wanted(name):
            return
        if state_change is ServiceStateChange.Removed:
            self._known.discard(name)
            self._on_gone(name)
            return
        info = AsyncServiceInfo(self._service, name)
        if info.load_from_cache(zeroconf):
            self._tell(info)
        elif name not in self._resolving and len(self._resolving) < _MAX_RESOLVING:
            task = asyncio.create_task(self._resolve(zeroconf, info))
            self._resolving[name] = task
            task.add_done_callback(lambda _task: self._resolving.pop(name))

    async def _resolve(self, zeroconf: Zeroconf, info: AsyncServiceInfo) -> None:
        """Ask for what a name came without."""
        if await info.async_request(zeroconf, _RESOLVE_MS):
            self._tell(info)

    def _tell(self, info: AsyncServiceInfo) -> None:
        self._known.add(info.name)
        self._on_record(
            Record(
                name=info.name,
                host=info.server or "",
                port=info.port,
                txt=info.properties,
                ips=tuple(info.parsed_scoped_addresses()),
            )
        )
