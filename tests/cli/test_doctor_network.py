"""The network checks of `exo doctor`, each from the data that it looks at."""

import shutil
import socket
import subprocess
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from exo.cli import checks
from exo.cli import doctor_network as network
from exo.cli.doctor_network import Seen

from .fake_api import NODE_ID, OPEN, OTHER_ID, FakeApi, node

MACOS = "the macOS firewall"


def seen(**changes: Any) -> Seen:
    """What a lone daemon sees, with changes: `nodes`, and fields of the cluster or the network."""
    fake = FakeApi()
    state = fake.state()
    state["topology"]["nodes"] = changes.pop("nodes", fake.nodes)
    for name in {"locked", "nodes_online", "refused", "warning"} & set(changes):
        state["cluster"][name.removesuffix("_online")] = changes.pop(name)
    return Seen({**fake.network, **changes}, state)


def peer(peer_id: str, cluster: str = "exo", version: str = "0.1.0") -> dict[str, Any]:
    return {"peer_id": peer_id, "cluster": cluster, "version": version, "addresses": []}


def link(address: str, *, outgoing: bool) -> dict[str, Any]:
    return {"peer_id": OTHER_ID, "name": "mac", "address": address, "outgoing": outgoing}


def test_no_interfaces() -> None:
    assert network.check_interfaces([]).verdict == "warn"


