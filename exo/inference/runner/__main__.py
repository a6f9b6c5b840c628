"""The runner process: `python -m exo.inference.runner --fd N --engine mlx`.

An engine of another make is named by its `module:Class`; one that draws, by a second name after a
comma, and one for encoders by a third.

The main thread is the only one that touches MLX; others read and write the socket to the daemon
(`link`) and, for one rank of several, the links to its neighbours (`exo.inference.ring`).
"""

import argparse
import faulthandler
import importlib
import logging
import os
import signal
import socket
import threading
import time
from typing import NoReturn, cast

from exo import importing
from exo.errors import EngineError, ExoError
from exo.inference.engine import Engine, RingEngine
from exo.inference.image.engine import ImageEngine, RingImageEngine
from exo.inference.image.service import DrawService
from exo.inference.messages import Failed, Hello, Load, WireError
from exo.inference.runner.alone import load_whole, serve_forever, tell_drafts, wants_memory
from exo.inference.runner.drawing import draw_forever
from exo.inference.runner.drawing_ring import DrawingRank
from exo.inference.runner.grouped import GroupedRunner
from exo.inference.runner.kept_index import keep_index
from exo.inference.runner.link import Link, log
from exo.inference.runner.ranked import RankedRunner
from exo.inference.runner.service import Service
from exo.logs import LEVEL_VARIABLE, LogFormat, log_uncaught, told

# What MLX raises when a computation fails.
_FAILURES = (RuntimeError, ValueError, MemoryError)


_MLX = (
    "exo.inference.mlx.engine:MlxEngine,exo.inference.image.mflux.engine:MfluxEngine,"
    "exo.inference.mlx.encoder_engine:EncoderEngine"
)


def make_engine(name: str) -> Engine:
    """The engine for text called `mlx`, or the one at `module:Class`."""
    return cast("Engine", _make(name, 0))


def make_image_engine(name: str) -> ImageEngine:
    """The engine that draws, of `mlx` or of `text,image`.

    Raises:
        EngineError: there is none.
    """
    return cast("ImageEngine", _make(name, 1))


def make_encoder_engine(name: str) -> Engine:
    """The engine for encoders, of `mlx` or of `text,image,encoder`.

    Raises:
        EngineError: there is none.
    """
    return cast("Engine", _make(name, 2))


def _make(name: str, which: int) -> object:
    names = (_MLX if name == "mlx" else name).split(",")
    if which >= len(names):
        raise EngineError(f"The engine {name} {('', 'does not draw', 'has no encoders')[which]}.")
    module, _, attribute = names[which].partition(":")
    with importing.for_good():
        return getattr(importlib.import_module(module), attribute)()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--engine", default="mlx")
    arguments = parser.parse_args()
    # Ctrl-C in a terminal reaches the whole process group; stopping is the daemon's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # For whoever wonders what a runner is at: its stacks go to the log.
    faulthandler.register(signal.SIGUSR1)
    log_to_daemon()
    link = Link(socket.socket(fileno=arguments.fd))
    threading.Thread(target=link.write_forever, name="writer", daemon=True).start()
    keep_index()
    engine = make_engine(arguments.engine)
    link.send(Hello(pid=os.getpid(), engine=arguments.engine))
    link.silent = True  # A spare may wait for days; nobody reads its heartbeats.
    load = link.receive()
    link.silent = False
    if not isinstance(load, Load):
        raise EngineError(f"The first message was {load.type}, not load.")
    if load.variant:
        run_drawing(link, arguments.engine, load)
    elif load.encoder:
        run_encoder(link, arguments.engine, load)
    elif load.size == 1:
        run_alone(link, engine, load)
    else:
        run_ranked(link, cast("RingEngine", engine), load)


def log_to_daemon() -> None:
    """To standard error, which the daemon reads line by line; of what is not exo's, no more than
    usual."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormat(dated=False))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("exo").setLevel(os.environ.get(LEVEL_VARIABLE, "info").upper())
    log_uncaught(log)


def run_alone(link: Link, engine: Engine, load: Load) -> NoReturn:
    """Load the whole model, then answer requests."""
    try:
        load_whole(link, engine, load)
        tell_drafts(link, engine)
    except ExoError as error:
        give_up(link, error)
    start_reader(link, engine)
    service = Service(engine, load, time.monotonic)
    link.send(service.load_stats)
    try:
        serve_forever(link, engine, service)
    except _FAILURES as error:
        fail(link, service, error)


def run_encoder(link: Link, name: str, load: Load) -> NoReturn:
    """Load an encoder, then make vectors."""
    try:
        engine = make_encoder_engine(name)
    except ExoError as error:
        give_up(link, error)
    run_alone(link, engine, load)


def run_drawing(link: Link, name: str, load: Load) -> NoReturn:
    """Load an image model, then draw."""
    try:
        engine = make_image_engine(name)
        if load.size > 1:
            draw_ranked(link, cast("RingImageEngine", engine), load)
        load_whole(link, engine, load)
    except ExoError as error:
        give_up(link, error)
    start_reader(link, None)
    service = DrawService(engine, load.max_queue, time.monotonic)
    link.send(service.load_stats)
    try:
        draw_forever(link, service)
    except _FAILURES as error:
        fail(link, service, error)


def draw_ranked(link: Link, engine: RingImageEngine, load: Load) -> NoReturn:
    """Join the ring, load this rank's blocks, then compute what comes round."""
    service = DrawService(engine, load.max_queue, time.monotonic)
    rank = DrawingRank(link, engine, load, service)
    try:
        rank.announce()
        start_reader(link, None)
        rank.serve_forever()
    except ExoError as error:
        rank.leave()
        give_up(link, error)
    except _FAILURES as error:
        rank.leave()
        fail(link, service, error)


def run_ranked(link: Link, engine: RingEngine, load: Load) -> NoReturn:
    """Join the ring, load this rank's layers, then compute what comes round."""
    service = Service(engine, load, time.monotonic)
    kind = GroupedRunner if load.group else RankedRunner
    runner = kind(link, engine, load, service)
    try:
        runner.announce()
        start_reader(link, engine)
        runner.serve_forever()
    except ExoError as error:
        runner.leave()
        give_up(link, error)
    except _FAILURES as error:
        runner.leave()
        fail(link, service, error)


def start_reader(link: Link, engine: Engine | None) -> None:
    threading.Thread(target=link.read_forever, args=(engine,), name="reader", daemon=True).start()


def fail(link: Link, service: Service | DrawService, error: Exception) -> NoReturn:
    """A computation failed, so the state of the batch is unknown: the process is given up once its
    requests have been told."""
    log.exception("A step failed, of %s.", ", ".join(service.trace_ids) or "nobody's")
    # All open requests are told, and the state of the cluster: no place for one's prompt.
    reason = "there is no memory left" if wants_memory(error) else told(error)
    failure = EngineError(f"The model could not be computed: {reason}.")
    link.send(*service.fail_all(failure), Failed(error=WireError.of(failure)))
    wait_for_end()


def give_up(link: Link, error: ExoError) -> NoReturn:
    """Tell the daemon why this runner is of no use."""
    link.send(Failed(error=WireError.of(error)))
    wait_for_end()


def wait_for_end() -> NoReturn:
    """The daemon ends this process when it has read why."""
    while True:
        threading.Event().wait()


if __name__ == "__main__":
    main()
