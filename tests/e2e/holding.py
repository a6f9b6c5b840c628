"""What a daemon has open: after any load it must be what it was before."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from .daemon import Daemon

# What a daemon may have more of at the end: an address more that is dialled or measured just then;
# and the threads for blocking calls, of which Python starts up to the number of cores + 4.
MORE = {"descriptors": 4, "tasks": 6, "threads": (os.cpu_count() or 1) + 4}


def probed_path() -> str:
    """PYTHONPATH for daemons that are asked for their tasks."""
    probe = Path(__file__).with_name("probe")
    return os.pathsep.join([str(probe), *filter(None, [os.environ.get("PYTHONPATH")])])


def tasks_of(daemon: Daemon) -> int:
    """How many asyncio tasks a daemon has; see `probe`."""
    path = daemon.home / "tasks"
    if not path.exists():
        os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)  # Held open for both ends, so that neither waits for the other.
    try:
        daemon.signal(signal.SIGUSR1)
        return int(os.read(pipe, 100))
    finally:
        os.close(pipe)


@dataclass(frozen=True)
class Holding:
    """What a daemon has open."""

    descriptors: int
    threads: int
    tasks: int
    children: frozenset[int]

    @classmethod
    def of(cls, daemon: Daemon) -> "Holding":
        process = psutil.Process(daemon.pid)
        children = frozenset(child.pid for child in process.children(recursive=True))
        return cls(process.num_fds(), process.num_threads(), tasks_of(daemon), children)

    def is_more_than(self, other: "Holding") -> bool:
        return any(
            getattr(self, what) > getattr(other, what) + allowed for what, allowed in MORE.items()
        )
