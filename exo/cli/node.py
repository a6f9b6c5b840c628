"""`exo node …`: the devices of the cluster."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Annotated

import typer

from exo.cli.client import JsonObject, connect, path_segment
from exo.cli.output import (
    JsonOption,
    QuietOption,
    bandwidth_text,
    bytes_text,
    count_text,
    fields,
    flops_text,
    latency_text,
    out,
    table,
    time_text,
)
from exo.errors import NodeNotFound, RequestError

app = typer.Typer(
    name="node", help="See the nodes of the cluster and manage them.", no_args_is_help=True
)

# Fewer characters of an id look like a word; all ids begin alike, so their ends tell them apart.
SHORT = 8
NODES_HINT = "`exo node list` shows them."

NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="Name of a node, its id, or the end of its id.")
]


@app.command("list")
def list_(
    long: Annotated[bool, typer.Option("--long", "-l", help="Show whole ids.")] = False,
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """List the nodes."""
    with connect() as api:
        nodes: list[JsonObject] = api.get("/state")["topology"]["nodes"]
    out.result(
        {"object": "list", "data": nodes},
        lambda: overview(nodes, long=long),
        lambda: "\n".join(node["node_id"] for node in nodes),
    )


@app.command()
def show(node: NodeArgument, _json: JsonOption = False) -> None:
    """Show a node and what is placed on it."""
    with connect() as api:
        state = api.get("/state")
    found = find_node(state, node)
    out.result(found, lambda: "\n\n".join(details(state, found)))


@app.command()
def drain(
    node: NodeArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let it have new instances again.")] = False,
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """Give a node no new instances.

    The instances that it has stay, and go on to answer.
    """
    with connect() as api:
        view = api.post(f"{_address(node)}/{'undrain' if undo else 'drain'}", {})
    text = f"{view['name']} may get new instances."
    if not undo:
        back = f"`exo node drain {shlex.quote(node)} --undo` takes that back."
        text = f"{view['name']} gets no new instances. {back}"
    out.result(view, lambda: text, lambda: view["node_id"])


@app.command()
def leave(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="NODE", help="Name of a node, its id, or its end; without it, this node."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """Take a node out of the cluster.

    The answers that it computes get time to finish, then its daemon stops.
    """
    with connect() as api:
        state = api.get("/state")
        found = find_node(state, api.get("/cluster")["node_id"] if node is None else node)
        if not yes and not out.confirm(_question(state, found)):
            out.note("Nothing was done.")
            raise typer.Exit(1)
        view = api.post(f"{_address(found['node_id'])}/leave", {})
    out.result(
        view,
        lambda: f"{view['name']} finishes its answers, leaves the cluster and stops.",
        lambda: view["node_id"],
    )


def find_node(state: JsonObject, name: str) -> JsonObject:
    """The node of that id, of that name if only one has it, or whose id ends so.

    Raises:
        NodeNotFound: there is none, or more than one.
    """
    nodes: list[JsonObject] = state["topology"]["nodes"]
    found = [node for node in nodes if node["node_id"] == name]
    found = found or [node for node in nodes if node["name"] == name]
    found = found or [node for node in nodes if name and node["node_id"].endswith(name)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} nodes are called" if found else "There is no node"
    raise NodeNotFound(f"{what} '{name}'.", hint=NODES_HINT)


def short_ids(nodes: Sequence[JsonObject]) -> dict[str, str]:
    """By id, the end of each id that no other node shares."""
    ids = {node["node_id"] for node in nodes}
    length = next(n for n in count(SHORT) if len({one[-n:] for one in ids}) == len(ids))
    return {one: one[-length:] for one in ids}


def labels(nodes: Sequence[JsonObject]) -> dict[str, str]:
    """By id, what to call each node: its name, with the end of its id where others share it."""
    short = short_ids(nodes)
    names = [node["name"] for node in nodes]
    return {
        node["node_id"]: node["name"]
        if names.count(node["name"]) == 1
        else f"{node['name']} {short[node['node_id']]}"
        for node in nodes
    }


def overview(nodes: Sequence[JsonObject], *, long: bool = False) -> str:
    """The table of nodes."""
    short = short_ids(nodes)
    rows = (
        (
            node["name"],
            node["node_id"] if long else short[node["node_id"]],
            node["role"],
            node["status"],
            node["address"],
            node["version"],
            memory_text(node["memory"]),
            speed_text(node["device"]),
            latency_text(node["latency"]),
            time_text(node["since"]),
        )
        for node in nodes
    )
    columns = ["name", "id", "role", "status", "api", "version"]
    columns += ["memory", "flop/s", "latency", "since"]
    return table(columns, rows, empty="There are no nodes.")


def details(state: JsonObject, node: JsonObject) -> Iterator[str]:
    """Everything about one node, in sections."""
    device: JsonObject = node["device"] or {}
    yield fields(
        [
            ("Node", node["name"]),
            ("Node id", node["node_id"]),
            ("Role", node["role"]),
            ("Status", f"{node['status']} since {time_text(node['since'])}"),
            ("Version", node["version"]),
            ("API", node["address"]),
            ("Addresses", ", ".join(node["links"])),
            ("Started", time_text(node["started_at"])),
            ("Device", device_text(node["device"])),
            ("Memory", memory_text(node["memory"])),
            ("FLOP/s", speed_text(node["device"])),
            ("Bandwidth", bandwidth_text(device.get("memory_bandwidth"))),
        ]
    )
    names = labels(state["topology"]["nodes"])
    links = [
        (names.get(link["to"], link["to"]), *link_texts(link))
        for link in state["topology"]["links"]
        if link["from"] == node["node_id"]
    ]
    if links:
        yield table(["link to", "latency", "bandwidth"], links, empty="")
    placed = [
        (
            instance["model_id"],
            instance["status"],
            layers_text(shard),
            bytes_text(shard["memory"]),
            instance["instance_id"],
        )
        for instance, shard in placed_on(state, node["node_id"])
    ]
    columns = ["model", "status", "layers", "memory", "instance"]
    yield table(columns, placed, empty="No instances lie on it.")


def placed_on(state: JsonObject, node_id: str) -> Iterator[tuple[JsonObject, JsonObject]]:
    """The shards on a node, each after its instance."""
    for instance in state["instances"].values():
        for shard in instance["shards"]:
            if shard["node_id"] == node_id:
                yield instance, shard


def device_text(device: JsonObject | None) -> str:
    """'Apple M3 Ultra, 32 cores (metal)'."""
    if not device:
        return "being measured"
    return f"{device['name']}, {count_text(device['cores'], 'core')} ({device['kind']})"


def memory_text(memory: Mapping[str, int] | None) -> str | None:
    """'12.0 GiB of 16.0 GiB': what is free, of all."""
    if not memory:
        return None
    return f"{bytes_text(memory['available'])} of {bytes_text(memory['total'])}"


def speed_text(device: JsonObject | None) -> str | None:
    """The fastest number type, which is the one models are computed in."""
    if not device or not device["flops"]:
        return None
    kind, flops = max(device["flops"].items(), key=lambda pair: pair[1])
    return f"{flops_text(flops)} ({kind})"


def link_texts(link: JsonObject) -> tuple[str | None, str | None]:
    """The latency and the bandwidth of a link."""
    return latency_text(link["latency"]), bandwidth_text(link["bandwidth"])


def layers_text(shard: JsonObject) -> str:
    """'0-5'."""
    return f"{shard['start_layer']}-{shard['end_layer'] - 1}"


def _address(node: str) -> str:
    if not node:
        # An unset variable in a script must not mean some other address of the API.
        raise RequestError("The node's name is empty.", hint=NODES_HINT)
    return f"/nodes/{path_segment(node)}"


def _question(state: JsonObject, node: JsonObject) -> str:
    placed = {instance["instance_id"] for instance, _ in placed_on(state, node["node_id"])}
    what = f"Take {node['name']} out of the cluster and stop its daemon?"
    return f"{count_text(len(placed), 'instance')} on it will fail. {what}" if placed else what
