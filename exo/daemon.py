"""The life of one node, top to bottom: start → run → drain → stop."""

import asyncio
import errno
import fcntl
import ipaddress
import json
import logging
import logging.handlers
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from exo import __version__
from exo.api.access import Doors
from exo.api.app import make_app
from exo.api.context import Context
from exo.api.image_store import ImageStore
from exo.api.meters import Meters, prepare
from exo.api.response_archive import ResponseArchive
from exo.api.response_store import ResponseStore
from exo.api.views import state_view
from exo.cluster.catalogue import Catalogue
from exo.cluster.keys import PREFIX
from exo.cluster.local import NodeOptions
from exo.cluster.log import EventLog
from exo.cluster.node import Node
from exo.cluster.replica import utc_now
from exo.cluster.security import Security
from exo.cluster.serving import Serving, ServingOptions
from exo.cluster.tracing import Tracing
from exo.cluster.worker import WorkerOptions
from exo.config import Paths, Settings
from exo.device.blas import blas_environment
from exo.device.huge_pages import huge_page_environment
from exo.device.measure import cached, measure
from exo.errors import AlreadyRunning, ConfigError, EngineError, HomeError, PortInUse
from exo.inference.kernels.built import kernels_state
from exo.logs import LEVEL_VARIABLE, LogFormat
from exo.models.registry import Registry
from exo.p2p.assemble import keep_to_machine, make_network
from exo.p2p.files import write_private
from exo.p2p.identity import load_identity
from exo.p2p.network import Network
from exo.p2p.secret_file import SecretFile

FORCED = 130
LOG_BYTES = 10 * 2**20
LOG_FILES = 5
# Seconds that a start waits to be in a cluster, at most.
JOIN_PATIENCE = 3.0

log = logging.getLogger(__name__)
OnReady = Callable[[dict[str, Any]], None]


def run(
    settings: Settings,
    paths: Paths,
    on_ready: OnReady,
    on_measured: OnReady = lambda _status: None,
) -> int:
    """Run this node until it is told to stop.

    `on_ready` gets what `exo status --json` shows. At the first start on a device it is not
    measured yet by then, and `on_measured` gets it again when it is.

    Returns 0 after a clean stop, 130 after a forced one.

    Raises:
        ConfigError, HomeError, AlreadyRunning, PortInUse: it cannot start.
    """
    _check_exposure(settings)
    paths.prepare()
    _only_one(paths)
    _log_to_file(paths, settings)
    return asyncio.run(_Daemon(settings, paths, on_ready, on_measured).run())


