"""A runner that computes a whole model."""

from typing import NoReturn, Protocol

from exo.errors import EngineError, ModelInvalid
from exo.inference.engine import Engine, OnProgress
from exo.inference.messages import Cancel, Embed, Generate, Load, Progress, Ready
from exo.inference.runner.link import Asked, Link, log
from exo.inference.runner.service import Service

# What reading files and a model's own code raise when they do not fit each other.
BROKEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Loads(Protocol):
    """An engine of any kind."""

    def load(self, load: Load, progress: OnProgress) -> int: ...
    def warm_up(self) -> None: ...


def load_whole(link: Link, engine: Loads, load: Load) -> None:
    """Load and warm up, telling the daemon how far it is."""
    link.busy = True
    memory = load_layers(link, engine, load)
    warm_up(engine, load)
    link.busy = False
    link.send(Ready(memory=memory))


def warm_up(engine: Loads, load: Load) -> None:
    """Compute once.

    Raises:
        ModelInvalid: it cannot be computed.
    """
    try:
        engine.warm_up()
    except BROKEN as error:
        log.exception("Warming up failed.")
        raise ModelInvalid(f"The model at {load.path} cannot be computed: {error}.") from error


def load_layers(link: Link, engine: Loads, load: Load) -> int:
    """Load, telling the daemon how far it is; return the bytes that it takes.

    Raises:
        EngineError: there is no memory for it.
        ModelInvalid: the model cannot be loaded, for any other reason.
    """

    def progress(done: int, total: int) -> None:
        link.steps += 1
        link.send(Progress(phase="loading", done=done, total=total))

    try:
        memory = engine.load(load, progress)
    except BROKEN as error:
        log.exception("Loading failed.")
        if wants_memory(error):
            raise EngineError(
                f"There is no memory for layers {load.start_layer} to {load.end_layer - 1} of the "
                "model.",
                hint="Free some on this node; it is tried again by itself.",
            ) from error
        raise ModelInvalid(f"The model at {load.path} cannot be loaded: {error}.") from error
    link.send(Progress(phase="warming", done=0, total=1))
    return memory


def tell_drafts(link: Link, engine: Engine) -> None:
    """Say whether there will be drafts, where some are asked for."""
    if stats := engine.draft_stats:
        link.send(stats)


def wants_memory(error: Exception) -> bool:
    """Whether something failed for want of memory, as Python or MLX says it."""
    return isinstance(error, MemoryError) or "malloc" in str(error)


def serve_forever(link: Link, engine: Engine, service: Service) -> NoReturn:
    """Sleep in the inbox while there is nothing to compute, else take what is there and step."""
    fresh = False
    while True:
        link.busy = service.busy
        while (engine.waiting and not fresh) or not link.inbox.empty():
            event = link.inbox.get()
            if isinstance(event, Asked) and isinstance(event.message, Generate | Embed | Cancel):
                link.send(*service.handle(event.message, event.prepared))
                fresh = True
        fresh = False
        link.busy = True
        link.send(*service.step())
        link.steps += 1
