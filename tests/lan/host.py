"""One host of the lab, and the daemon on it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.daemon import PATIENCE, Daemon, Json

from .namespace import Namespace

MakeHome = Callable[[Path], Path]


class InsideTransport(httpx.HTTPTransport):
    """HTTP whose connections are made in a network namespace."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self._namespace = namespace

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._namespace.inside():
            return super().handle_request(request)


class Host:
    """A machine with one network card, `eth0`, on the lab's switch, and a home for exo.

    `daemon` is the real daemon's handle, as in `tests/e2e`, once it was started here.
    """

    def __init__(
        self, number: int, namespace: Namespace, folder: Path, make_home: MakeHome
    ) -> None:
        self.number = number
        self.namespace = namespace
        self.ip = f"10.77.0.{number + 1}"
        self.home = folder / f"host{number}"
        self._make_home = make_home
        self._daemon: Daemon | None = None
        self._processes: list[subprocess.Popen[str]] = []

    # The machine.

    def inside(self) -> AbstractContextManager[None]:
        """Sockets and processes that this thread makes are this host's."""
        return self.namespace.inside()

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A process of this host; at the latest it ends with the network."""
        with self.inside():
            process = subprocess.Popen(command, text=True, **options)
        self._processes.append(process)
        return process

    def run(self, *command: str) -> str:
        """What a command says that must succeed."""
        with self.inside():
            return subprocess.run(command, check=True, text=True, capture_output=True).stdout

    def readdress(self, ip: str) -> None:
        """Give it another IPv4 address, as a new lease would."""
        self.namespace.ip(f"addr del {self.ip}/24 dev eth0", f"addr add {ip}/24 dev eth0")
        self.ip = ip

    def reaches(self, other: "Host", seconds: float = 0.3) -> bool:
        """Whether a TCP connection to the other host can be made."""
        with other.inside():
            server = socket.create_server((other.ip, 0))
        with server, self.inside():
            try:
                socket.create_connection((other.ip, server.getsockname()[1]), seconds).close()
            except OSError:
                return False
            return True

    def suspend(self) -> None:
        """Stop every process in its tracks; the network card still answers."""
        self.namespace.signal(signal.SIGSTOP)
        for pid in self.namespace.processes():
            try:
                os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            except ChildProcessError:  # Of the daemon's own children only the daemon is told.
                continue

    def resume(self) -> None:
        self.namespace.signal(signal.SIGCONT)

    def remove(self) -> None:
        """With all that runs on it."""
        self.namespace.remove()
        for process in self._processes:
            with suppress(BrokenPipeError), process:
                pass  # Its pipes are closed, and it is waited for.
        if self._daemon:
            self._daemon.wait()

    # The daemon.

    @property
    def daemon(self) -> Daemon:
        assert self._daemon, "it was not started"
        return self._daemon

    @property
    def runs(self) -> bool:
        return self._daemon is not None and self._daemon.process.poll() is None

    def furnish(self) -> None:
        """Give it a home, if it has none. The home stays the same from life to life."""
        if not self.home.exists():
            self._make_home(self.home)

    def start(self, *flags: str, **settings: object) -> Daemon:
        """`exo start`; return when it is ready."""
        self.furnish()
        usual = {"name": f"host{self.number}", "spare_runners": 0}
        with self.inside():
            daemon = Daemon.start(self.home, *flags, **{**usual, **settings})
        daemon.http.close()
        daemon.http = httpx.Client(
            base_url=daemon.base_url, timeout=PATIENCE, transport=InsideTransport(self.namespace)
        )
        self._daemon = daemon
        return daemon

    def stop(self) -> None:
        """As `exo stop` does."""
        self.daemon.stop()

    def kill(self) -> None:
        """`kill -9` of the daemon."""
        self.daemon.kill()

    @property
    def node_id(self) -> str:
        return self.daemon.status["node_id"]

    def state(self) -> Json:
        return self.daemon.get("/state")

    def wait(self, condition: Callable[[Json], bool], seconds: float = 30) -> Json:
        """This node's state, as soon as the condition holds in it.

        It is looked at again whenever this node tells of an event; one look more is taken when the
        time is up.
        """
        deadline = time.monotonic() + seconds
        for state in self._states(deadline):
            if condition(state):
                return state
        state = self.state()
        assert condition(state), f"not within {seconds} s: {json.dumps(state, indent=1)}"
        return state

    def _states(self, deadline: float) -> Iterator[Json]:
        timeout = httpx.Timeout(max(0.1, deadline - time.monotonic()))
        query = {"since": self.state()["index"], "follow": "true"}
        try:
            with self.daemon.http.stream("GET", "/events", params=query, timeout=timeout) as lines:
                yield self.state()
                for line in lines.iter_lines():
                    if time.monotonic() > deadline:
                        return
                    if line.startswith("data: "):
                        yield self.state()
        except httpx.ReadTimeout:
            return
