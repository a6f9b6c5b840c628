"""What a line of a log says: the request that it belongs to, and never what a prompt said.

An exception that nobody foresaw may quote what it was at, a prompt or an answer. So of those the
log has the kind and the place, and their words only where they are known to be about the machine.
"""

import contextvars
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType

# The id of the HTTP request that is being worked on, as its `x-request-id` has it.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

# How much a daemon's runners log: one of logging's levels.
LEVEL_VARIABLE = "EXO_LOG_LEVEL"

# MLX's own errors begin with the operation that failed, and go on with shapes and sizes.
_MLX = re.compile(r"\[[\w:]+\] ")
_Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogFormat(logging.Formatter):
    """As `logging.Formatter`, with the request's id beside the logger's name."""

    def __init__(self, *, dated: bool = True) -> None:
        self._dated = "%(asctime)s " if dated else ""
        super().__init__(f"{self._dated}%(levelname)s %(name)s%(request)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        found = request_id.get()
        record.request = f" [{found}]" if found else ""
        return super().format(record)

    def formatException(self, ei: _Info) -> str:  # noqa: N802  logging's name
        return describe(ei[1]) if ei[1] is not None else ""


def describe(error: BaseException) -> str:
    """Where an exception was raised and what kind it is, and of those that led to it."""
    parts: list[str] = []
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    for each in reversed(chain):
        frames = "".join(traceback.format_tb(each.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{told(each)}")
    return "\n\n".join(parts)


def told(error: BaseException) -> str:
    """An exception's kind, with its words if they are about files and modules, or MLX's own."""
    kind = type(error).__name__
    if isinstance(error, OSError | ImportError):
        return f"{kind}: {error}"
    if type(error) in {RuntimeError, ValueError} and _MLX.match(str(error)):
        return f"{kind}: {error}"
    return kind


@contextmanager
def about(request: str) -> Generator[None]:
    """What is logged in this block belongs to the request of that id; to none if it is empty."""
    token = request_id.set(request)
    try:
        yield
    finally:
        request_id.reset(token)


def outside() -> contextvars.Context:
    """A context for what goes on when the request that began it has ended."""
    context = contextvars.copy_context()
    context.run(request_id.set, "")
    return context


def log_uncaught(log: logging.Logger) -> None:
    """Have what ends a process or a thread of it logged like everything else. A thread does not
    end alone: a process without one of its parts would answer nobody."""

    def in_main(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        log.critical("The process ends.\n%s", describe(error))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.critical("A thread ends.\n%s", describe(args.exc_value))
        logging.shutdown()
        os._exit(1)

    sys.excepthook = in_main
    threading.excepthook = in_thread
