"""The runner process: `python -m exo.inference.runner --fd N --engine mlx`.

    reader thread   frames from the daemon → tokenised requests → inbox
    main thread     inbox → service → engine; the only one that touches MLX
    writer thread   outbox → frames to the daemon, and a heartbeat every second

The socket is the process's life line: when the daemon is gone, so is the runner.
"""

import argparse
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import NoReturn, cast

from exo.errors import EngineError, ExoError, ModelInvalid
from exo.inference.engine import Engine
from exo.inference.messages import (
    HEADER,
    Cancel,
    Failed,
    Generate,
    Heartbeat,
    Hello,
    Load,
    Progress,
    Ready,
    RequestFailed,
    ToRunner,
    WireError,
    decode,
    encode,
    frame_length,
    to_runner,
)
from exo.inference.runner.service import Service
from exo.inference.types import Wire

HEARTBEAT_SECONDS = 1.0
log = logging.getLogger("exo.runner")


@dataclass
class Link:
    """The socket to the daemon, with a queue in each direction."""

    socket: socket.socket
    inbox: queue.SimpleQueue[tuple[Generate | Cancel, list[int]]] = field(
        default_factory=queue.SimpleQueue[tuple[Generate | Cancel, list[int]]]
    )
    outbox: queue.SimpleQueue[Wire] = field(default_factory=queue.SimpleQueue[Wire])
    steps: int = 0
    busy: bool = True
    silent: bool = False

    def receive(self) -> ToRunner:
        """Block for the next message; leave the process when the daemon is gone."""
        length = frame_length(self._read(HEADER.size))
        return decode(to_runner, self._read(length))

    def send(self, *messages: Wire) -> None:
        for message in messages:
            self.outbox.put(message)

    def write_forever(self) -> None:
        """Write what the outbox holds, many messages in one system call."""
        while True:
            try:
                parts = [encode(self.outbox.get(timeout=HEARTBEAT_SECONDS))]
                while not self.outbox.empty():
                    parts.append(encode(self.outbox.get()))
            except queue.Empty:
                if self.silent:
                    continue
                parts = [encode(Heartbeat(steps=self.steps, busy=self.busy))]
            try:
                self.socket.sendall(b"".join(parts))
            except OSError:
                leave(0)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self.socket.recv(size - len(data))
            except OSError:
                chunk = b""
            if not chunk:
                leave(0)
            data += chunk
        return bytes(data)


def leave(code: int) -> NoReturn:
    """End the process now, whatever MLX is doing in the main thread."""
    sys.stderr.flush()
    os._exit(code)


def read_forever(link: Link, engine: Engine) -> None:
    """Tokenise requests here, so that a long prompt does not hold up the steps of others."""
    while True:
        try:
            message = link.receive()
        except EngineError:
            log.exception("The socket to the daemon is damaged.")
            leave(1)
        if isinstance(message, Cancel):
            link.inbox.put((message, []))
        elif isinstance(message, Generate):
            try:
                link.inbox.put((message, engine.tokenize(message.request.messages)))
            except ExoError as error:
                refuse(link, message, error)
            except Exception as error:  # noqa: BLE001  whatever a model's template or tokenizer does
                # The error's text may quote the prompt, which does not belong into a log.
                log.warning("Messages could not be tokenised: %s", type(error).__name__)
                refuse(link, message, EngineError("The model's tokenizer failed on the messages."))


def refuse(link: Link, message: Generate, error: ExoError) -> None:
    failed = RequestFailed(request_id=message.request.request_id, error=WireError.of(error))
    link.send(failed)


def serve_forever(link: Link, service: Service) -> None:
    """Sleep in the inbox while there is nothing to compute, else take what is there and step."""
    while True:
        link.busy = service.busy
        while not service.busy or not link.inbox.empty():
            message, prompt = link.inbox.get()
            link.send(*service.handle(message, prompt))
        link.busy = True
        try:
            link.send(*service.step())
        except (RuntimeError, ValueError, MemoryError) as error:
            # What MLX raises when a computation fails. The state of the batch is unknown, so the
            # process is given up once its requests have been told.
            log.exception("A step failed.")
            failure = EngineError(f"The model could not be computed: {error}.")
            link.send(*service.fail_all(failure), Failed(error=WireError.of(failure)))
            threading.Event().wait()  # The daemon ends this process when it has read that.
        link.steps += 1


def load_model(link: Link, engine: Engine, load: Load) -> None:
    """Load and warm up, telling the daemon how far it is."""

    def progress(done: int, total: int) -> None:
        link.steps += 1
        link.send(Progress(phase="loading", done=done, total=total))

    link.busy = True
    memory = engine.load(load, progress)
    link.send(Progress(phase="warming", done=0, total=1))
    engine.warm_up()
    link.busy = False
    link.send(Ready(memory=memory))


def make_engine(name: str) -> Engine:
    """The engine called `mlx`, or the one at `module:Class`."""
    target = "exo.inference.mlx.engine:MlxEngine" if name == "mlx" else name
    module, _, attribute = target.partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute)())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--engine", default="mlx")
    arguments = parser.parse_args()
    # Ctrl-C in a terminal reaches the whole process group; stopping is the daemon's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    link = Link(socket.socket(fileno=arguments.fd))
    threading.Thread(target=link.write_forever, name="writer", daemon=True).start()
    engine = make_engine(arguments.engine)
    link.send(Hello(pid=os.getpid(), engine=arguments.engine))
    link.silent = True  # A spare may wait for days; nobody reads its heartbeats.
    load = link.receive()
    link.silent = False
    if not isinstance(load, Load):
        raise EngineError(f"The first message was {load.type}, not load.")
    try:
        load_model(link, engine, load)
    except ExoError as error:
        give_up(link, error)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, MemoryError) as error:
        log.exception("Loading failed.")
        give_up(link, ModelInvalid(f"The model at {load.path} cannot be loaded: {error}."))
    threading.Thread(target=read_forever, args=(link, engine), name="reader", daemon=True).start()
    serve_forever(link, Service(engine, load, time.monotonic))


def give_up(link: Link, error: ExoError) -> NoReturn:
    """Tell the daemon why, wait until it has closed the socket, and end."""
    link.send(Failed(error=WireError.of(error)))
    link.receive()
    leave(1)


if __name__ == "__main__":
    main()
