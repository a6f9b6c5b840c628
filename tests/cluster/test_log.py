"""The log over a real SQLite file."""

import sqlite3
from pathlib import Path

import pytest

from exo.cluster.events import RunnerChanged
from exo.cluster.log import SNAPSHOT_EVERY, EventLog
from exo.cluster.state import RunnerStatus
from exo.errors import HomeError, StorageFull
from tests.cluster.factory import created, entry, runner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def add(log: EventLog, event, *, durable: bool = True) -> None:
    log.append([entry(log.state, event)], durable=durable)


def fill_disk(log: EventLog) -> None:
    """SQLite's own way of saying that no page more can be had."""
    (pages,) = log._db.execute("PRAGMA page_count").fetchone()
    log._db.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(log: EventLog) -> None:
    log._db.execute("PRAGMA max_page_count = 1000000")


def add_until_full(log: EventLog, *, durable: bool) -> int:
    """Add instances until one does not fit; how many did."""
    count = 0
    while not log._unwritten:
        try:
            add(log, created(f"i{count}", f"c{count}"), durable=durable)
        except StorageFull:
            return count
        count += 1
    return count - 1


def test_what_was_appended_is_there_after_a_restart(path: Path):
    log = EventLog(path)
    add(log, created())
    log.close()
    assert list(EventLog(path).state.instances) == ["i"]


def test_it_is_there_also_when_the_process_just_ends(path: Path):
    log = EventLog(path)
    add(log, created())
    assert list(EventLog(path).state.instances) == ["i"]


def test_snapshots_bound_the_log(path: Path):
    log = EventLog(path, kept=10)
    add(log, created())
    for step in range(SNAPSHOT_EVERY):
        add(log, RunnerChanged(runner=runner(done=step)))
    assert len(log.read(0, 10_000)) <= 11
    expected = log.state
    log.close()
    again = EventLog(path, kept=10)
    assert again.state == expected
    add(again, created("j", "c2"))
    assert list(again.state.instances) == ["i", "j"]


def test_reading_is_by_index_and_bounded(path: Path):
    log = EventLog(path)
    for number in range(5):
        add(log, created(f"i{number}", f"c{number}"))
    assert [e.index for e in log.read(2, 2)] == [3, 4]
    assert log.read(5, 10) == []


def test_a_full_disk_refuses_a_command_and_changes_nothing(path: Path):
    log = EventLog(path)
    fill_disk(log)
    kept = add_until_full(log, durable=True)
    assert len(log.state.instances) == kept
    with pytest.raises(StorageFull, match="full"):
        add(log, created("x", "cx"))
    free_disk(log)
    add(log, created("x", "cx"))
    assert "x" in EventLog(path).state.instances


def test_a_full_disk_does_not_stop_observations(path: Path):
    log = EventLog(path)
    fill_disk(log)
    add_until_full(log, durable=False)
    assert log._unwritten
    add(log, RunnerChanged(runner=runner("i0", RunnerStatus.FAILED)), durable=False)
    assert log.state.runners["i0/0"].status is RunnerStatus.FAILED
    assert log.read(0, 10_000)[-1].index == log.state.index
    free_disk(log)
    add(log, created("x", "cx"))
    assert EventLog(path).state == log.state


def test_a_damaged_file_is_kept_aside_and_the_log_begins_anew(path: Path):
    path.write_bytes(b"this is no database, " * 100)
    log = EventLog(path)
    assert log.state.index == 0
    assert path.with_suffix(".damaged").read_bytes().startswith(b"this is no")
    add(log, created())


def test_a_damaged_entry_is_found(path: Path):
    log = EventLog(path)
    add(log, created())
    log._db.execute("UPDATE log SET entry = '{}'")
    log.close()
    assert EventLog(path).state.index == 0
    assert path.with_suffix(".damaged").exists()


def test_a_log_of_a_newer_exo_is_not_touched(path: Path):
    log = EventLog(path)
    log._db.execute("UPDATE meta SET value = '99'")
    log.close()
    with pytest.raises(HomeError, match="newer exo"):
        EventLog(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT value FROM meta").fetchone() == ("99",)
    db.close()
