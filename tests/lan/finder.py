"""A discovery that runs on a host of the lab."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo.p2p.identity import Identity

from .host import Host

Event = dict[str, Any]


class Finder:
    """Started at once; `close` says goodbye. `said` is all that it has told until now."""

    def __init__(
        self, host: Host, *, cluster: str = "exo", ask_every: float = 30, peer_id: str = ""
    ) -> None:
        self.peer_id = peer_id or Identity(Ed25519PrivateKey.generate()).peer_id
        self.said: list[Event] = []
        self._process = host.popen(
            *(sys.executable, "-P", "-m", "tests.lan.discover"),
            *(self.peer_id, cluster, str(ask_every)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait(self, event: str, test: Callable[[Event], bool] = lambda _: True) -> Event:
        """The first such event that was not waited for before."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event and test(self.said[-1]):
                return self.said[-1]
        raise AssertionError(f"it ended without {event}: {self.said}")

    def started(self) -> "Finder":
        self.wait("started")
        return self

    def finds(self, other: "Finder", *ips: str) -> Event:
        """Wait until it finds the other, at all of these IP addresses."""
        return self.wait(
            "found",
            lambda event: (
                event["peer_id"] == other.peer_id
                and all(f"/{ip}/tcp/" in str(event["addresses"]) for ip in ips)
            ),
        )

    def finds_all(self, *others: "Finder") -> None:
        """Wait until it has found each of these, in any order."""
        wanted = {other.peer_id for other in others}
        while not wanted <= self.found:
            self.wait("found")

    @property
    def found(self) -> set[str]:
        """The peer ids that it has found until now."""
        return {one["peer_id"] for one in self.said if one["event"] == "found"}

    def logs(self, text: str) -> Event:
        return self.wait("log", lambda event: text in event["text"])

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def close(self) -> Event:
        """What it had seen when it ended."""
        assert self._process.stdin
        self._process.stdin.close()
        seen = self.wait("seen")
        self.wait("closed")
        self._end()
        return seen

    def _end(self) -> None:
        with self._process:
            pass

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def troubles(self) -> list[Event]:
        """What it logged that a person would worry about."""
        return [one for one in self.said if one["event"] == "log" and one["level"] != "INFO"]
