"""`exo dump`: what is in the file, with a daemon and without, and what never is."""

import json
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exo.cli import dump
from exo.cli.checks import Check
from exo.config import Paths

from .conftest import Exo
from .fake_api import TOKEN, FakeApi

LOCAL = ["status.json", "versions.json", "config.json"]
ASKED = ["state.json", "cluster.json", "network.json", "events.json"]
SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def _checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the probe of the device, which takes seconds."""
    monkeypatch.setattr(dump, "all_checks", lambda: iter([Check("port", "ok", "free")]))


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [name.removeprefix("exo-dump/") for name in tar.getnames()]


def read(path: Path, name: str) -> Any:
    with tarfile.open(path) as tar:
        file = tar.extractfile(f"exo-dump/{name}")
        assert file
        text = file.read().decode()
    return json.loads(text) if name.endswith(".json") else text


def test_the_parts(exo: Exo, api: FakeApi, paths: Paths, tmp_path: Path) -> None:
    paths.log.write_text("now\n")
    paths.log.with_name("exo.log.1").write_text("before\n")
    api.events = [{"index": 7, "type": "MasterElected"}]
    path = tmp_path / "bug.tar.gz"

    result = exo("dump", str(path))

    assert names(path) == [
        "manifest.json",
        *LOCAL,
        *ASKED,
        "doctor.json",
        "logs/exo.log",
        "logs/exo.log.1",
    ]
    assert read(path, "state.json") == json.loads(json.dumps(api.state()))
    assert read(path, "cluster.json") == api.cluster()
    assert read(path, "network.json") == api.network
    assert read(path, "events.json") == api.events
    assert read(path, "doctor.json")[0]["name"] == "port"
    assert read(path, "logs/exo.log.1") == "before\n"
    assert read(path, "config.json")["settings"]["p2p_port"] == 52416
    assert "typer" in read(path, "versions.json")["packages"]
    status = read(path, "status.json")
    assert (status["running"], status["kept"]["daemon.json"]["pid"]) == (False, 4242)
    assert result.code == 0


def test_it_says_what_is_in_it(exo: Exo, api: FakeApi, paths: Paths, tmp_path: Path) -> None:
    path = tmp_path / "bug.tar.gz"

    result = exo("dump", "bug.tar.gz")

    lines = result.out.splitlines()
    assert lines[0].startswith(f"{path} (")
    assert lines[0].endswith(" holds:")
    assert [line.split()[0] for line in lines[2:11]] == ["FILE", *LOCAL, *ASKED, "doctor.json"]
    assert lines[-1].startswith("Prompts, tokens and keys are not in it")
    assert result.err == "Looking at this device…\n"


def test_the_other_forms(exo: Exo, api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "bug.tar.gz"

    told = exo("dump", str(path), "--json").json()

    assert told["path"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert told["left_out"] == []
    manifest = read(path, "manifest.json")
    assert manifest["files"] == told["files"]
    assert [file["name"] for file in told["files"]] == names(path)[1:]
    assert exo("dump", str(path), "--force", "--quiet").out == f"{path}\n"


def test_the_file_is_this_users_and_has_the_time_as_its_name(
    exo: Exo, api: FakeApi, tmp_path: Path
) -> None:
    path = Path(exo("dump", "-q").out.strip())

    assert path.parent == tmp_path
    assert path.name.startswith("exo-dump-20")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten(exo: Exo, api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "bug.tar.gz"
    path.write_text("mine")

    result = exo("dump", str(path))

    assert (result.code, path.read_text(), api.calls) == (1, "mine", [])
    assert result.err == (f"Error: {path} exists already.\nGive another FILE, or add --force.\n")
    with pytest.raises(dump.RequestError, match="exists already"):
        dump._write(path, b"", force=False)
    assert exo("dump", str(path), "--force").code == 0
    assert names(path)[0] == "manifest.json"


def test_a_folder_that_is_not_there(exo: Exo, api: FakeApi, tmp_path: Path) -> None:
    result = exo("dump", str(tmp_path / "gone" / "bug.tar.gz"))

    assert result.code == 4
    assert "bug.tar.gz cannot be written: No such file or directory." in result.err


def test_without_a_daemon_the_disk_is_read(exo: Exo, paths: Paths, tmp_path: Path) -> None:
    paths.prepare()
    paths.log.write_text("before\n")
    with closing(sqlite3.connect(paths.database)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE log (idx INTEGER PRIMARY KEY, entry TEXT)")
        database.execute("CREATE TABLE snapshot (idx INTEGER PRIMARY KEY, state TEXT)")
        database.execute("INSERT INTO log VALUES (8, '{\"index\": 8}'), (9, '{\"index\": 9}')")
        database.execute("INSERT INTO snapshot VALUES (8, '{\"index\": 8}')")
    path = tmp_path / "bug.tar.gz"

    result = exo("dump", str(path))

    assert names(path) == [
        "manifest.json",
        *LOCAL,
        "state.json",
        "events.json",
        "doctor.json",
        "logs/exo.log",
    ]
    assert read(path, "events.json") == [{"index": 8}, {"index": 9}]
    assert read(path, "state.json") == [{"index": 8}]
    assert "Left out: the daemon's own view: exo is not running.\n" in result.out


def test_without_anything(exo: Exo, tmp_path: Path) -> None:
    path = tmp_path / "bug.tar.gz"

    left_out = exo("dump", str(path), "--json").json()["left_out"]

    assert names(path) == ["manifest.json", *LOCAL, "doctor.json"]
    assert [one["name"] for one in left_out] == [
        "the daemon's own view",
        "state.json",
        "events.json",
    ]
    assert read(path, "manifest.json")["left_out"] == left_out


def test_settings_that_are_wrong(
    exo: Exo, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXO_PORT", "many")
    path = tmp_path / "bug.tar.gz"

    assert exo("dump", str(path)).code == 0

    config = read(path, "config.json")
    assert "The setting 'port' from EXO_PORT is wrong" in config["settings"]
    assert config["environment"]["EXO_PORT"] == "many"


def test_no_secret_is_in_any_part(
    exo: Exo, api: FakeApi, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.log.write_text(f"INFO Authorization: Bearer {SECRET}\njoined with {TOKEN}\n")
    paths.config_file.write_text(f'name = "box"\n# api_key = "{SECRET}"\n')
    paths.identity.write_text(SECRET)
    paths.cluster.write_text(json.dumps({"secret": SECRET}))
    monkeypatch.setenv("EXO_API_KEY", SECRET)
    api.events = [{"index": 7, "error": f"{TOKEN} is wrong", "token": SECRET}]
    api.network["discovery"]["problem"] = f"api_key={SECRET}"
    path = tmp_path / "bug.tar.gz"

    exo("dump", str(path))

    for name in names(path):
        text = json.dumps(read(path, name))
        assert SECRET not in text, name
        assert TOKEN not in text, name
    assert read(path, "logs/exo.log").startswith("INFO Authorization: ")
    assert read(path, "config.json")["config.toml"].startswith('name = "box"\n')
