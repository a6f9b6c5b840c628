"""`exo status`: this node, its cluster and what it serves."""

from collections.abc import Iterator

from exo.cli import client, cluster, instance, local
from exo.cli.client import JsonObject
from exo.cli.node import device_text, memory_text, short_ids, speed_text
from exo.cli.output import JsonOption, bytes_text, fields, out, table


def status(_json: JsonOption = False) -> None:
    """Show this node, cluster and instances."""
    with client.connect() as api:
        node_id = api.get("/cluster")["node_id"]
        state = {**api.get("/state"), "node_id": node_id, "pid": None, "api": api.url}
    daemon = local.read_daemon(local.find_paths())
    if daemon and daemon.api == api.url:
        state["pid"] = daemon.pid
    out.result(state, lambda: "\n\n".join(_sections(state)))


def this_node(state: JsonObject) -> Iterator[tuple[str, object]]:
    """The facts about the node that answered, as `fields` takes them."""
    nothing: JsonObject = {}
    nodes: list[JsonObject] = state["topology"]["nodes"]
    node = next((node for node in nodes if node["node_id"] == state["node_id"]), nothing)
    memory = memory_text(node.get("memory"))
    yield "API", state["api"]
    yield "Node", f"{node['name']} ({_role(node)})" if node else None
    yield "Node id", state["node_id"]
    if node:
        yield "Device", device_text(node["device"])
        if memory:
            yield "Memory", f"{memory} available"
        yield "FLOP/s", speed_text(node["device"])
    yield "Cluster", cluster.summary(state["cluster"])


def _role(node: JsonObject) -> str:
    return node["role"] if node["status"] == "online" else f"{node['role']}, {node['status']}"


def _sections(state: JsonObject) -> Iterator[str]:
    yield fields(this_node(state))
    nodes = state["topology"]["nodes"]
    if len(nodes) > 1:
        short = short_ids(nodes)
        rows = (
            (
                node["name"],
                node["role"],
                node["status"],
                device_text(node["device"]),
                bytes_text(node["memory"]["available"]) if node["memory"] else None,
                speed_text(node["device"]),
                short[node["node_id"]],
            )
            for node in nodes
        )
        columns = ["node", "role", "status", "device", "available", "flop/s", "id"]
        yield table(columns, rows, empty="")
    yield instance.overview(list(state["instances"].values()))
    yield from cluster.warnings(state)
