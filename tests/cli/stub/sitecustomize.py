"""Puts a small `exo.daemon` in the place of the real one, in a child process of the tests.

Python runs this file at start when its folder is on PYTHONPATH. STUB_DAEMON says how it behaves:
`serve` (default), `stubborn` (waits for a second signal), `refuse`, `crash`.
"""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import exo
from exo.errors import PortInUse

if TYPE_CHECKING:
    from exo.config import Paths, Settings

SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(
    settings: "Settings",
    paths: "Paths",
    on_ready: Callable[[dict[str, Any]], None],
    on_measured: Callable[[dict[str, Any]], None],
) -> int:
    behaviour = os.environ.get("STUB_DAEMON", "serve")
    if behaviour == "refuse":
        raise PortInUse(f"Port {settings.port} is taken.", hint="Choose another.")
    if behaviour == "crash":
        os._exit(9)
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.cli.fake_api import NODE_ID, FakeApi  # noqa: PLC0415

    # Blocked before the server's thread begins, so that only sigwait below takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    paths.prepare()
    with paths.lock.open("w") as lock, FakeApi() as api:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        api.nodes[0]["name"] = settings.name or "box"
        record = {
            "format": 1,
            "pid": os.getpid(),
            "api": api.url,
            "node_id": NODE_ID,
            "started_at": datetime.now(UTC).isoformat(),
            "version": exo.__version__,
        }
        paths.daemon.write_text(json.dumps(record))
        on_ready(api.status(os.getpid()))
        signal.sigwait(SIGNALS)
        if behaviour == "stubborn":
            signal.sigwait(SIGNALS)
        paths.daemon.unlink()
    return 0


stub: Any = ModuleType("exo.daemon")
stub.run = run
sys.modules["exo.daemon"] = stub
exo.daemon = stub  # type: ignore[attr-defined]  the stub takes its place
