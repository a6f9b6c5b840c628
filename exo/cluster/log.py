"""The event log on disk (SQLite), bounded by snapshots.

    meta      key, value        `format`: the version of this layout
    log       idx, entry        one JSON entry for each event, in order
    snapshot  idx, state        the folded state at idx, one row

What a client was told is on disk; what was only observed (a runner is ready) may wait in memory
while the disk is full, so that a full disk stops commands and nothing else.
"""

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from exo.cluster.events import Entry, apply
from exo.cluster.state import ClusterState
from exo.errors import HomeError, StorageFull
from exo.p2p.term import Term

FORMAT = 1
SNAPSHOT_EVERY = 500
ENTRIES_KEPT = 10_000

log = logging.getLogger(__name__)


class EventLog:
    """Appends entries and folds them. One thread at a time."""

    def __init__(self, path: Path, *, kept: int = ENTRIES_KEPT) -> None:
        """Open or create the log and fold what is in it.

        A damaged file is moved aside, not deleted.

        Raises:
            HomeError: the file cannot be used, or a newer exo wrote it.
        """
        self._path = path
        self._kept = kept
        self._unwritten: list[Entry] = []
        try:
            self._open()
        except (sqlite3.DatabaseError, ValidationError, ValueError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise HomeError(
                    f"{path} cannot be opened: {error}.",
                    hint="Free some disk space and make the folder writable.",
                ) from error
            aside = path.with_suffix(".damaged")
            log.warning("%s is damaged (%s); it is kept as %s.", path, error, aside)
            path.replace(aside)
            self._open()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(
            "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "CREATE TABLE IF NOT EXISTS log (idx INTEGER PRIMARY KEY, entry TEXT NOT NULL);"
            "CREATE TABLE IF NOT EXISTS snapshot (idx INTEGER PRIMARY KEY, state TEXT NOT NULL);"
        )
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        (found,) = self._db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        if int(found) > FORMAT:
            raise HomeError(
                f"{self._path} was written by a newer exo (format {found}).",
                hint="Upgrade exo, or set EXO_HOME to another folder.",
            )
        self.state = self._fold()

    def _fold(self) -> ClusterState:
        row = self._db.execute("SELECT state FROM snapshot ORDER BY idx DESC LIMIT 1").fetchone()
        state = ClusterState.model_validate_json(row[0]) if row else ClusterState()
        self._snapshot_at = state.index
        rows = self._db.execute("SELECT entry FROM log WHERE idx > ? ORDER BY idx", (state.index,))
        for (text,) in rows:
            state = apply(state, Entry.model_validate_json(text))
        return state

    def append(self, entries: Sequence[Entry], *, durable: bool) -> ClusterState:
        """Add entries and return the new state.

        Raises:
            StorageFull: they are `durable` and cannot be written; nothing was added.
        """
        state = self.state
        for entry in entries:
            state = apply(state, entry)
        batch = [*self._unwritten, *entries]
        try:
            self._write(batch, state)
        except sqlite3.OperationalError as error:
            if durable:
                raise StorageFull(
                    f"The change cannot be kept on disk: {error}.",
                    hint=f"Free some space on the disk that holds {self._path.parent}.",
                    retry_after=30,
                ) from error
            log.warning("Events wait in memory, the disk cannot be written: %s", error)
            self._unwritten = batch
        else:
            self._unwritten = []
        self.state = state
        return state

    def _write(self, entries: Sequence[Entry], state: ClusterState) -> None:
        rows = [(entry.index, entry.model_dump_json()) for entry in entries]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO log VALUES (?, ?)", rows)
            due = state.index - self._snapshot_at >= SNAPSHOT_EVERY
            if due:
                text = state.model_dump_json()
                self._db.execute("DELETE FROM snapshot")
                self._db.execute("INSERT INTO snapshot VALUES (?, ?)", (state.index, text))
                self._db.execute("DELETE FROM log WHERE idx <= ?", (state.index - self._kept,))
            self._db.execute("COMMIT")
        except sqlite3.OperationalError:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if due:
            self._snapshot_at = state.index

    def reset(self, state: ClusterState) -> None:
        """Forget the log and go on from `state`.

        Raises:
            StorageFull: it cannot be written; nothing was changed.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM log")
            self._db.execute("DELETE FROM snapshot")
            self._db.execute(
                "INSERT INTO snapshot VALUES (?, ?)", (state.index, state.model_dump_json())
            )
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StorageFull(
                f"The state of the cluster cannot be kept on disk: {error}.",
                hint=f"Free some space on the disk that holds {self._path.parent}.",
                retry_after=30,
            ) from error
        self._unwritten = []
        self._snapshot_at = state.index
        self.state = state

    def holds(self, index: int, term: Term) -> bool:
        """Whether the entry at `index` is here and of `term`: then all before it are the same."""
        found = self.read(index - 1, 1)
        return bool(found) and found[0].index == index and found[0].term == term

    def read(self, since: int, limit: int) -> list[Entry]:
        """Entries with index > `since`, at most `limit`, oldest first."""
        rows = self._db.execute(
            "SELECT entry FROM log WHERE idx > ? ORDER BY idx LIMIT ?", (since, limit)
        )
        found = [Entry.model_validate_json(text) for (text,) in rows]
        found += [entry for entry in self._unwritten if entry.index > since]
        return found[:limit]

    def close(self) -> None:
        self._db.close()
