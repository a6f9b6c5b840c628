"""Wait for an instance to be ready, and show how far it is.

The event stream wakes the wait; what it shows is the instance itself, fetched after each event.
So nothing polls, and no change is missed between the two.
"""

import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING

from exo.cli.client import LOGS_HINT, Client, JsonObject, path_segment
from exo.cli.output import out, printable, uses_color
from exo.errors import DaemonError, EngineError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def wait(api: Client, instance: JsonObject) -> JsonObject:
    """Show the progress of `instance` on stderr; the instance once it is ready or failed."""
    if _is_settled(instance):
        return instance
    with closing(watch(api, instance)) as states, _display() as display:
        for state in states:
            display.show(state)
            if _is_settled(state):
                return state
    raise DaemonError("exo stopped before the instance was ready.", hint=LOGS_HINT)


def require_ready(instance: JsonObject) -> JsonObject:
    """`instance`, if it did not fail.

    Raises:
        EngineError: with the reason why it failed.
    """
    if instance["status"] == "failed":
        reason = instance.get("reason") or "no reason was given"
        raise EngineError(
            f"Instance {instance['instance_id']} of {instance['model_id']} failed: {reason}",
            hint=LOGS_HINT,
        )
    return instance


def watch(api: Client, instance: JsonObject) -> Generator[JsonObject]:
    """`instance` now and after each event, until it is ready or failed, or the daemon stops."""
    yield instance
    address = f"/instance/{path_segment(instance['instance_id'])}"
    # The stream replays from this index on, so what happens before it opens still wakes it.
    index = api.get("/state")["index"]
    state = api.get(address)
    yield state
    with closing(api.follow_events(since=index)) as events:
        while not _is_settled(state) and next(events, None) is not None:
            state = api.get(address)
            yield state


def layers(instance: JsonObject) -> tuple[int, int]:
    """How many layers are loaded, and of how many, over all shards."""
    runners = [shard["runner"] for shard in instance["shards"] if shard["runner"]]
    total = sum(shard["end_layer"] - shard["start_layer"] for shard in instance["shards"])
    return min(sum(runner["done"] for runner in runners), total), total


def _is_settled(instance: JsonObject) -> bool:
    return instance["status"] in {"ready", "failed"}


def _display() -> "AbstractContextManager[_Lines | _Bar]":
    return _Bar() if uses_color(sys.stderr) else nullcontext(_Lines())


class _Lines:
    """One line per change of status, for logs and pipes."""

    def __init__(self) -> None:
        self._last: str | None = None

    def show(self, instance: JsonObject) -> None:
        if instance["status"] not in {self._last, "failed"}:
            out.note(_title(instance))
        self._last = instance["status"]


class _Bar(AbstractContextManager["_Bar"]):
    """A bar of the loaded layers, for terminals. It leaves no trace."""

    def __init__(self) -> None:
        from rich import progress  # noqa: PLC0415  a tenth of a second, for terminals only
        from rich.console import Console  # noqa: PLC0415

        self._progress: Progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[count]}", markup=False),
            progress.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("", total=None, count="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, instance: JsonObject) -> None:
        done, total = layers(instance)
        loading = instance["status"] == "loading" and total
        self._progress.update(
            self._task,
            description=_title(instance),
            # Without a total, rich shows a pulse: it goes on, and nobody knows for how long.
            total=total if loading else None,
            completed=done if loading else 0,
            count=f"{done}/{total} layers" if loading else "",
        )


def _title(instance: JsonObject) -> str:
    return printable(f"{instance['model_id']}: {instance['status']}")
