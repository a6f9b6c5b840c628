"""The lab itself: what it says it does to the network, it does."""

import os
import socket
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import pytest

from . import namespace
from .conftest import MakeLan
from .faults import Faults, bytecode
from .host import Host
from .lan import Lan
from .namespace import Namespace, leftovers, sweep

MAC_OF_A = "02:00:00:00:00:01"
UDP = 17


def reached(lan: Lan) -> set[tuple[int, int]]:
    """Who reaches whom."""
    pairs = permutations(lan.hosts, 2)
    return {(a.number, b.number) for a, b in pairs if a.reaches(b, 0.1)}


def send(source: Host, target: str, port: int = 9999) -> None:
    """One datagram, also to many."""
    with source.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source.ip))
        sender.sendto(source.ip.encode(), (target, port))


@pytest.fixture
def lan(make_lan: MakeLan) -> Lan:
    return make_lan(3)


def test_hosts_reach_each_other_and_nothing_else(lan: Lan):
    assert reached(lan) == set(permutations(range(3), 2))
    routes = lan.hosts[0].run("ip", "route")
    assert "default" not in routes
    names = {name for _, name in socket.if_nameindex()}
    assert not [name for name in names if name.startswith(("p0", "switch"))]


def test_ipv6_works_at_once(lan: Lan):
    a, b = lan.hosts[:2]
    address = "fe80::ff:fe00:2"
    with b.inside():
        server = socket.create_server((address, 0, 0, 2), family=socket.AF_INET6)
    with server, a.inside():
        port = server.getsockname()[1]
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((address, port, 0, socket.if_nametoindex("eth0")))


def test_a_partition_and_its_end(make_lan: MakeLan):
    lan = make_lan(4)
    lan.partition([0, 1], [2])
    assert reached(lan) == {(0, 1), (1, 0)}
    lan.partition([0, 1], [2, 3])
    assert reached(lan) == {(0, 1), (1, 0), (2, 3), (3, 2)}
    lan.heal()
    assert reached(lan) == set(permutations(range(4), 2))


def test_one_way_can_be_blocked(lan: Lan):
    a, b, _ = lan.hosts
    with b.inside():
        server = socket.create_server((b.ip, 0))
    with server:
        with a.inside():
            client = socket.create_connection(server.getsockname(), 5)
        there = server.accept()[0]
    with client, there:
        lan.block(0, 1)
        there.sendall(b"heard")
        assert client.recv(10) == b"heard"
        client.sendall(b"not heard")
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(10)
        there.setblocking(True)
        lan.heal()
        assert there.recv(10) == b"not heard"


def test_multicast_can_be_blocked(lan: Lan):
    a, b, c = lan.hosts
    with b.inside():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("", 9999))
        group = socket.inet_aton("239.1.1.1") + socket.inet_aton(b.ip)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    with listener:
        send(a, "239.1.1.1")
        assert listener.recv(99) == a.ip.encode()
        lan.block_multicast(0)
        send(a, "239.1.1.1")
        send(a, b.ip)
        send(c, "239.1.1.1")
        assert {listener.recv(99), listener.recv(99)} == {a.ip.encode(), c.ip.encode()}
        lan.block_multicast(1)
        send(c, "239.1.1.1")
        send(c, b.ip)
        assert listener.recv(99) == c.ip.encode()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(99)
    assert reached(lan) == set(permutations(range(3), 2))


def test_a_cable_is_pulled_and_plugged_in(lan: Lan):
    lan.unplug(2)
    assert "NO-CARRIER" in lan.hosts[2].run("ip", "link", "show", "eth0")
    assert reached(lan) == {(0, 1), (1, 0)}
    lan.plug(2)
    assert reached(lan) == set(permutations(range(3), 2))


def test_a_long_cable_delays_and_loses_nothing(lan: Lan):
    a, b, _ = lan.hosts
    lan.impair(0, delay=0.02, jitter=0.005)
    begun = time.monotonic()
    assert a.reaches(b, 10)
    assert time.monotonic() - begun >= 2 * 0.02
    data = os.urandom(2**21)
    code = "import socket,sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); "
    with b.inside():
        server = socket.create_server((b.ip, 0))
    with server:
        where = map(str, server.getsockname())
        rest = "s.sendall(sys.stdin.buffer.read())"
        with a.inside():
            sender = subprocess.Popen(
                [sys.executable, "-I", "-c", code + rest, *where], stdin=subprocess.PIPE
            )
        with sender, server.accept()[0] as there:
            assert sender.stdin
            sender.stdin.write(data)
            sender.stdin.close()
            with there.makefile("rb") as file:
                assert file.read() == data
    lan.heal()
    assert reached(lan) == set(permutations(range(3), 2))