def test_interfaces_of_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = namedtuple("Entry", "family address")
    stats = namedtuple("Stats", "isup")
    inet, inet6 = socket.AF_INET, socket.AF_INET6
    addresses = {
        "lo": [entry(inet, "127.0.0.1"), entry(inet6, "::1")],
        "en0": [entry(inet, "10.0.0.7"), entry(inet6, "fe80::1%en0"), entry(psutil.AF_LINK, "a:b")],
        "en1": [entry(inet, "10.0.1.7")],
        "tun": [entry(psutil.AF_LINK, "a:c")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    up = {name: stats(name != "en1") for name in addresses}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: up)

    assert network.local_interfaces() == [{"name": "en0", "addresses": ["10.0.0.7", "fe80::1"]}]


@pytest.mark.parametrize(
    ("enabled", "working", "problem", "verdict", "detail"),
    [
        (True, True, None, "ok", "multicast works"),
        (True, False, "en0: no route to host", "warn", "en0: no route to host"),
        (True, False, None, "warn", "multicast does not come through"),
        (False, False, None, "ok", "off: only the peers of the settings are looked for"),
    ],
)
def test_discovery(
    enabled: bool, working: bool, problem: str | None, verdict: str, detail: str
) -> None:
    check = network.check_discovery({"enabled": enabled, "working": working, "problem": problem})

    assert (check.verdict, check.detail) == (verdict, detail)
    assert (check.hint is not None) == (verdict == "warn")


@pytest.mark.parametrize(
    ("firewall", "hint"),
    [
        ("ufw", "sudo ufw allow 52416/tcp && sudo ufw allow 5353/udp"),
        ("firewalld", "--add-port=52416/tcp --add-service=mdns"),
        (MACOS, "Network > Firewall > Options"),
    ],
)
def test_an_active_firewall_names_the_ports(firewall: str, hint: str) -> None:
    check = network.check_firewall(firewall, None, 52416)

    assert check.verdict == "warn"
    assert check.detail == f"{firewall} is active; exo needs TCP 52416 and UDP 5353"
    assert hint in check.hint


@pytest.mark.parametrize(
    ("address", "outgoing", "verdict"),
    [
        ("/ip4/10.0.0.2/tcp/40000", False, "ok"),
        ("/ip4/10.0.0.2/tcp/52416", True, "warn"),
        ("/ip4/127.0.0.1/tcp/40000", False, "warn"),
        ("/ip6/::1/tcp/40000", False, "warn"),
    ],
)
def test_a_link_from_elsewhere_shows_that_a_firewall_lets_it(
    address: str, outgoing: bool, verdict: str
) -> None:
    found = seen(links=[link(address, outgoing=outgoing)])

    assert network.check_firewall("ufw", found, 52416).verdict == verdict


def test_the_port_is_the_one_that_is_listened_on() -> None:
    picked = seen(listening=["/ip4/10.0.0.1/tcp/40123", "/ip6/fd00::1/tcp/40123"])

    [check] = [c for c in network.network_checks(picked, "ufw", 0) if c.name == "firewall"]

    assert "TCP 40123" in check.detail
    assert network.port_in_use(None) is None


def use_tool(monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """The system has these tools only, and they say this."""

    def run(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        text = said[Path(command[0]).name.replace("-", "_")]
        return subprocess.CompletedProcess([], 0, text, "")

    def which(name: str) -> str | None:
        return name if Path(name).name.replace("-", "_") in said else None

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    ("said", "active"),
    [
        ("Firewall is enabled. (State = 1)\n", MACOS),
        ("Firewall is blocking all non-essential incoming connections. (State = 2)\n", MACOS),
        ("Firewall is disabled. (State = 0)\n", None),
        ("usage", None),
    ],
)
def test_the_firewall_of_macos(
    said: str, active: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tool(monkeypatch, socketfilterfw=said)

    assert network.active_firewall("Darwin") == active


@pytest.mark.parametrize(
    ("conf", "active"), [("ENABLED=yes\nLOGLEVEL=low\n", "ufw"), ("ENABLED=no\n", None)]
)
def test_ufw(
    conf: str, active: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tool(monkeypatch)
    (tmp_path / "ufw.conf").write_text(conf)
    monkeypatch.setattr(network, "UFW", tmp_path / "ufw.conf")

    assert network.active_firewall("Linux") == active


@pytest.mark.parametrize(("said", "active"), [("running\n", "firewalld"), ("", None)])
def test_firewalld(
    said: str, active: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tool(monkeypatch, firewall_cmd=said)
    monkeypatch.setattr(network, "UFW", tmp_path / "no-ufw")

    assert network.active_firewall("Linux") == active


def test_a_tool_that_fails_says_nothing() -> None:
    assert checks.ask_system("exo-has-no-such-tool") is None
    assert checks.ask_system("false") is None
    assert checks.ask_system("echo", "yes") == "yes"


def test_an_open_cluster() -> None:
    check = network.check_cluster(seen(warning=OPEN, refused={"version": 2}).state["cluster"])

    assert (check.verdict, check.hint) == ("warn", OPEN)
    assert check.detail == "exo, 1 node, open; links refused: 2 (version 2)"


def test_a_locked_cluster() -> None:
    check = network.check_cluster(seen(locked=True).state["cluster"])

    assert (check.verdict, check.detail) == ("ok", "exo, 1 node, locked")


@pytest.mark.parametrize("reason", ["peer_locked", "wrong_secret"])
def test_a_cluster_that_needs_a_token(reason: str) -> None:
    check = network.check_cluster(seen(warning=OPEN, refused={reason: 1}).state["cluster"])

    assert (check.verdict, check.hint) == ("warn", network.JOIN_HINT)


def test_versions_that_differ() -> None:
    nodes = [
        node(NODE_ID, "box"),
        node(OTHER_ID, "mac", version="0.2.0"),
        node("gone", "old", version="0.0.9", status="lost"),
    ]
    others = [peer(OTHER_ID), peer("p3", version="0.3.0"), peer("p4", "lab", "9.9")]

    check = network.check_versions(seen(nodes=nodes, seen=others))

    assert check.verdict == "warn"
    assert check.detail == "0.1.0 on box; 0.2.0 on mac; 0.3.0 on p3"


@pytest.mark.parametrize(("online", "verdict"), [(1, "warn"), (2, "ok")])
def test_other_clusters(online: int, verdict: str) -> None:
    others = [peer("a"), peer("b", "lab"), peer("c", "lab"), peer("d", "home")]

    [check] = network.check_others(seen(nodes_online=online, seen=others))

    assert (check.verdict, check.detail) == (verdict, "home (1 node), lab (2 nodes)")
    assert (check.hint is not None) == (online == 1)


def test_no_other_clusters() -> None:
    assert list(network.check_others(seen(seen=[peer("a")]))) == []
