"""A runner's side of the socket to its daemon: the process's life line.

reader thread   frames from the daemon → tokenised requests → inbox
writer thread   outbox → frames to the daemon, and a heartbeat twice a second
"""

import logging
import os
import queue
import socket
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from exo.errors import EngineError, ExoError
from exo.inference.engine import Engine, Prepared
from exo.inference.messages import (
    HEADER,
    Cancel,
    Connect,
    Draw,
    Embed,
    Generate,
    Heartbeat,
    RequestFailed,
    ToRunner,
    WireError,
    decode,
    encode,
    frame_length,
    to_runner,
)
from exo.inference.ring.events import RingEvent
from exo.inference.types import Wire
from exo.logs import about

HEARTBEAT_SECONDS = 0.5
log = logging.getLogger("exo.runner")


@dataclass(frozen=True)
class Asked:
    """A request (one for text made ready), a cancellation, or who is next to this rank."""

    message: Generate | Embed | Draw | Cancel | Connect
    prepared: Prepared = field(default_factory=Prepared)


Event = Asked | RingEvent


@dataclass
class Link:
    """The socket to the daemon, with a queue in each direction. What else wakes the main thread
    comes into `inbox` too."""

    socket: socket.socket
    inbox: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue[Event])
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

    def read_forever(self, engine: Engine | None) -> None:
        """Make requests ready here, so that a long prompt or a large schema does not hold up the
        steps of others. Without an engine for text, those are refused."""
        while True:
            try:
                message = self.receive()
            except EngineError:
                log.exception("The socket to the daemon is damaged.")
                leave(1)
            match message:
                case Generate() | Embed() | Draw():
                    with about(message.request.trace_id):
                        log.debug("%s came.", message.request.request_id)
                        self._take(engine, message)
                case Cancel() | Connect():
                    self.inbox.put(Asked(message))
                case _:
                    pass

    def _take(self, engine: Engine | None, message: Generate | Embed | Draw) -> None:
        match message:
            case Generate() | Embed() if engine is not None:
                self._prepare(engine, message)
            case Generate() | Embed():
                self._refuse(message, EngineError("This model draws; it does not write."))
            case Draw() if engine is not None:
                self._refuse(message, EngineError("This model writes; it does not draw."))
            case Draw():
                self.inbox.put(Asked(message))

    def _prepare(self, engine: Engine, message: Generate | Embed) -> None:
        try:
            if isinstance(message, Embed):
                self.inbox.put(Asked(message, engine.prepare_texts(message.request)))
            else:
                self.inbox.put(Asked(message, engine.prepare(message.request)))
        except ExoError as error:
            self._refuse(message, error)
        except Exception as error:  # the edge: a model's own template is code that nobody foresaw
            log.warning("Messages could not be tokenised.", exc_info=error)
            self._refuse(message, EngineError("The model's tokenizer failed on the messages."))

    def _refuse(self, message: Generate | Embed | Draw, error: ExoError) -> None:
        request_id = message.request.request_id
        log.debug("%s is refused: %s.", request_id, error.code)
        self.send(RequestFailed(request_id=request_id, error=WireError.of(error)))

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
