"""Responses that clients come back to: files, the oldest of which make room for new ones.

The folder is all there is: a file's name is the response's id, its time of change when it was made.
So a restart loses nothing, and no index can differ from the disk. Everything here blocks: it is
called in a thread.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exo.api.response_ids import tag_in
from exo.errors import StorageFull

MAX_RESPONSES = 4096
# What one message between nodes can carry, with room to spare.
MAX_RESPONSE_BYTES = 12 * 2**20
_SUFFIX = ".json"
_UNFINISHED = ".part"


class ResponseStore:
    """The responses in `folder`: so many bytes of them at most, and so many in number."""

    def __init__(self, folder: Path, max_bytes: int, max_count: int = MAX_RESPONSES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0 and self._max_count > 0

    def save(self, response_id: str, data: bytes) -> None:
        """Keep it, in the place of what had this id.

        Raises:
            StorageFull: it does not fit, on the disk or in what may be used of it.
        """
        limit = min(self._max_bytes, MAX_RESPONSE_BYTES)
        if len(data) > limit:
            raise StorageFull(
                f"The response takes {len(data)} bytes with all that came before it; {limit} may "
                "be stored.",
                hint="Ask with store false, or raise the setting `responses_mb`.",
            )
        with self._lock:
            self._make_room(len(data), self._path(response_id))
            self._write(response_id, data)

    def load(self, response_id: str) -> bytes | None:
        """What was kept; None if there is no such response, or not any more."""
        if tag_in(response_id) is None:
            return None
        try:
            return self._path(response_id).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, response_id: str) -> bool:
        """Whether it was there."""
        if tag_in(response_id) is None:
            return False
        with self._lock:
            try:
                self._path(response_id).unlink()
            except FileNotFoundError:
                return False
            return True

    def _path(self, response_id: str) -> Path:
        return self._folder / f"{response_id}{_SUFFIX}"

    def _make_room(self, needed: int, instead: Path) -> None:
        files = [(path, size) for path, size in self._files() if path != instead]
        used, left = sum(size for _, size in files), len(files)
        for path, size in files:
            if used + needed <= self._max_bytes and left < self._max_count:
                return
            _remove(path)
            used, left = used - size, left - 1

    def _write(self, response_id: str, data: bytes) -> None:
        part = self._folder / f"{response_id}{_UNFINISHED}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.touch(mode=0o600)
            part.write_bytes(data)
            part.replace(self._path(response_id))
        except OSError as error:
            _remove(part)
            raise StorageFull(
                f"The response cannot be kept on disk: {error.strerror}.",
                hint=f"Free some space on the disk that holds {self._folder}, or ask with store "
                "false.",
                retry_after=30,
            ) from error

    def _files(self) -> Sequence[tuple[Path, int]]:
        """All that are there with their sizes in bytes, the oldest first."""
        found: list[tuple[float, Path, int]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # It has gone meanwhile.
                continue
            found.append((status.st_mtime, path, status.st_size))
        return [(path, size) for _, path, size in sorted(found)]


def _remove(path: Path) -> None:
    with suppress(OSError):  # It has gone, or cannot be: the next time will tell.
        path.unlink()
