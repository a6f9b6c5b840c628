"""`exo dump`: one file with what a bug report needs, and no secrets."""

import io
import json
import os
import platform
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from exo import __version__
from exo.cli import local
from exo.cli.client import Client, JsonObject, connect
from exo.cli.doctor import all_checks
from exo.cli.output import JsonOption, QuietOption, bytes_text, out, table
from exo.cli.redact import redact, redact_json
from exo.errors import ExoError, HomeError, RequestError

if TYPE_CHECKING:
    from exo.config import Paths

FORMAT = 1
FOLDER = "exo-dump"
EVENTS = 5000


@dataclass(frozen=True)
class Part:
    """A file of the dump: what is in it, and how to get that."""

    name: str
    what: str
    get: Callable[[], object]


@dataclass(frozen=True)
class Stored:
    """A file as it goes into the archive."""

    name: str
    what: str
    content: bytes


def dump(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where to write it; here, with the time as a name."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    _quiet: QuietOption = False,
    _json: JsonOption = False,
) -> None:
    """Write a file for a bug report.

    It holds the state, the events, the log, the settings and the report of `exo doctor`, without
    prompts, tokens and keys. It also works while exo is not running.
    """
    now = datetime.now(UTC)
    path = (file or Path(f"exo-dump-{now:%Y%m%d-%H%M%S}.tar.gz")).expanduser().absolute()
    if path.exists() and not force:
        raise _exists(path)
    out.note("Looking at this device…")
    stored, left_out = collect(local.find_paths())
    files = [{"name": s.name, "bytes": len(s.content), "what": s.what} for s in stored]
    manifest = {
        "format": FORMAT,
        "exo": __version__,
        "created_at": now.isoformat(timespec="seconds"),
        "files": files,
        "left_out": left_out,
    }
    content = archive([Stored("manifest.json", "", _encode(manifest)), *stored], now)
    _write(path, content, force=force)
    result = {"path": str(path), "bytes": len(content), "files": files, "left_out": left_out}
    out.result(result, lambda: _report(result), lambda: str(path))


def collect(paths: "Paths") -> tuple[list[Stored], list[JsonObject]]:
    """The files of the dump, and which are not in it for what reason."""
    stored: list[Stored] = []
    left_out: list[JsonObject] = []
    with ExitStack() as stack:
        api: Client | None = None
        try:
            api = stack.enter_context(connect())
            api.get("/healthz")
        except ExoError as error:
            api = None
            left_out.append({"name": "the daemon's own view", "why": error.message})
        for part in _parts(api, paths):
            try:
                stored.append(Stored(part.name, part.what, _encode(part.get())))
            except (ExoError, OSError, sqlite3.Error, ValueError) as error:
                left_out.append({"name": part.name, "why": str(error)})
    return stored, left_out


def archive(stored: list[Stored], now: datetime) -> bytes:
    """A tar.gz with these files in one folder, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for one in stored:
            info = tarfile.TarInfo(f"{FOLDER}/{one.name}")
            info.size, info.mtime, info.mode = len(one.content), int(now.timestamp()), 0o600
            tar.addfile(info, io.BytesIO(one.content))
    return buffer.getvalue()


def _parts(api: Client | None, paths: "Paths") -> Iterator[Part]:
    yield Part(
        "status.json", "whether exo runs, and what it keeps beside the log", lambda: _status(paths)
    )
    yield Part("versions.json", "this system, Python and its packages", _versions)
    yield Part("config.json", "the settings, and what of them is set", lambda: _config(paths))
    if api:
        yield Part("state.json", "the state of the cluster", lambda: api.get("/state"))
        yield Part("cluster.json", "the members and the master", lambda: api.get("/cluster"))
        yield Part("network.json", "interfaces, discovery and links", lambda: api.get("/network"))
        yield Part("events.json", "the last events", lambda: _last_events(api))
    else:
        yield Part("state.json", "the last snapshot on disk", lambda: _on_disk(paths, "snapshot"))
        yield Part("events.json", "the last events on disk", lambda: _on_disk(paths, "log"))
    yield Part("doctor.json", "the report of `exo doctor`", lambda: list(map(asdict, all_checks())))
    for log in sorted(paths.log.parent.glob(f"{paths.log.name}*")):
        yield Part(f"logs/{log.name}", "a log of the daemon", lambda log=log: _text(log))


def _status(paths: "Paths") -> JsonObject:
    files = [path for path in (paths.daemon, paths.device, paths.term) if path.is_file()]
    kept = {path.name: json.loads(_text(path)) for path in files}
    return {"running": local.is_running(paths), "data": str(paths.data), "kept": kept}


def _versions() -> JsonObject:
    import psutil  # noqa: PLC0415  not paid for by `exo --help`

    packages = {one.name: one.version for one in metadata.distributions()}
    return {
        "exo": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "packages": dict(sorted(packages.items())),
    }


def _config(paths: "Paths") -> JsonObject:
    from exo.config import load_settings  # noqa: PLC0415  not paid for by `exo --help`

    try:
        settings: object = load_settings(paths).model_dump(mode="json")
    except ExoError as error:
        settings = str(error)
    file = _text(paths.config_file) if paths.config_file.is_file() else None
    environment = {name: value for name, value in os.environ.items() if name.startswith("EXO_")}
    return {"settings": settings, "config.toml": file, "environment": environment}


def _last_events(api: Client) -> list[JsonObject]:
    since = max(0, api.get("/state")["index"] - EVENTS)
    return api.get_list("/events", since=since, limit=EVENTS)


def _on_disk(paths: "Paths", table_name: str) -> object:
    """What the database holds, as it is: the daemon is not there to tell."""
    column = {"snapshot": "state", "log": "entry"}[table_name]
    query = f"SELECT {column} FROM {table_name} ORDER BY idx DESC LIMIT ?"  # noqa: S608  two names
    address = f"file:{quote(str(paths.database))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database:
        rows = database.execute(query, (EVENTS,)).fetchall()
    return [json.loads(text) for (text,) in reversed(rows)]


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace")


def _encode(value: object) -> bytes:
    """Text as it is, anything else as JSON; either without secrets."""
    if isinstance(value, str):
        return redact(value).encode()
    return (json.dumps(redact_json(value), indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes, *, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise HomeError(
            f"{path} cannot be written: {error.strerror}.", hint="Give another FILE."
        ) from error


def _exists(path: Path) -> RequestError:
    return RequestError(f"{path} exists already.", hint="Give another FILE, or add --force.")


def _report(result: JsonObject) -> str:
    rows = [(file["name"], bytes_text(file["bytes"]), file["what"]) for file in result["files"]]
    lines = [
        f"{result['path']} ({bytes_text(result['bytes'])}) holds:",
        "",
        table(["file", "size", "what"], rows, empty=""),
        "",
        *(f"Left out: {one['name']}: {one['why']}" for one in result["left_out"]),
        "Prompts, tokens and keys are not in it; names and addresses of your devices are.",
    ]
    return "\n".join(lines)
