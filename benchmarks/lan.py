"""How long four hosts on a real network (namespaces on this machine) take to agree.

    python -m benchmarks.lan [--repeat 10] [--only kill] [--json FILE]        as root

Every host's own API is asked for /state over one kept connection, again and again; they agree when
all say the same master and term and list the same nodes as being here. What is measured is above
all the time constants in `exo/p2p/options.py`, and how busy the machine is.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import new_home
from tests.e2e.daemon import Daemon, Json
from tests.lan.cluster import AS_IT_COMES, online, without_measurements
from tests.lan.host import Host
from tests.lan.lan import Lan
from tests.lan.namespace import unavailable

HOSTS = 4
EVERY = 0.015
PATIENCE = 60.0
NAP = 10.0
# The tests' hosts do without a spare runner.
SETTINGS: Json = {**AS_IT_COMES, "spare_runners": 1}
# Seconds, by what they are counted from.
Times = dict[str, float]


@dataclass(frozen=True)
class View:
    """What one host says, and when it said so."""

    at: float
    term: Json | None
    online: frozenset[str]
    text: str


class Watcher:
    """Asks hosts for their state until it is closed."""

    def __init__(self) -> None:
        self._views: dict[int, View] = {}
        self._changed = threading.Condition()
        self._watched: dict[int, threading.Event] = {}

    def begin(self, host: Host) -> None:
        """Watch a daemon's life."""
        self.end(host)
        stop = self._watched[host.number] = threading.Event()
        threading.Thread(target=self._watch, args=(host, stop), daemon=True).start()

    def end(self, host: Host) -> None:
        if stop := self._watched.pop(host.number, None):
            stop.set()
        with self._changed:
            self._views.pop(host.number, None)

    def wait(self, hosts: Collection[Host], done: Callable[[list[View]], bool]) -> float:
        """When, for the first time from now on, what these hosts say fulfils `done`."""
        since = time.monotonic()
        deadline = since + PATIENCE
        with self._changed:
            while True:
                views = [self._views.get(host.number) for host in hosts]
                known = [view for view in views if view is not None and view.at >= since]
                if len(known) == len(hosts) and done(known):
                    return max(view.at for view in known)
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"not within {PATIENCE} s: {views}")

    def _watch(self, host: Host, stop: threading.Event) -> None:
        where = urlsplit(host.daemon.base_url)
        assert where.hostname
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
        with host.inside():
            connection.connect()
        try:
            while not stop.wait(EVERY):
                connection.request("GET", "/state")
                state = json.loads(connection.getresponse().read())
                text = json.dumps(without_measurements(state), sort_keys=True)
                view = View(time.monotonic(), state["term"], frozenset(online(state)), text)
                with self._changed:
                    if not stop.is_set():
                        self._views[host.number] = view
                        self._changed.notify_all()
        except (OSError, http.client.HTTPException):
            pass  # The daemon has ended.
        finally:
            connection.close()


