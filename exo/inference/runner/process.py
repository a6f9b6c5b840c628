"""A runner process as the daemon sees it: started, spoken to, watched, killed.

The runner may crash, hang or be killed at any moment. Whatever happens, `messages` ends, and then
`reason` says why.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping

from exo.errors import EngineError, RunnerDied
from exo.inference.messages import (
    HEADER,
    FromRunner,
    Heartbeat,
    Ready,
    ToRunner,
    decode,
    encode,
    frame_length,
    from_runner,
)

# The runner's writer thread sends a heartbeat twice a second, also while MLX computes. One that is
# quiet answers nobody, but may have been put to sleep with its device; a silent one is killed. One
# that starts or loads may be held up for longer.
QUIET_SECONDS = 2.5
SILENCE_SECONDS = 8.0
STARTING_SILENCE_SECONDS = 15.0
# The longest that one layer's load or one step may take before the runner counts as hung.
STALL_SECONDS = 300.0

# A runner whose socket is closed ends by itself; one that does not is killed.
EXIT_SECONDS = 5.0

# No network, no second tokenizer threads, nothing on the way to the log.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}

log = logging.getLogger(__name__)


class Quiet:
    """The runner has said nothing for `QUIET_SECONDS`."""


class RunnerProcess:
    """One runner process. Make it with `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._last_lines: deque[str] = deque(maxlen=20)
        self._log_task = asyncio.create_task(self._log_stderr())
        self._killed_because: str | None = None
        self._steps = -1
        self._steps_at = 0.0
        self._was_ready = False

    @classmethod
    async def start(cls, engine: str, environment: Mapping[str, str]) -> "RunnerProcess":
        """Start a process that imports the engine and then waits to be told what to load.
        `environment` is added to this process's own.

        Raises:
            RunnerDied: the process cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # A file in the user's folder must not shadow a module.
                "-m",
                "exo.inference.runner",
                f"--fd={theirs.fileno()}",
                f"--engine={engine}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_QUIET, **environment},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise RunnerDied(f"A runner cannot be started: {error}.") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def send(self, message: ToRunner) -> None:
        """Queue a message. To a dead runner it is dropped: `messages` tells of the death."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def messages(self) -> AsyncIterator[FromRunner | Quiet]:
        """Everything the runner says, until it is gone. A silent or stalled one is killed."""
        while True:
            reading = asyncio.ensure_future(self._read())
            try:
                done, _ = await asyncio.wait([reading], timeout=QUIET_SECONDS)
                if not done:
                    yield Quiet()
                message = await asyncio.wait_for(reading, self._patience - QUIET_SECONDS)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            except TimeoutError:
                self.kill(f"it said nothing for {self._patience:.0f} s")
                return
            except EngineError as error:
                self.kill(str(error))
                return
            finally:
                reading.cancel()
            if isinstance(message, Heartbeat) and self._stalled(message):
                self.kill(f"one step took more than {STALL_SECONDS:.0f} s")
                return
            if isinstance(message, Ready):
                self._was_ready = True
            yield message

    @property
    def _patience(self) -> float:
        return SILENCE_SECONDS if self._was_ready else STARTING_SILENCE_SECONDS

    async def _read(self) -> FromRunner:
        header = await self._reader.readexactly(HEADER.size)
        return decode(from_runner, await self._reader.readexactly(frame_length(header)))

    def _stalled(self, heartbeat: Heartbeat) -> bool:
        now = asyncio.get_running_loop().time()
        if heartbeat.steps != self._steps or not heartbeat.busy:
            self._steps, self._steps_at = heartbeat.steps, now
        return now - self._steps_at > STALL_SECONDS

    def kill(self, because: str) -> None:
        """End the process at once."""
        if self._killed_because is None:
            self._killed_because = because
        if self.alive:
            # Not by `Process.kill`: it asks for the exit code of a process that has just ended,
            # which asyncio's own watcher then cannot have.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Kill, wait until it is gone, and close what belongs to it."""
        self.kill("it was stopped")
        await self.wait()

    async def wait(self) -> RunnerDied:
        """Close the socket and wait until the process has ended; say why it did."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self.kill("its socket was closed, and it went on")
            code = await self._process.wait()
        await self._log_task
        return RunnerDied(
            f"The runner (pid {self.pid}) ended: {self._reason(code)}.",
            hint="It is started again by itself; `exo logs` has more.",
        )

    def _reason(self, code: int) -> str:
        if self._killed_because:
            return self._killed_because
        if code == -signal.SIGKILL:
            return "it was killed, perhaps by the system for want of memory"
        if code < 0:
            return f"it crashed with {signal.Signals(-code).name}"
        last = f" ({self._last_lines[-1]})" if self._last_lines else ""
        return f"it exited with code {code}{last}"

    async def _log_stderr(self) -> None:
        stderr = self._process.stderr
        if stderr is None:
            return
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue  # A line longer than the buffer; it is dropped.
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_lines.append(text)
            log.info("runner %d: %s", self.pid, text)
