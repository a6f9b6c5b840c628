"""`exo events`: the cluster's event log."""

import json
from contextlib import closing
from itertools import islice
from typing import Annotated

import typer

from exo.cli.client import JsonObject, connect
from exo.cli.output import JsonOption, out, printable

_HEAD = {"index", "term", "time", "type"}


def events(
    since: Annotated[int | None, typer.Option(min=0, help="Index to begin at.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most events to show.")] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new events as they come.")
    ] = False,
    _json: JsonOption = False,
) -> None:
    """Show what happened in the cluster.

    With --follow and --json, each event is one line.
    """
    with connect() as api:
        if not follow:
            found = api.get_list("/events", since=since, limit=limit)
            out.result(found, lambda: "\n".join(map(line, found)) or "There are no events.")
            return
        with closing(api.follow_events(since)) as stream:
            for event in islice(stream, limit):
                out.item(event, lambda event=event: line(event))


def line(event: JsonObject) -> str:
    """One event for a person."""
    rest = (f"{name}={_value(value)}" for name, value in event.items() if name not in _HEAD)
    head = f"{event['index']:>6}  {event['time']}  {event['type']}"
    return printable("  ".join([head, *rest]))


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
