"""The part of `exo doctor` that looks at the network: why other nodes may not be found."""

import re
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exo.cli.checks import Check, ask_system
from exo.cli.client import JsonObject, connect
from exo.cli.cluster import refusals, summary
from exo.cli.output import count_text

MDNS_PORT = 5353
LOOPBACK = ("/ip4/127.", "/ip6/::1/")
UFW = Path("/etc/ufw/ufw.conf")
MACOS_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"
MULTICAST_HINT = (
    f"Let UDP {MDNS_PORT} through the firewall; on a Mac, allow Python under Privacy & Security > "
    "Local Network. On networks without multicast, name a node with `exo start --peer`."
)

JOIN_HINT = (
    "A node here has a secret that this one lacks: `exo cluster token` there shows the token for "
    "`exo start --join TOKEN` here."
)


@dataclass(frozen=True)
class Seen:
    """What the running daemon says: `GET /network` and `GET /state`."""

    network: JsonObject
    state: JsonObject


def ask_daemon() -> Seen:
    """What the daemon sees.

    Raises:
        ExoError: it does not answer.
    """
    with connect() as api:
        return Seen(api.get("/network"), api.get("/state"))


def network_checks(seen: Seen | None, firewall: str | None, p2p_port: int) -> Iterator[Check]:
    """Every check of the network. `seen` is None while exo is not running."""
    yield check_interfaces(seen.network["interfaces"] if seen else local_interfaces())
    yield check_discovery(seen.network["discovery"] if seen else None)
    yield check_firewall(firewall, seen, port_in_use(seen) or p2p_port)
    if seen:
        yield check_cluster(seen.state["cluster"])
        yield check_versions(seen)
        yield from check_others(seen)


def local_interfaces() -> list[JsonObject]:
    """This device's interfaces that are up, but for loopback, as `GET /network` has them."""
    import psutil  # noqa: PLC0415  not paid for by `exo --help`

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found: list[JsonObject] = []
    for name, entries in psutil.net_if_addrs().items():
        addresses = [
            entry.address.split("%")[0]
            for entry in entries
            if entry.family in {socket.AF_INET, socket.AF_INET6}
        ]
        loopback = any(address in {"127.0.0.1", "::1"} for address in addresses)
        if name in up and addresses and not loopback:
            found.append({"name": name, "addresses": addresses})
    return found


def check_interfaces(interfaces: Sequence[JsonObject]) -> Check:
    if not interfaces:
        return Check(
            "interfaces",
            "warn",
            "there is no network beyond this device",
            "Connect it to the network of the other nodes.",
        )
    texts = (f"{each['name']} ({', '.join(each['addresses'])})" for each in interfaces)
    return Check("interfaces", "ok", ", ".join(texts))


def check_discovery(discovery: JsonObject | None) -> Check:
    """Whether nodes can find each other by multicast: only the daemon can tell."""
    if discovery is None:
        return Check("discovery", "skip", "whether multicast works shows once exo is running")
    if not discovery["enabled"]:
        return Check("discovery", "ok", "off: only the peers of the settings are looked for")
    if discovery["working"]:
        return Check("discovery", "ok", "multicast works")
    problem = discovery["problem"] or "multicast does not come through"
    return Check("discovery", "warn", problem, MULTICAST_HINT)


def active_firewall(system: str) -> str | None:
    """The firewall that is on, None if none is known to be."""
    if system == "Darwin":
        state = ask_system(MACOS_FIREWALL, "--getglobalstate") or ""
        return "the macOS firewall" if "State = " in state and "State = 0" not in state else None
    try:
        ufw = UFW.read_text("utf-8")
    except OSError:
        ufw = ""
    if "ENABLED=yes" in ufw.splitlines():
        return "ufw"
    return "firewalld" if ask_system("firewall-cmd", "--state") == "running" else None


def check_firewall(firewall: str | None, seen: Seen | None, port: int) -> Check:
    """An active firewall may still let exo through, which a link from another device shows."""
    if firewall is None:
        return Check("firewall", "ok", "none that exo knows is active")
    if seen and any(_came_in(link) for link in seen.network["links"]):
        return Check("firewall", "ok", f"{firewall} is active, and lets other nodes in")
    hints = {
        "ufw": f"sudo ufw allow {port}/tcp && sudo ufw allow {MDNS_PORT}/udp",
        "firewalld": f"sudo firewall-cmd --permanent --add-port={port}/tcp --add-service=mdns && "
        "sudo firewall-cmd --reload",
    }
    hint = "Allow incoming connections to Python under Network > Firewall > Options."
    if command := hints.get(firewall):
        hint = f"If other nodes cannot reach this one: `{command}`."
    needs = f"{firewall} is active; exo needs TCP {port} and UDP {MDNS_PORT}"
    return Check("firewall", "warn", needs, hint)


def port_in_use(seen: Seen | None) -> int | None:
    """The port that the daemon listens on for links: it may have picked one."""
    addresses = " ".join(seen.network["listening"]) if seen else ""
    found = re.search(r"/tcp/(\d+)", addresses)
    return int(found[1]) if found else None


def _came_in(link: JsonObject) -> bool:
    return not link["outgoing"] and not link["address"].startswith(LOOPBACK)


def check_cluster(cluster: JsonObject) -> Check:
    """Open to its network, or not; and how many were turned away."""
    text = summary(cluster)
    if cluster["refused"]:
        text += f"; links refused: {refusals(cluster['refused'])}"
    if not cluster["refused"].keys().isdisjoint({"peer_locked", "wrong_secret"}):
        return Check("cluster", "warn", text, JOIN_HINT)
    if cluster["warning"]:
        return Check("cluster", "warn", text, cluster["warning"])
    return Check("cluster", "ok", text)


def check_versions(seen: Seen) -> Check:
    """Nodes of different versions may not understand each other."""
    own = seen.state["cluster"]["name"]
    nodes = {n["node_id"]: n for n in seen.state["topology"]["nodes"] if n["status"] != "lost"}
    found: dict[str, list[str]] = defaultdict(list)
    for node in nodes.values():
        found[node["version"]].append(node["name"])
    for peer in seen.network["seen"]:
        if peer["cluster"] == own and peer["peer_id"] not in nodes:
            found[peer["version"]].append(peer["peer_id"])
    if len(found) == 1:
        return Check("versions", "ok", f"{next(iter(found))} on every node")
    texts = (f"{version} on {', '.join(names)}" for version, names in sorted(found.items()))
    return Check("versions", "warn", "; ".join(texts), "Install the same version on every node.")


def check_others(seen: Seen) -> Iterator[Check]:
    """Other clusters on this network: perhaps one of them is the one that was meant."""
    cluster = seen.state["cluster"]
    others: dict[str, int] = defaultdict(int)
    for peer in seen.network["seen"]:
        if peer["cluster"] != cluster["name"]:
            others[peer["cluster"]] += 1
    if not others:
        return
    text = ", ".join(f"{name} ({count_text(n, 'node')})" for name, n in sorted(others.items()))
    alone = cluster["nodes"] <= 1
    hint = "To join one: `exo start --cluster-name NAME`, or `--join TOKEN` if it is locked."
    yield Check("other clusters", "warn" if alone else "ok", text, hint if alone else None)
