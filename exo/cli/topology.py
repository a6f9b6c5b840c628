"""`exo topology`: the nodes, their links, and what lies where."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from exo.cli.client import JsonObject, connect
from exo.cli.node import (
    device_text,
    labels,
    layers_text,
    link_texts,
    memory_text,
    overview,
    placed_on,
    speed_text,
)
from exo.cli.output import JsonOption, digits, out, printable, table, uses_color

# So many nodes have few enough links for a line each; so many still fit as columns of a table.
LISTED = 4
COLUMNS = 12
STYLES = {"online": "green", "suspect": "yellow", "draining": "yellow", "lost": "red"}

Links = Mapping[frozenset[str], JsonObject]


class _Unit(NamedTuple):
    """A figure of the links, for the heading of its table."""

    title: str
    field: str
    scale: float


LATENCY = _Unit("Latency, ms", "latency", 1e3)
BANDWIDTH = _Unit("Bandwidth, MB/s", "bandwidth", 1e-6)


def topology(_json: JsonOption = False) -> None:
    """Draw the nodes, links and instances.

    A link is as slow as its slower direction.
    """
    with connect() as api:
        state = api.get("/state")
    data = {**state["topology"], "instances": state["instances"]}
    out.result(data, lambda: "\n\n".join(sections(state)))


def sections(state: JsonObject) -> Iterator[str]:
    """The nodes (boxes on a terminal, else a table), their links, and the instances."""
    nodes: list[JsonObject] = state["topology"]["nodes"]
    yield _boxes(state, nodes) if uses_color(sys.stdout) else overview(nodes)
    yield from link_sections(nodes, both_ways(state["topology"]["links"]))
    yield _instances(state, labels(nodes))


def both_ways(links: Sequence[JsonObject]) -> Links:
    """The links by their two ends; of what each end measured, the worse."""
    merged: dict[frozenset[str], JsonObject] = {}
    for link in links:
        ends = frozenset((link["from"], link["to"]))
        other = merged.get(ends, link)
        known = [one["bandwidth"] for one in (link, other) if one["bandwidth"] is not None]
        merged[ends] = {
            "latency": max(link["latency"], other["latency"]),
            "bandwidth": min(known, default=None),
        }
    return merged


def link_sections(nodes: Sequence[JsonObject], links: Links) -> Iterator[str]:
    """The links in the form that so many nodes can be read in."""
    names = labels(nodes)
    pairs = [pair for pair in combinations(names, 2) if frozenset(pair) in links]
    if not pairs:
        return
    if len(names) <= LISTED:
        yield _lines(pairs, names, links)
    elif len(names) <= COLUMNS:
        yield _matrix(LATENCY, names, links)
        if any(link["bandwidth"] is not None for link in links.values()):
            yield _matrix(BANDWIDTH, names, links)
    else:
        pairs.sort(key=lambda pair: links[frozenset(pair)]["latency"], reverse=True)
        head = f"The {COLUMNS} slowest of {len(pairs)} links:"
        yield f"{head}\n{_lines(pairs[:COLUMNS], names, links)}"


def _lines(pairs: Sequence[tuple[str, str]], names: Mapping[str, str], links: Links) -> str:
    """`box ── 0.31 ms, 118 MB/s ── mac`, one line for each link."""
    rows = [
        (names[one], ", ".join(filter(None, link_texts(links[frozenset((one, other))]))), other)
        for one, other in pairs
    ]
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        printable(f"{one:<{left}} ── {text:^{middle}} ── {names[other]}")
        for one, text, other in rows
    )


def _matrix(unit: _Unit, names: Mapping[str, str], links: Links) -> str:
    """A figure for each pair of nodes, which the columns name by their numbers."""
    ids = list(names)

    def cell(one: str, other: str) -> str:
        value = links.get(frozenset((one, other)), {}).get(unit.field)
        return "-" if value is None else digits(value * unit.scale)

    lines = [[unit.title, *map(str, range(1, len(ids)))]]
    for row, one in enumerate(ids):
        lines.append([f"{row + 1:>2} {names[one]}", *(cell(one, other) for other in ids[:row])])
    first = max(len(line[0]) for line in lines)
    width = max(len(text) for line in lines for text in line[1:])
    return "\n".join(
        printable("  ".join([f"{head:<{first}}", *(f"{text:>{width}}" for text in rest)]).rstrip())
        for head, *rest in lines
    )


def _instances(state: JsonObject, names: Mapping[str, str]) -> str:
    rows = (
        (
            instance["model_id"],
            instance["status"],
            ", ".join(
                f"{names.get(shard['node_id'], shard['node_id'])} {layers_text(shard)}"
                for shard in instance["shards"]
            ),
            instance["instance_id"],
        )
        for instance in state["instances"].values()
    )
    columns = ["model", "status", "nodes and layers", "id"]
    return table(columns, rows, empty="There are no instances.")


def _boxes(state: JsonObject, nodes: Sequence[JsonObject]) -> str:
    """A box for each node, as many side by side as the terminal is wide."""
    from rich.columns import Columns  # noqa: PLC0415  a tenth of a second, for terminals only
    from rich.console import Console  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = labels(nodes)

    def box(node: JsonObject) -> Panel:
        role = " (master)" if node["role"] == "master" else ""
        title = Text(printable(names[node["node_id"]]) + role)
        return Panel(Text.from_ansi("\n".join(_box_lines(state, node))), title=title)

    console = Console()
    with console.capture() as capture:
        console.print(Columns(map(box, nodes), equal=True))
    return capture.get().rstrip("\n")


def _box_lines(state: JsonObject, node: JsonObject) -> Iterator[str]:
    yield out.paint(node["status"], STYLES.get(node["status"], "bold"))
    yield printable(device_text(node["device"]))
    facts = (memory_text(node["memory"]), speed_text(node["device"]))
    yield from filter(None, facts)
    for instance, shard in placed_on(state, node["node_id"]):
        text = f"{instance['model_id']} {layers_text(shard)}, {instance['status']}"
        yield out.paint(printable(text), "bold")
