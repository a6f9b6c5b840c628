"""The network of the lab: hosts on one switch, and what can go wrong between them."""

import subprocess
import sys
from collections.abc import Collection
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from .capture import Capture
from .faults import Faults, mac_byte
from .host import Host, MakeHome
from .namespace import Namespace, sweep

_CABLE = Path(__file__).with_name("cable.py")
_numbers = count(1)


class Lan:
    """`count` hosts with IPv4 (10.77.0.1, …) and link-local IPv6 addresses, each on a port of the
    switch. Hosts are named by their number or as they are."""

    def __init__(self, count: int, folder: Path, make_home: MakeHome) -> None:
        sweep()
        label = next(_numbers)
        self._switch = Namespace(f"{label}-switch")
        self._ports: dict[str, int] = {}
        self._faults = Faults()
        self._programs: dict[str, str] = {}
        self._cables: dict[int, subprocess.Popen[str]] = {}
        self._folder = folder
        self._captures = 0
        self.hosts = [
            Host(number, Namespace(f"{label}-host{number}"), folder, make_home)
            for number in range(count)
        ]
        try:
            self._build()
        except BaseException:
            self.remove()
            raise

    def host(self, number: int) -> Host:
        return self.hosts[number]

    # Faults. None of them says anything to the hosts, but for a pulled cable.

    def partition(self, *groups: Collection[int]) -> None:
        """Hosts hear those of their own group only; who is in no group is alone."""
        self._faults.blocked.clear()
        self._faults.partition(groups, range(len(self.hosts)))
        self._apply()

    def block(self, source: int, target: int) -> None:
        """Nothing that `source` sends comes to `target`; the other way is as it was."""
        self._faults.blocked.add((source, target))
        self._apply()

    def block_multicast(self, *hosts: int) -> None:
        """These hosts (all, if none is named) neither send nor get UDP multicast."""
        self._faults.no_multicast.update(hosts or range(len(self.hosts)))
        self._apply()

    def unplug(self, number: int) -> None:
        """Pull the cable; the host notices."""
        self._switch.ip(f"link set p{number} down")

    def plug(self, number: int) -> None:
        self._switch.ip(f"link set p{number} up")

    def power_cut(self, number: int) -> None:
        """The host is gone at once: its connections are not closed, for others it falls silent."""
        self.unplug(number)
        host = self.hosts[number]
        if host.runs:
            host.kill()

    def impair(
        self,
        number: int,
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Put a bad cable between a host and the switch: seconds each way, share of frames lost."""
        self._mend(number)
        port, far, near = f"p{number}", f"far{number}", f"near{number}"
        self._switch.ip(
            f"link add {far} type veth peer name {near}",
            f"link set {far} up",
            f"link set {near} up",
        )
        quality = map(str, (delay, jitter, loss, seed))
        with self._switch.inside():
            cable = subprocess.Popen(
                [sys.executable, "-I", str(_CABLE), port, near, *quality],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self._cables[number] = cable
        assert cable.stdout
        assert cable.stdout.readline() == "ready\n"
        self._switch.ip(f"link set {port} nomaster", f"link set {far} master switch")

    def heal(self) -> None:
        """All cables are plugged and good, and everyone hears everyone."""
        for number in list(self._cables):
            self._mend(number)
        self._faults = Faults()
        self._apply()
        self._switch.ip(*(f"link set {port} up" for port in self._ports))

    # What is not a fault.

    def add_card(self, number: int, name: str = "eth1") -> str:
        """Give a host one more network card, on the same switch; returns its IPv4 address."""
        ip = f"10.77.{list(self._ports.values()).count(number)}.{number + 1}"
        self._add_port(f"p{number}{name}", number, name, f"{ip}/16")
        self._apply()
        return ip

    def remove_card(self, number: int, name: str = "eth1") -> None:
        self.hosts[number].namespace.ip(f"link del {name}")
        port = f"p{number}{name}"
        self._ports.pop(port)
        self._programs.pop(port)

    def capture(self) -> Capture:
        """Every frame on the network while it is entered."""
        self._captures += 1
        path = self._folder / f"capture{self._captures}.pcap"
        return Capture(self._switch, tuple(self._ports), path)

    # Life.

    def stop(self) -> None:
        """Stop the daemons, which must end cleanly whatever was done to the network."""
        for host in self.hosts:
            host.resume()
        for host in self.hosts:
            if host.runs:
                host.stop()

    def remove(self) -> None:
        """End everything and leave nothing."""
        with ExitStack() as stack:  # All of it, whatever fails.
            stack.callback(self._switch.remove)
            for host in self.hosts:
                stack.callback(host.remove)
            for cable in self._cables.values():
                stack.callback(_end, cable)
            self._cables.clear()

    def _build(self) -> None:
        self._switch.create()
        self._switch.ip("link add switch type bridge mcast_snooping 0", "link set switch up")
        for host in self.hosts:
            host.namespace.create()
            host.namespace.ip("link set lo up")
            self._add_port(f"p{host.number}", host.number, "eth0", f"{host.ip}/24")
        self._apply()

    def _add_port(self, port: str, number: int, card: str, address: str) -> None:
        """A cable from the switch to a new card of a host."""
        namespace = self.hosts[number].namespace
        card_number = list(self._ports.values()).count(number)
        mac = f"02:00:00:00:{card_number:02x}:{mac_byte(number):02x}"
        self._switch.ip(
            f"link add {port} type veth peer name {card} address {mac} netns {namespace.name}",
            f"link set {port} master switch up",
        )
        with namespace.inside():
            # Seconds are saved where addresses are not checked for duplicates, and who has an
            # address is asked again soon when nobody answered.
            _set(f"ipv6/conf/{card}/accept_dad", 0)
            _set(f"ipv6/neigh/{card}/retrans_time_ms", 20)
            _set(f"ipv4/neigh/{card}/retrans_time_ms", 20)
        namespace.ip(f"addr add {address} dev {card}", f"link set {card} up")
        self._switch.tc(f"qdisc add dev {port} clsact")
        self._ports[port] = number

    def _apply(self) -> None:
        """Make the ports let through what the faults allow, and no more."""
        everyone = range(len(self.hosts))
        wanted = {port: self._faults.program(host, everyone) for port, host in self._ports.items()}
        changed = {
            port: program for port, program in wanted.items() if self._programs.get(port) != program
        }
        self._programs.update(changed)
        self._switch.tc(
            *(
                f"filter replace dev {port} egress prio 1 handle 1 bpf da bytecode '{program}'"
                for port, program in changed.items()
            )
        )

    def _mend(self, number: int) -> None:
        if number in self._cables:
            _end(self._cables.pop(number))
            self._switch.ip(f"link del far{number}", f"link set p{number} master switch")


def _set(name: str, value: int) -> None:
    path = Path("/proc/sys/net", name)
    if path.exists():  # There may be no IPv6.
        path.write_text(str(value))


def _end(cable: subprocess.Popen[str]) -> None:
    """It ends with its standard input."""
    with cable:
        assert cable.stdin
        cable.stdin.close()
