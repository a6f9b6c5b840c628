"""`exo stop`: end the daemon of this machine."""

import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from exo.cli import local
from exo.cli.client import not_running
from exo.cli.output import JsonOption, out, seconds_text
from exo.errors import DaemonError

if TYPE_CHECKING:
    import psutil

# Beyond the drain time: runners are given this long to end and free their memory.
MARGIN = 20.0
# A clock that was set, or a file system with coarse times, must not make a daemon a stranger.
CLOCK_TOLERANCE = 5.0


def stop(
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for open requests to finish.")
    ] = False,
    _json: JsonOption = False,
) -> None:
    """Stop exo on this device.

    Requests that are open get time to finish (the setting drain_seconds).
    """
    import psutil  # noqa: PLC0415  not paid for by `exo --help`

    from exo.config import load_settings  # noqa: PLC0415

    paths = local.find_paths()
    daemon = local.read_daemon(paths)
    if not local.is_running(paths):
        raise not_running()
    process = _process(daemon) if daemon else None
    if not daemon or not process:
        raise DaemonError(
            "exo holds its lock but has not written its address: it is starting or stopping.",
            hint="Try again in a moment.",
        )
    patience = MARGIN if force else load_settings(paths).drain_seconds + MARGIN
    began = time.monotonic()
    try:
        process.send_signal(signal.SIGTERM)
        if force:
            # Another signal than the first: two equal ones that are pending count as one.
            process.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied as error:
        raise DaemonError(
            f"exo (pid {daemon.pid}) belongs to another user.", hint="Stop it as that user."
        ) from error
    if not local.wait_until_stopped(paths, patience):
        raise DaemonError(
            f"exo (pid {daemon.pid}) is still running after {patience:.0f} s.",
            hint=f"End it with `kill -9 {daemon.pid}`." if force else "Try `exo stop --force`.",
        )
    seconds = time.monotonic() - began
    out.result(
        {"stopped": True, "pid": daemon.pid, "forced": force, "seconds": round(seconds, 3)},
        lambda: f"exo (pid {daemon.pid}) has stopped after {seconds_text(seconds)}.",
    )


def _process(daemon: local.Daemon) -> "psutil.Process | None":
    """The daemon's process; None if its pid has passed to a process that began later."""
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(daemon.pid)
        recorded = datetime.fromisoformat(daemon.started_at).timestamp()
        is_daemon = process.create_time() <= recorded + CLOCK_TOLERANCE
    except (psutil.NoSuchProcess, ValueError):
        return None
    return process if is_daemon else None
