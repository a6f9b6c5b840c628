"""Network namespaces: made, entered, and removed with all that runs in them."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PREFIX = "exo"
_NAME = re.compile(rf"{PREFIX}-(\d+)-[\w-]+")
_CLONE_NEWNET = 0x40000000


class LabError(Exception):
    """A tool of the lab failed."""


class Namespace:
    """One network namespace of this process, by its name."""

    def __init__(self, label: str) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{label}"

    def create(self) -> None:
        tool("ip", "netns", "add", self.name)

    def ip(self, *commands: str) -> None:
        """Run `ip` commands in it, in one go."""
        tool("ip", "-n", self.name, "-batch", "-", stdin="\n".join(commands))

    def tc(self, *commands: str) -> None:
        tool("tc", "-n", self.name, "-batch", "-", stdin="\n".join(commands))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in it: the sockets it makes stay there, and so do the processes."""
        with Path("/proc/thread-self/ns/net").open() as here, self._path.open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(here.fileno())

    def processes(self) -> list[int]:
        if not self._path.exists():
            return []
        return [int(pid) for pid in tool("ip", "netns", "pids", self.name).split()]

    def signal(self, number: signal.Signals) -> None:
        """To every process in it."""
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def remove(self) -> None:
        """With its devices, and all processes in it. Another process may do the same just now."""
        try:
            if self._path.exists():
                self.signal(signal.SIGKILL)
                tool("ip", "netns", "del", self.name)
        except LabError:
            if self._path.exists():
                raise

    @property
    def _path(self) -> Path:
        return Path("/run/netns", self.name)


def leftovers(pid: int) -> list[Namespace]:
    """The namespaces that a test process has not removed."""
    return [found for found in _all() if _owner(found) == pid]


def sweep() -> None:
    """Remove what test processes left behind that were killed."""
    for found in _all():
        if not Path(f"/proc/{_owner(found)}").exists():
            found.remove()


def tool(*command: str, stdin: str = "") -> str:
    """What a system tool says.

    Raises:
        LabError: it failed.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}\n{stdin}")
    return done.stdout


@cache
def unavailable() -> str | None:
    """Why there can be no lab here, None if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc") if not shutil.which(name)]
    if missing:
        return f"{' and '.join(missing)} (iproute2) is missing"
    probe = Namespace("probe")
    try:
        probe.create()
        probe.ip("link add port0 type veth peer name eth0", "link add switch type bridge")
        probe.tc(
            "qdisc add dev port0 clsact",
            "filter add dev port0 egress prio 1 handle 1 bpf da bytecode '1,6 0 0 0'",
        )
    except LabError as error:
        return f"no network can be made here: {str(error).splitlines()[0]}"
    finally:
        probe.remove()
    return None


def _all() -> Iterable[Namespace]:
    for path in sorted(Path("/run/netns").glob(f"{PREFIX}-*")):
        if _NAME.fullmatch(path.name):
            found = Namespace("")
            found.name = path.name
            yield found


def _owner(namespace: Namespace) -> int:
    match = _NAME.fullmatch(namespace.name)
    assert match
    return int(match[1])


def _setns(descriptor: int) -> None:
    if _libc().setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
