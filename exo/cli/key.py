"""`exo key …`: who may use the API."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from exo.cli.client import JsonObject, connect, path_segment
from exo.cli.output import JsonOption, QuietOption, out, printable, table, time_text

app = typer.Typer(name="key", help="Make and revoke keys of the API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")] = "",
    scope: Annotated[
        str, typer.Option(help="inference: to use models; admin: for everything.")
    ] = "inference",
    model: Annotated[
        list[str] | None,
        typer.Option(help="The only model that it may use; may be given several times."),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="Requests a minute that it may send to each node.")
    ] = None,
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """Make a key for every node.

    It is shown this once: only what proves it is kept.
    """
    body = {"name": name, "scope": scope, "models": model or [], "rate": rate}
    with connect() as api:
        made = api.post("/keys", body)
    out.note(f"This is the only time that {printable(made['name'])} is shown: keep it.")
    out.result(made, lambda: made["key"])


@app.command("list")
def list_(_quiet: QuietOption = False, _json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    with connect() as api:
        found = api.get("/keys")
    keys: Sequence[JsonObject] = found["data"]
    out.result(found, lambda: _overview(keys), lambda: "\n".join(key["key_id"] for key in keys))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its name or id.")],
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """Make a key worthless, on every node."""
    with connect() as api:
        gone = api.delete(f"/keys/{path_segment(key)}")
    out.result(gone, lambda: f"{shlex.quote(gone['name'])} is revoked.", lambda: gone["key_id"])


def _overview(keys: Sequence[JsonObject]) -> str:
    rows = (
        (
            key["name"],
            key["scope"],
            ", ".join(key["models"]) or "all",
            f"{key['rate']}/min" if key["rate"] else "any",
            time_text(key["created_at"]),
            time_text(key["last_used"]) if key["last_used"] else "never",
            key["key_id"],
        )
        for key in keys
    )
    head = ["key", "scope", "models", "rate", "created", "last used", "id"]
    return table(head, rows, empty="There are no keys. `exo key create NAME` makes one.")
