"""`exo start`: become the daemon, or start one in the background."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from exo import importing
from exo.cli import local
from exo.cli.client import LOGS_HINT, JsonObject
from exo.cli.cluster import warnings
from exo.cli.output import JsonOption, fields, out, uses_color
from exo.cli.status import this_node
from exo.errors import AlreadyRunning, DaemonError, ExoError, HomeError, error_class

READY_TIMEOUT = 120.0

Host = Annotated[str | None, typer.Option(help="Address the API listens on.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")
]
Name = Annotated[str | None, typer.Option(help="Name of this node; the host name if not set.")]
ClusterName = Annotated[str | None, typer.Option(help="Name of the cluster.")]
Join = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Join the cluster whose `exo cluster token` this is."),
]
Peer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MULTIADDR",
        help="Address of another node, such as /ip4/10.0.0.2/tcp/52416, for networks without "
        "multicast; may be given several times.",
    ),
]
P2pPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port for links with other nodes; 0 picks a free one."),
]
RingEncryption = Annotated[
    bool | None,
    typer.Option(
        help="Encrypt what the nodes of one model send each other. Switch it off only on a "
        "cable that nobody else can reach, and on all of its nodes."
    ),
]
Discovery = Annotated[bool | None, typer.Option(help="Find other nodes, and be found, by mDNS.")]
MlxLinks = Annotated[
    bool | None,
    typer.Option(
        help="Allow links of mx.distributed, which neither encrypts nor authenticates: for tensor "
        "sharding in a network that you trust."
    ),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option(help="Folder with model folders, instead of the one in the data folder."),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Answer without a key on an address beyond loopback too, in a network that you trust.",
    ),
]
RequireKeys = Annotated[
    bool | None,
    typer.Option(help="Ask for a key on loopback too, such as behind a proxy or a tunnel."),
]
AutoPlace = Annotated[
    bool | None, typer.Option(help="Place a known model when a request first asks for it.")
]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
]
Background = Annotated[bool, typer.Option("--background", help="Return when the daemon is ready.")]
ReadyFd = Annotated[int | None, typer.Option(hidden=True, min=3)]


def start(  # noqa: PLR0913, PLR0917  one for each flag
    host: Host = None,
    port: Port = None,
    name: Name = None,
    cluster_name: ClusterName = None,
    join: Join = None,
    peer: Peer = None,
    p2p_port: P2pPort = None,
    discovery: Discovery = None,
    ring_encryption: RingEncryption = None,
    mlx_links: MlxLinks = None,
    models_dir: ModelsDir = None,
    insecure: Insecure = None,
    require_keys: RequireKeys = None,
    auto_place: AutoPlace = None,
    log_level: LogLevel = None,
    background: Background = False,
    ready_fd: ReadyFd = None,
    _json: JsonOption = False,
) -> None:
    """Start exo on this device.

    The settings that are not given here come from the environment (EXO_PORT for --port, and so
    on), then from config.toml.
    """
    flags = {
        "host": host,
        "port": port,
        "name": name,
        "cluster_name": cluster_name,
        "peers": peer or None,
        "p2p_port": p2p_port,
        "discovery": discovery,
        "ring_encryption": ring_encryption,
        "mlx_links": mlx_links,
        "models_dir": models_dir.expanduser().absolute() if models_dir else None,
        "insecure": insecure,
        "require_keys": require_keys,
        "auto_place": auto_place,
        "log_level": log_level,
    }
    if join is not None:
        join_cluster(join)
    if background:
        status = launch(flags)
        out.result(status, lambda: f"exo is running at {status['api']} (pid {status['pid']}).")
        for text in warnings(status):
            out.note(text)
    elif code := serve(flags, _Starter(ready_fd) if ready_fd else _Terminal()):
        raise typer.Exit(code)


def join_cluster(token: str) -> None:
    """Have the next daemon of this home join the cluster of `token`. Done here, before a daemon
    is started, so that the token is not among the arguments of a process that stays.

    Raises:
        ConfigError: it is mistyped.
        AlreadyRunning: a daemon of this home is in a cluster.
    """
    from exo.p2p import joining  # noqa: PLC0415  only for this

    paths = local.find_paths()
    paths.prepare()
    if local.is_running(paths):
        raise AlreadyRunning(
            f"exo is already running with its data in {paths.data}.",
            hint="Stop it with `exo stop`, then join.",
        )
    joining.join(paths.cluster, token)


class _Terminal:
    """Shows the start to a person who keeps the daemon in the foreground."""

    def ready(self, status: JsonObject) -> None:
        out.result(status, lambda: banner(status))

    def measured(self, status: JsonObject) -> None:
        facts = dict(this_node(status))
        out.note(f"Measured: {facts['Device']}, {facts['FLOP/s']}.")

    def failed(self, error: ExoError) -> None:
        """Nothing to do: main() prints it."""


class _Starter:
    """Tells the start to the `exo start --background` at the other end of a pipe."""

    def __init__(self, fd: int) -> None:
        # The processes that the daemon starts must not hold the pipe open.
        os.set_inheritable(fd, False)
        self._fd = fd

    def ready(self, status: JsonObject) -> None:
        self._tell({"ready": status})

    def measured(self, status: JsonObject) -> None:
        """Nothing to do: whoever started the daemon has gone on."""

    def failed(self, error: ExoError) -> None:
        self._tell({"failed": {"code": error.code, "message": error.message, "hint": error.hint}})

    def _tell(self, word: JsonObject) -> None:
        try:
            with os.fdopen(self._fd, "w", encoding="utf-8") as pipe:
                json.dump(word, pipe)
        except BrokenPipeError:
            # The starter gave up. Whether the daemon goes on is not for the pipe to decide.
            pass


def serve(flags: Mapping[str, Any], listener: _Terminal | _Starter) -> int:
    """Run the daemon in this process; its exit code."""
    with importing.for_good():
        from exo import daemon  # noqa: PLC0415  only this command becomes the daemon
        from exo.config import load_settings  # noqa: PLC0415

    paths = local.find_paths()
    ready = False

    def on_ready(status: JsonObject) -> None:
        nonlocal ready
        ready = True
        listener.ready(status)

    try:
        return daemon.run(load_settings(paths, flags), paths, on_ready, listener.measured)
    except ExoError as error:
        if not ready:
            listener.failed(error)
        raise


def launch(flags: Mapping[str, Any]) -> JsonObject:
    """Start the daemon in a session of its own and wait until it is ready; its status.

    Raises:
        ExoError: what the daemon itself raised, or DaemonError if it died without a word.
    """
    paths = local.find_paths()
    paths.prepare()
    read_end, write_end = os.pipe()
    try:
        # -P: modules come from where exo is installed, never from the folder the user is in.
        command = [sys.executable, "-P", "-m", "exo", "start", *_arguments(flags)]
        with _open_log(paths.log) as log:
            child = subprocess.Popen(
                [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_end],
                start_new_session=True,
            )
    finally:
        os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        try:
            word = _read_to_end(pipe.fileno())
        except (KeyboardInterrupt, DaemonError):
            child.terminate()
            raise
    return _outcome(word, child.wait)


def _open_log(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except OSError as error:
        raise HomeError(
            f"{path} cannot be written: {error.strerror}.", hint="Make it writable or remove it."
        ) from error


def _outcome(word: bytes, wait: Callable[[], int]) -> JsonObject:
    if not word:
        raise DaemonError(
            f"The daemon ended before it was ready (exit code {wait()}).", hint=LOGS_HINT
        )
    reply = json.loads(word)
    if failed := reply.get("failed"):
        wait()
        raise error_class(failed["code"])(failed["message"], hint=failed["hint"])
    return reply["ready"]


def _read_to_end(pipe: int) -> bytes:
    """What the daemon tells: it closes its end after one message, or by dying."""
    message = b""
    deadline = time.monotonic() + READY_TIMEOUT
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(deadline - time.monotonic()):
            if not (chunk := os.read(pipe, 65536)):
                return message
            message += chunk
    raise DaemonError(f"The daemon was not ready within {READY_TIMEOUT:.0f} s.", hint=LOGS_HINT)


def _arguments(flags: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in flags.items():
        option = name.replace("_", "-")
        if name == "peers":
            words.extend(f"--peer={address}" for address in value or ())
        elif value is True:
            words.append(f"--{option}")
        elif value is False:
            words.append(f"--no-{option}")
        elif value is not None:
            words.append(f"--{option}={value}")
    return words


def banner(status: JsonObject) -> str:
    """What `exo start` shows when the node is ready."""
    lines = fields(this_node(status))
    lines = "\n\n".join([lines, *warnings(status)])
    if not uses_color(sys.stdout):
        return lines
    from rich.console import Console  # noqa: PLC0415  a tenth of a second, for terminals only
    from rich.panel import Panel  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    with console.capture() as capture:
        console.print(Panel(Text.from_ansi(lines), title="exo", expand=False))
        console.print("Press Ctrl-C to stop.", style="dim", end="")
    return capture.get()
