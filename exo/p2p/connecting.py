"""From addresses to a channel, and from a channel to two sides that know each other."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from exo.errors import (
    ConfigError,
    ExoError,
    HandshakeError,
    LinkClosed,
    PeerError,
    PeerTimeout,
    PeerUnreachable,
)
from exo.p2p.addresses import parse
from exo.p2p.admission import (
    MAX_STRANGER_FRAME,
    Action,
    Admitted,
    Handshake,
    Hello,
    Judge,
    Refused,
    Send,
)
from exo.p2p.refusals import Reason
from exo.p2p.transport import Channel, Transport

# Seconds that an address gets before the next one is tried as well: RFC 8305, section 5.
STAGGER = 0.25
MAX_TRIED = 16

Verdict = Callable[[Hello], Awaitable[Reason | None]]


@dataclass(frozen=True)
class Attempt:
    """What came of trying addresses: a channel, or an error for each."""

    channel: Channel | None = None
    errors: Sequence[ExoError] = field(default_factory=tuple[ExoError, ...])

    @property
    def refused(self) -> bool:
        """Whether the host is there, and nobody listens. An address that did not answer may be the
        one that counts; one where somebody else answered is not."""
        return any(isinstance(e, PeerUnreachable) and e.refused for e in self.errors) and not any(
            isinstance(e, PeerTimeout) for e in self.errors
        )


@dataclass(frozen=True)
class Outcome:
    """How a handshake ended, and frames that the link has still to send."""

    result: Admitted | Refused
    unsent: Sequence[bytes]


async def connect_first(
    transport: Transport, peer_id: str | None, addresses: Sequence[str]
) -> Attempt:
    """A channel through the first address that leads to the peer; the next is tried when one has
    failed, or is slow."""
    waiting = deque(addresses[:MAX_TRIED])
    running: set[asyncio.Task[Channel | ExoError]] = set()
    errors: list[ExoError] = []
    try:
        while waiting or running:
            if waiting:
                attempt = _connect(transport, peer_id, waiting.popleft())
                running.add(asyncio.create_task(attempt))
            done, running = await asyncio.wait(
                running,
                timeout=STAGGER if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                result = task.result()
                if not isinstance(result, ExoError):
                    running |= done - {task}
                    return Attempt(result)
                errors.append(result)
        return Attempt(None, errors)
    finally:
        await _give_up(running)


async def shake(channel: Channel, handshake: Handshake, judge: Verdict) -> Outcome:
    """Introduce the two sides to each other.

    Raises:
        LinkClosed, ProtocolError
    """
    todo: deque[Action] = deque(handshake.start())
    unsent: list[bytes] = []
    while True:
        while todo:
            action = todo.popleft()
            match action:
                case Send(frame=frame):
                    unsent.append(frame)
                case Judge(hello=hello):
                    await _flush(channel, unsent)
                    todo.extend(handshake.decide(await judge(hello)))
                case Admitted():
                    # What is unsent is the link's first word: nothing may come between the
                    # judgement and the caller's taking note of the link.
                    return Outcome(action, unsent)
                case Refused():
                    # The other side may have come to the same conclusion, and be gone.
                    with suppress(LinkClosed):
                        await _flush(channel, unsent)
                    return Outcome(action, [])
        await _flush(channel, unsent)
        todo.extend(handshake.receive(await channel.receive(MAX_STRANGER_FRAME)))


async def _flush(channel: Channel, unsent: list[bytes]) -> None:
    for frame in unsent:
        await channel.send(frame)
    unsent.clear()


async def _connect(transport: Transport, peer_id: str | None, address: str) -> Channel | ExoError:
    try:
        expect = parse(address).peer_id or peer_id
        if peer_id is not None and expect != peer_id:
            raise HandshakeError(f"{address} is no address of {peer_id}.")
        return await transport.connect(address, expect)
    except (PeerError, ConfigError) as error:
        return error


async def _give_up(running: set[asyncio.Task[Channel | ExoError]]) -> None:
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled() and not isinstance(channel := task.result(), ExoError):
            channel.abort()