def test_a_bad_cable_loses(lan: Lan):
    lan.impair(0, loss=1)
    assert reached(lan) == {(1, 2), (2, 1)}
    lan.impair(0, loss=0.2, seed=7)
    assert lan.hosts[0].reaches(lan.hosts[1], 10)


def test_a_host_gets_another_address_and_another_card(lan: Lan):
    a, b, _ = lan.hosts
    old = b.ip
    b.readdress("10.77.0.99")
    assert a.reaches(b)
    assert old not in b.run("ip", "addr")
    ip = lan.add_card(1)
    assert f"inet {ip}/16" in b.run("ip", "addr", "show", "eth1")
    lan.partition([0], [1, 2])
    assert not a.reaches(b)
    lan.remove_card(1)
    lan.heal()
    assert a.reaches(b)


def test_a_suspended_host_stands_still(lan: Lan):
    host = lan.hosts[0]
    echo = host.popen("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
    assert echo.stdin
    assert echo.stdout
    host.suspend()
    assert "State:\tT" in Path(f"/proc/{echo.pid}/status").read_text()
    host.resume()
    echo.stdin.write("awake\n")
    assert echo.stdout.readline() == "awake\n"


def test_what_crosses_the_network_is_captured(lan: Lan):
    a, b, _ = lan.hosts
    send(a, b.ip)
    with lan.capture() as capture:
        for _ in range(3):
            send(a, b.ip)
    sent = [frame for frame in capture.frames() if frame.endswith(a.ip.encode())]
    assert [frame[6:12].hex(":") for frame in sent if frame[23] == UDP] == [MAC_OF_A] * 3
    assert capture.contains(a.ip.encode())
    assert not capture.contains(b"what nobody sent")
    assert capture.dropped == 0


def test_nothing_is_left_behind(make_lan: MakeLan):
    lan = make_lan(2)
    sleeper = lan.hosts[0].popen("sleep", "1000")
    lan.impair(1, delay=0.001)
    lan.remove()
    assert sleeper.wait() == -9
    assert leftovers(os.getpid()) == []


def test_what_a_killed_test_left_is_removed(make_lan: MakeLan, monkeypatch: pytest.MonkeyPatch):
    make_lan(1)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with monkeypatch.context() as patch:
        patch.setattr(namespace.os, "getpid", lambda: gone.pid)
        Namespace("left").create()
    sweep()
    assert leftovers(gone.pid) == []
    assert leftovers(os.getpid())


def test_two_may_sweep_at_once():
    """As test processes do that begin together."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    sweepers = "from tests.lan.namespace import sweep; sweep()"
    for _ in range(3):
        for count in range(5):
            subprocess.run(["ip", "netns", "add", f"exo-{gone.pid}-{count}"], check=True)
        both = [subprocess.Popen([sys.executable, "-c", sweepers]) for _ in range(2)]
        assert [one.wait() for one in both] == [0, 0]
        assert leftovers(gone.pid) == []


def test_the_filters_jump_to_where_they_should():
    """Each jump stays within the program, and every way ends in a verdict."""
    for program in (bytecode([], []), bytecode(range(100), range(100)), Faults().program(0, [0])):
        size, *steps = program.split(",")
        assert int(size) == len(steps)
        for at, step in enumerate(steps):
            code, yes, no, value = map(int, step.split())
            ahead = {value} if code == 5 else {yes, no} if code in {0x15, 0x35} else {0}
            assert all(0 <= one < 256 and at + one < len(steps) for one in ahead)
        assert [step.split()[0] for step in steps[-2:]] == ["6", "6"]


@pytest.mark.e2e
def test_a_daemon_runs_on_a_host(lan: Lan, models: Path):
    host = lan.hosts[1]
    daemon = host.start(models_dir=models)
    assert daemon.get("/node_id")["node_id"] == host.node_id
    assert host.wait(lambda state: state["master_id"] == host.node_id)["term"]
    host.kill()
    assert not host.runs
    first = host.node_id
    host.start(models_dir=models)
    assert host.node_id == first
    host.suspend()
    host.resume()
    assert host.state()["master_id"] == first