class Bench:
    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self._watcher = Watcher()

    @property
    def _hosts(self) -> list[Host]:
        return self._lan.hosts

    def prepare(self) -> None:
        """All run, as one cluster."""
        if not all(host.runs for host in self._hosts):
            self.start_all()

    def start_all(self) -> Times:
        begun: list[float] = []
        for host in self._hosts:
            if host.runs:
                self._watcher.end(host)
                host.stop()

        def start(host: Host) -> None:
            begun.append(time.monotonic())
            host.start(**SETTINGS)
            self._watcher.begin(host)

        with ThreadPoolExecutor(HOSTS) as threads:
            list(threads.map(start, self._hosts))
        return self._started(max(begun))

    def start_one(self) -> Times:
        host = self._hosts[-1]
        self._watcher.end(host)
        host.stop()
        self._together(self._hosts[:-1])
        begun = time.monotonic()
        host.start(**SETTINGS)
        self._watcher.begin(host)
        return self._started(begun)

    def _started(self, begun: float) -> Times:
        """From the command, and from the moment that the last daemon is more than Python that
        imports modules."""
        agreed = self._together(self._hosts)
        nodes = self._hosts[0].state()["topology"]["nodes"]
        last = max(datetime.fromisoformat(node["started_at"]).timestamp() for node in nodes)
        up = last - time.time() + time.monotonic()
        return {"": agreed - begun, ", without the start of Python": agreed - up}

    def kill(self) -> Times:
        master, rest = self._roles()
        begun = time.monotonic()
        self._watcher.end(master)
        master.kill()
        took = self._new_master(rest) - begun
        master.start(**SETTINGS)
        self._watcher.begin(master)
        self._together(self._hosts)
        return {"": took}

    def cut(self) -> Times:
        _, rest = self._roles()
        begun = time.monotonic()
        self._lan.partition([host.number for host in rest])
        took = self._new_master(rest) - begun
        self._lan.heal()
        self._together(self._hosts)
        return {"": took}

    def sleep(self) -> Times:
        master, rest = self._roles()
        master.suspend()
        time.sleep(NAP)
        self._new_master(rest)
        begun = time.monotonic()
        master.resume()
        return {"": self._together(self._hosts) - begun}

    def heal(self) -> Times:
        halves = (self._hosts[:2], self._hosts[2:])
        self._lan.partition(*([host.number for host in half] for half in halves))
        for half in halves:
            self._together(half)
        begun = time.monotonic()
        self._lan.heal()
        ids = frozenset(host.node_id for host in self._hosts)

        def equal(views: list[View]) -> bool:
            return {view.online for view in views} == {ids} and len({v.text for v in views}) == 1

        return {"": self._watcher.wait(self._hosts, equal) - begun}

    def _together(self, hosts: Collection[Host]) -> float:
        """When these hosts list each other and nobody else, under one of them."""
        ids = frozenset(host.node_id for host in hosts)

        def agreed(views: list[View]) -> bool:
            return one_master(views, ids) and {view.online for view in views} == {ids}

        return self._watcher.wait(hosts, agreed)

    def _new_master(self, rest: Collection[Host]) -> float:
        ids = {host.node_id for host in rest}
        return self._watcher.wait(rest, lambda views: one_master(views, ids))

    def _roles(self) -> tuple[Host, list[Host]]:
        self._together(self._hosts)
        master_id = self._hosts[0].state()["master_id"]
        master = next(host for host in self._hosts if host.node_id == master_id)
        return master, [host for host in self._hosts if host is not master]


def one_master(views: list[View], among: Collection[str]) -> bool:
    """Whether all say the same term, and that its master is among these."""
    term = views[0].term
    return term is not None and term["master_id"] in among and all(v.term == term for v in views)


def find_compiled(folder: Path) -> None:
    """Let the daemons find their modules compiled, as those of an installation are, whatever the
    environment of this process says: the first one to run fills the folder."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


@contextmanager
def network() -> Iterator[Lan]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        find_compiled(folder / "modules")
        measured = folder / "measured" / "home"
        measured.parent.mkdir()
        daemon = Daemon.start(measured, spare_runners=0)
        daemon.follow(lambda event: event["type"] == "NodeMeasured")
        daemon.stop()
        lan = Lan(HOSTS, folder, lambda home: new_home(home, measured))
        try:
            yield lan
            lan.stop()
        finally:
            lan.remove()


@dataclass(frozen=True)
class Case:
    """`mark` is what is wanted, in seconds."""

    name: str
    work: Callable[[Bench], Times]
    mark: float | None = None


CASES = (
    Case("all start at once", Bench.start_all, 3.0),
    Case("one more starts", Bench.start_one, 3.0),
    Case("`kill -9` of the master", Bench.kill, 2.0),
    Case("cable of the master cut", Bench.cut, 5.0),
    Case("master asleep for 10 s", Bench.sleep),
    Case("partition 2 : 2 healed", Bench.heal, 5.0),
)


def measure(cases: Collection[Case], repeat: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with network() as lan:
        bench = Bench(lan)
        bench.prepare()
        for case in cases:
            for _ in range(repeat):
                for part, seconds in case.work(bench).items():
                    found.setdefault(case.name + part, []).append(seconds)
                    print(f"{case.name}{part}: {seconds:.2f} s", file=sys.stderr)
    return found


def table(found: dict[str, list[float]]) -> str:
    marks = {case.name: f"{case.mark:g} s" for case in CASES if case.mark}
    lines = ["| what | median | worst | mark |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {statistics.median(times):.2f} s | {max(times):.2f} s |"
        f" {marks.get(name, '')} |"
        for name, times in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--only", default="", help="what has this word in its name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures")
    options = parser.parse_args()
    if reason := unavailable():
        sys.exit(f"This needs network namespaces: {reason}.")
    found = measure([case for case in CASES if options.only in case.name], options.repeat)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")
    today = datetime.now().astimezone().date()
    print(f"{today}, {HOSTS} daemons on {os.cpu_count()} cores, {options.repeat} runs each")
    print(table(found))


if __name__ == "__main__":
    main()