class _Daemon:
    """Everything that lives as long as the daemon does."""

    def __init__(
        self, settings: Settings, paths: Paths, on_ready: OnReady, on_measured: OnReady
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._on_ready = on_ready
        self._on_measured = on_measured
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._environment = {
            **blas_environment(paths.cache),
            **huge_page_environment(os.environ),
            "EXO_KERNELS": settings.kernels,
        }
        self._preparing: asyncio.Task[None] | None = None

    async def run(self) -> int:
        await asyncio.to_thread(keep_to_machine, self._paths)
        identity = load_identity(self._paths.identity)
        listener = self._listen()
        address = f"{_reachable(self._settings.host)}:{listener.getsockname()[1]}"
        cluster = SecretFile(self._paths.cluster)
        network = make_network(self._settings, self._paths, identity, cluster.load())
        node = self._make_node(network, address)
        context = self._make_context(node, cluster)
        context.cancelling.open()
        app = make_app(
            context,
            host=self._settings.host,
            max_body=self._settings.max_body_mb * 2**20,
            request_timeout=self._settings.request_timeout,
        )
        # Open answers end in `_drain`; what is left after it is cancelled. (0 would mean never.)
        server = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await network.start()
        await node.open(cached(self._paths.device, self._environment, kernels_state()))
        await server.setup()
        await web.SockSite(server, listener).start()
        self._catch_signals()
        api = f"http://{address}"
        try:
            # A node that is ready knows its cluster, unless that is in the middle of an election.
            await node.wait_joined(JOIN_PATIENCE)
            self._ready(context, api)
            self._preparing = asyncio.create_task(self._prepare(context, api))
            await self._stop.wait()
            await self._drain(context)
        finally:
            if self._preparing:
                self._preparing.cancel()
            await server.cleanup()
            await network.leave()
            await node.close()
            await network.close()
            self._paths.daemon.unlink(missing_ok=True)
            self._paths.local_key.unlink(missing_ok=True)
        log.info("Stopped.")
        return FORCED if self._force.is_set() else 0

    def _listen(self) -> socket.socket:
        """The API's socket, listening: bound before anything else so that a taken port is found
        at once.

        Raises:
            PortInUse: another program listens there.
            ConfigError: the address is none of this machine's.
        """
        host, port = self._settings.host, self._settings.port
        try:
            family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(1024)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"Port {port} on {host} is in use by another program.",
                    hint="Stop that, or choose another port with --port.",
                ) from error
            raise ConfigError(
                f"exo cannot listen on {host}:{port}: {error.strerror}.",
                hint="Choose one of this machine's addresses with --host.",
            ) from error
        listener.setblocking(False)
        return listener

    def _make_node(self, network: Network, address: str) -> Node:
        settings, paths = self._settings, self._paths
        if not settings.ring_encryption:
            log.warning(
                "What the nodes of one model send each other is NOT encrypted: whoever reaches "
                "their cable can read and change it. `exo start --ring-encryption` ends that."
            )
        return Node(
            NodeOptions(
                node_id=network.peer_id,
                name=network.me.name,
                address=address,
                memory_fraction=settings.memory_fraction,
                boot=network.me.boot,
                links=lambda: network.listening,
                mlx_links=settings.mlx_links,
                keep_alive=settings.keep_alive,
            ),
            WorkerOptions(
                node_id=network.peer_id,
                engine=settings.engine,
                environment={**self._environment, LEVEL_VARIABLE: settings.log_level},
                spare_runners=settings.spare_runners,
                prefix_cache_bytes=settings.prefix_cache_mb * 2**20,
                max_queue=settings.max_queue,
                ring_host=settings.p2p_host or "::",
                ring_encrypted=settings.ring_encryption,
                mlx_links=settings.mlx_links,
            ),
            EventLog(paths.database),
            Registry(settings.models_dir or paths.models),
            network,
            self._stop.set,
        )

    def _make_context(self, node: Node, cluster: SecretFile) -> Context:
        settings = self._settings
        catalogue = Catalogue(node)
        meters = Meters()
        options = ServingOptions(
            auto_place=settings.auto_place,
            wait=settings.auto_place_wait,
            stream_wait=settings.auto_place_stream_wait,
        )
        return Context(
            node=node,
            catalogue=catalogue,
            serving=Serving(node, catalogue, options),
            security=Security(node.network, cluster, node),
            images=ImageStore(self._paths.images, settings.images_mb * 2**20),
            responses=ResponseArchive(
                node, ResponseStore(self._paths.responses, settings.responses_mb * 2**20)
            ),
            tracing=Tracing(node.network, meters),
            meters=meters,
            doors=self._make_doors(),
        )

    def _make_doors(self) -> Doors:
        """Who may use the API; the command line of this device may always."""
        settings = self._settings
        beyond = not is_loopback(settings.host)
        local_key = f"{PREFIX}local-{secrets.token_urlsafe(32)}"
        _write_state(self._paths.local_key, local_key)
        required = settings.require_keys or (beyond and not settings.insecure)
        if beyond and not required:
            log.warning("The API answers everyone who reaches %s, without a key.", settings.host)
        return Doors(keys_required=required, local_key=local_key, beyond_loopback=beyond)

    def _ready(self, context: Context, api: str) -> None:
        """Tell the world: the file that the CLI looks at, the log, and the terminal."""
        node_id = context.node.options.node_id
        info = {
            "format": 1,
            "pid": os.getpid(),
            "api": api,
            "node_id": node_id,
            "started_at": utc_now(),
            "version": __version__,
        }
        _write_state(self._paths.daemon, json.dumps(info))
        log.info("exo %s is ready on %s, node %s.", __version__, api, node_id)
        self._on_ready(_status(context, api))

    async def _prepare(self, context: Context, api: str) -> None:
        """What keeps the cores busy and nobody waits for: when the node is up, so that no start is
        slower for it, and one after the other, since it would disturb the measurement."""
        await asyncio.to_thread(prepare)
        await self._measure(context, api)
        await context.node.worker.keep_spares()

    async def _measure(self, context: Context, api: str) -> None:
        known = cached(self._paths.device, self._environment, kernels_state())
        try:
            profile = await measure(
                self._paths.device, environment=self._environment, kernels=kernels_state()
            )
        except EngineError as error:
            log.warning("This device could not be measured: %s", error)
            await context.node.measured(None)
            return
        if profile != known:
            await context.node.measured(profile)
            self._on_measured(_status(context, api))

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    async def _drain(self, context: Context) -> None:
        """Let open answers finish, for a while or until a second signal."""
        context.draining = True
        log.info("Stopping: %d answers are open.", context.node.open_requests)
        idle = asyncio.create_task(context.node.wait_idle())
        force = asyncio.create_task(self._force.wait())
        await asyncio.wait(
            {idle, force},
            timeout=self._settings.drain_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in (idle, force):
            task.cancel()


def _status(context: Context, api: str) -> dict[str, Any]:
    state = state_view(context).model_dump(mode="json")
    return {**state, "node_id": context.node.options.node_id, "pid": os.getpid(), "api": api}


def _check_exposure(settings: Settings) -> None:
    """To ask for keys and not to ask for them cannot both be meant."""
    if settings.insecure and settings.require_keys:
        raise ConfigError(
            "The settings 'insecure' and 'require_keys' contradict each other.",
            hint="Set one of them.",
        )


def _write_state(path: Path, text: str) -> None:
    """Write a small file of the running daemon, for its owner's eyes.

    Raises:
        HomeError: it cannot be written.
    """
    try:
        write_private(path, text)
    except OSError as error:
        raise HomeError(
            f"{path} cannot be written: {error.strerror}.", hint="Free some space on that disk."
        ) from error


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reachable(host: str) -> str:
    """An address that a client on this machine can use, in the form of a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  not bound to here
    return f"[{host}]" if ":" in host else host


def _only_one(paths: Paths) -> None:
    """Take the home's lock, and keep it until this process has ended, however it ends: whoever
    waits for it knows then that nothing of the daemon is left.

    Raises:
        AlreadyRunning: another daemon holds it.
    """
    try:
        lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise HomeError(f"{paths.lock} cannot be opened: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AlreadyRunning(
            f"exo is already running with its data in {paths.data}.",
            hint="`exo status` shows it, `exo stop` ends it.",
        ) from error


def _log_to_file(paths: Paths, settings: Settings) -> None:
    """One rotated log file; warnings also on the terminal, if there is one."""
    file = logging.handlers.RotatingFileHandler(
        paths.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
    )
    handlers: list[logging.Handler] = [file]
    if sys.stderr.isatty():
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
        handlers.append(terminal)
    for handler in handlers:
        handler.setFormatter(LogFormat())
    # The log must not stop the daemon, also when its disk is full.
    logging.raiseExceptions = False
    logging.basicConfig(level=settings.log_level.upper(), handlers=handlers, force=True)
