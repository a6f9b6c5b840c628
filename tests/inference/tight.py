"""Engines for which there is no memory at some time: the system is asked for some, and refuses."""

import resource
from pathlib import Path

import mlx.core as mx

from exo.inference.engine import OnProgress
from exo.inference.messages import Load
from exo.inference.mlx.engine import MlxEngine
from exo.inference.ring.frames import Frame

# The warm-up is fewer steps than that.
STEPS = 12
MUCH = 2**30


def limit() -> tuple[int, int]:
    """Let this process have hardly more memory than it has; return what it might have before."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, before[1]))
    return before


def run_out() -> None:
    """Ask for more memory than this process may have. What it has, it keeps."""
    before = limit()
    try:
        bytearray(MUCH)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class NoRoomToLoad(MlxEngine):
    def load(self, load: Load, progress: OnProgress) -> int:
        run_out()
        return super().load(load, progress)


class CrashesForWantOfMemory(MlxEngine):
    """On a CPU, MLX does not look at what it was given."""

    def load(self, load: Load, progress: OnProgress) -> int:
        limit()
        mx.eval(mx.ones((MUCH,)))
        return super().load(load, progress)


class NoRoomToCompute(MlxEngine):
    """Runs out of memory once it has been given some steps."""

    def __init__(self) -> None:
        super().__init__()
        self._left = STEPS

    def receive(self, frame: Frame) -> None:
        self._left -= 1
        if self._left == 0:
            run_out()
        super().receive(frame)
