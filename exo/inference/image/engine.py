"""What an image engine is: the one that draws, behind the runner's queue.

As in `exo.inference.engine`, everything is called from the process's main thread only.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from exo.inference.engine import OnProgress
from exo.inference.messages import Load
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame


@dataclass(frozen=True)
class DrawSpec:
    """One picture; see `DrawRequest`."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance: float | None = None
    negative_prompt: str | None = None
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    strength: float | None = None
    patches: int | None = None
    sync_steps: int | None = None


@dataclass(frozen=True)
class Stroke:
    """One step of one picture is done. `approximate` says that it was of patches."""

    step: int
    steps: int
    approximate: bool = False


class Picture(Protocol):
    """A picture that is being drawn."""

    def steps(self) -> Generator[Stroke]:
        """Every advance computes one denoising step; the first also encodes the prompt. Closing it
        gives the picture up.

        Raises:
            RequestError: this model cannot draw that.
        """
        ...

    def png(self) -> bytes:
        """As it would be by now; after the last step, as it is."""
        ...


class ImageEngine(Protocol):
    """Draws pictures, one after the other."""

    def load(self, load: Load, progress: OnProgress) -> int:
        """Load the model; return the bytes it takes.

        Raises:
            ModelInvalid: the files are not a model this engine can compute.
        """
        ...

    def warm_up(self) -> None:
        """Compute once, so that the first request does not pay for what comes once."""
        ...

    def begin(self, spec: DrawSpec) -> Picture: ...

    def peak_memory(self) -> int:
        """Bytes at most in use since the last call."""
        ...


class RingImageEngine(ImageEngine, Protocol):
    """An image engine that can be one rank of several. Rank 0 has the requests, and waits within a
    step for what the others make of it; they get frames."""

    def facts(self, load: Load) -> dict[str, str]:
        """What all ranks must have in common, before anything is loaded.

        Raises:
            ModelInvalid: the files are no model.
        """
        ...

    def start(self, ring: Ring, life: int, wait: Callable[[], Frame]) -> None:
        """Begin to compute over a ring that stands. `wait` gives rank 0 the next frame that comes
        to it, and raises RingError when that life of the ring is over."""
        ...

    def stop(self) -> None:
        """The ring is gone: pictures that are begun raise RingError."""
        ...

    def receive(self, frame: Frame) -> None:
        """A rank that is not 0 computes what came from the rank before, and sends on.

        Raises:
            RingError: it makes no sense here, or the ring broke meanwhile.
        """
        ...
