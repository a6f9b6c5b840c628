"""Requests for answers that are open: how long each may take, whom it goes before, and its end by
its id.

What ends one is `asyncio.timeout` around its handler, whether its time is up or somebody wants it
to end: so whatever the handler waits for is given up the way it is when the client goes.
"""

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from exo.errors import ExoError, RequestCancelled, RequestError, RequestTimedOut

PRIORITY = "X-Exo-Priority"
TIMEOUT = "X-Exo-Timeout"


@dataclass(eq=False)
class Call:
    """One HTTP request that asks for an answer. `names` are the ids that it can be ended by, `lane`
    is its API key's, `seconds` what it may take; `clock` ends it."""

    names: set[str] = field(default_factory=set[str])
    lane: str = ""
    batch: bool = False
    seconds: float | None = None
    clock: asyncio.Timeout | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """End it, wherever it is."""
        self.cancelled = True
        if self.clock is not None and not self.clock.expired():
            self.clock.reschedule(asyncio.get_running_loop().time())

    def reason(self) -> ExoError:
        """Why it ended before its answer did."""
        if self.cancelled:
            return RequestCancelled("The request was cancelled.")
        return RequestTimedOut(
            f"The answer was not complete after {self.seconds:g} s.",
            hint=f"Ask for less, or for more time with the header '{TIMEOUT}'; the setting "
            "`request_timeout` is the most.",
        )


# The call that a handler's task works on; None where no answer is asked for.
CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class OpenCalls:
    """The calls that this node's API is working on."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        self._calls.add(call)

    def remove(self, call: Call) -> None:
        self._calls.discard(call)

    def cancel(self, name: str, lane: str | None) -> bool:
        """End the calls of that id, of one API key or of any (None); whether there were any."""
        found = [call for call in self._calls if name in call.names and lane in {None, call.lane}]
        for call in found:
            call.cancel()
        return bool(found)


def read_call(headers: Mapping[str, str], name: str, lane: str, longest: float) -> Call:
    """The call that the headers of the request `name` describe. `longest` is the most seconds that
    one may take, 0 for no limit.

    Raises:
        RequestError: a header is wrong.
    """
    priority = headers.get(PRIORITY, "interactive").lower()
    if priority not in {"interactive", "batch"}:
        raise RequestError(f"'{PRIORITY}' is interactive or batch.", param=PRIORITY)
    return Call({name}, lane, priority == "batch", _seconds(headers.get(TIMEOUT), longest))


def _seconds(text: str | None, longest: float) -> float | None:
    if text is None:
        return longest or None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # Not a number is not above 0 either.
    if not seconds > 0 or seconds == float("inf"):
        raise RequestError(f"'{TIMEOUT}' is a number of seconds above 0.", param=TIMEOUT)
    return min(seconds, longest or seconds)
