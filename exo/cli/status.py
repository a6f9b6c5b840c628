"""`exo status`: this node, its cluster and what it serves."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from exo.cli import client, instance, local
from exo.cli.client import JsonObject
from exo.cli.output import JsonOption, bytes_text, count_text, fields, flops_text, out, table


def status(_json: JsonOption = False) -> None:
    """Show this node, cluster and instances."""
    with client.connect() as api:
        state = {**api.get("/state"), "node_id": None, "pid": None, "api": api.url}
    daemon = local.read_daemon(local.find_paths())
    if daemon and daemon.api == api.url:
        state |= {"node_id": daemon.node_id, "pid": daemon.pid}
    else:
        state["node_id"] = _node_at(state, api.url)
    out.result(state, lambda: "\n\n".join(_sections(state)))


def this_node(state: JsonObject) -> Iterator[tuple[str, object]]:
    """The facts about the node that answered, as `fields` takes them."""
    node = _find_node(state, state["node_id"])
    device = node.get("device")
    memory = node.get("memory")
    cluster = state["cluster"]
    yield "API", state["api"]
    yield "Node", f"{node['name']} ({node.get('role') or 'member'})" if node else None
    yield "Node id", state["node_id"]
    if node:
        yield "Device", _device(device)
        if memory:
            available, total = bytes_text(memory["available"]), bytes_text(memory["total"])
            yield "Memory", f"{available} of {total} available"
        yield "FLOP/s", _flops(device)
    guard = "locked" if cluster["locked"] else "open"
    yield "Cluster", f"{cluster['name']}, {count_text(cluster['nodes'], 'node')}, {guard}"


def _sections(state: JsonObject) -> Iterator[str]:
    yield fields(this_node(state))
    nodes = state["topology"]["nodes"]
    if len(nodes) > 1:
        rows = (
            (
                node["name"],
                node["role"],
                _device(node["device"]),
                bytes_text(node["memory"]["available"]) if node["memory"] else None,
                _flops(node["device"]),
                node["node_id"],
            )
            for node in nodes
        )
        yield table(["node", "role", "device", "available", "flop/s", "id"], rows, empty="")
    yield instance.overview(list(state["instances"].values()))


def _find_node(state: JsonObject, node_id: str | None) -> JsonObject:
    nodes: list[JsonObject] = state["topology"]["nodes"]
    nothing: JsonObject = {}
    return next((node for node in nodes if node["node_id"] == node_id), nothing)


def _node_at(state: JsonObject, url: str) -> str | None:
    """The node that listens at `url`, where no record of this machine tells it."""
    nodes = state["topology"]["nodes"]
    if len(nodes) == 1:
        return nodes[0]["node_id"]
    here = urlsplit(url).netloc
    return next((node["node_id"] for node in nodes if node.get("address") == here), None)


def _device(device: JsonObject | None) -> str:
    if not device:
        return "being measured"
    return f"{device['name']}, {count_text(device['cores'], 'core')} ({device['kind']})"


def _flops(device: JsonObject | None) -> str | None:
    """The fastest number type, which is the one models are computed in."""
    if not device or not device["flops"]:
        return None
    kind, flops = max(device["flops"].items(), key=lambda pair: pair[1])
    return f"{flops_text(flops)} ({kind})"
