"""`exo cluster …`: who may join, and who is in it."""

from collections.abc import Iterator, Sequence

import typer

from exo.cli.client import JsonObject, connect
from exo.cli.node import short_ids
from exo.cli.output import (
    JsonOption,
    QuietOption,
    count_text,
    fields,
    out,
    printable,
    table,
    time_text,
)

app = typer.Typer(name="cluster", help="See the cluster and who may join it.", no_args_is_help=True)


@app.command()
def status(_json: JsonOption = False) -> None:
    """Show the cluster and its members."""
    with connect() as api:
        found = api.get("/cluster")
    out.result(found, lambda: "\n\n".join(_sections(found)))


@app.command()
def lock(_quiet: QuietOption = False, _json: JsonOption = False) -> None:
    """Close the cluster to strangers.

    Prints the token that a new device joins with. The nodes that are in the cluster stay in it.
    """
    _new_secret("lock", "is locked")


@app.command()
def rotate(_quiet: QuietOption = False, _json: JsonOption = False) -> None:
    """Change the secret of a locked cluster.

    Prints the new token: older ones are worth nothing from now on. The nodes that are in the
    cluster stay in it.
    """
    _new_secret("rotate", "has a new secret")


@app.command()
def token(_quiet: QuietOption = False, _json: JsonOption = False) -> None:
    """Print the token to join with.

    On a new device: `exo start --join TOKEN`.
    """
    with connect() as api:
        found = api.get("/cluster/token")
    if found["locked"]:
        out.note("Whoever has this token can join the cluster: keep it secret.")
    else:
        out.note("The cluster is open: the token only says where it is.")
    out.result(found, lambda: found["token"])


def summary(cluster: JsonObject) -> str:
    """'exo, 3 nodes, locked'."""
    guard = "locked" if cluster["locked"] else "open"
    return f"{cluster['name']}, {count_text(cluster['nodes'], 'node')}, {guard}"


def warning(cluster: JsonObject) -> str | None:
    """What the person should know of an open cluster, and the command that closes it."""
    text = cluster["warning"]
    return out.paint(printable(text), "yellow") if text else None


def warnings(state: JsonObject) -> Iterator[str]:
    """What the person should know of who can join the cluster, and of who can use the API."""
    if text := warning(state["cluster"]):
        yield text
    if note := state["access"]["note"]:
        yield out.paint(printable(note), "yellow")


def refusals(refused: dict[str, int]) -> str:
    """'4 (other cluster 3, version 1)': how many were not let in, by reason."""
    parts = [f"{reason.replace('_', ' ')} {count}" for reason, count in sorted(refused.items())]
    total = str(sum(refused.values()))
    return f"{total} ({', '.join(parts)})" if parts else total


def _new_secret(verb: str, what: str) -> None:
    with connect() as api:
        made = api.post(f"/cluster/{verb}", {})
    text = (
        f"The cluster {made['name']} {what}. A device joins it with:\n\n"
        f"exo start --join {made['token']}"
    )
    out.result(made, lambda: text, lambda: made["token"])
    for name in made["missed"]:
        out.note(f"{printable(name)} did not get the secret: let it join with the token.")


def _sections(found: JsonObject) -> Iterator[str]:
    members: Sequence[JsonObject] = found["members"]
    names = {member["peer_id"]: member["name"] for member in members}
    term: JsonObject = found["term"] or {}
    yield fields(
        [
            ("Cluster", summary(found)),
            ("Master", names.get(found["master_id"], found["master_id"])),
            ("Term", term.get("number")),
            ("Refused", refusals(found["refused"])),
        ]
    )
    short = short_ids([{"node_id": peer_id} for peer_id in names])
    rows = (
        (
            member["name"],
            member["status"],
            member["version"],
            time_text(member["since"]),
            ", ".join(member["addresses"]),
            short[member["peer_id"]],
        )
        for member in members
    )
    yield table(["member", "status", "version", "since", "addresses", "id"], rows, empty="")
    if text := warning(found):
        yield text
