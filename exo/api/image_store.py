"""Pictures that clients fetch by an address: files that live for an hour.

The folder is all there is: a file's name is its id and format, its time of change when it was
made. So a restart loses nothing, and no index can differ from the disk. Everything here blocks:
it is called in a thread.
"""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exo.errors import StorageFull

LIFETIME = 3600.0
_UNFINISHED = ".part"
_FORMATS = ("png", "jpeg", "webp")


@dataclass(frozen=True)
class StoredImage:
    """One file; `size` in bytes, `created` in seconds since the epoch."""

    image_id: str
    format: str
    path: Path
    size: int
    created: float

    @property
    def expires(self) -> float:
        return self.created + LIFETIME


class ImageStore:
    """The pictures in `folder`: at most `max_bytes` of them, the oldest go first."""

    def __init__(
        self, folder: Path, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def save(self, pictures: Sequence[bytes], form: str) -> list[str]:
        """Keep them all; their ids, which nobody can guess.

        Raises:
            StorageFull: they do not fit, on the disk or in what may be used of it.
        """
        needed = sum(map(len, pictures))
        if needed > self._max_bytes:
            raise StorageFull(
                f"The pictures take {needed} bytes, and only {self._max_bytes} may be used.",
                hint="Ask for b64_json, or raise the setting `images_mb`.",
            )
        with self._lock:
            self._make_room(needed)
            return [self._write(picture, form) for picture in pictures]

    def find(self, image_id: str) -> StoredImage | None:
        """The picture, unless its hour is over."""
        return next((one for one in self.all() if one.image_id == image_id), None)

    def all(self) -> list[StoredImage]:
        """The pictures that have not expired, the oldest first."""
        now = self._clock()
        return [one for one in self._files() if one.expires > now]

    def clean(self, *, unfinished: bool = False) -> float | None:
        """Remove what has expired; with `unfinished`, also what an earlier life did not finish.
        Seconds until the next one expires, None if there is none."""
        with self._lock:
            if unfinished:
                for file in self._folder.glob(f"*{_UNFINISHED}"):
                    _remove(file)
            now = self._clock()
            files = self._files()
            for one in files:
                if one.expires <= now:
                    _remove(one.path)
            return min((one.expires - now for one in files if one.expires > now), default=None)

    def _make_room(self, needed: int) -> None:
        files = self._files()
        used = sum(one.size for one in files)
        for one in files:
            if used + needed <= self._max_bytes:
                return
            _remove(one.path)
            used -= one.size

    def _write(self, picture: bytes, form: str) -> str:
        image_id = f"img-{secrets.token_hex(16)}"
        part = self._folder / f"{image_id}{_UNFINISHED}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(picture)
            part.replace(self._folder / f"{image_id}.{form}")
        except OSError as error:
            _remove(part)
            raise StorageFull(
                f"The picture cannot be kept on disk: {error.strerror}.",
                hint=f"Free some space on the disk that holds {self._folder}, or ask for b64_json.",
                retry_after=30,
            ) from error
        return image_id

    def _files(self) -> list[StoredImage]:
        """All that are there, the oldest first."""
        found: list[StoredImage] = []
        for form in _FORMATS:
            for path in self._folder.glob(f"*.{form}"):
                try:
                    status = path.stat()
                except FileNotFoundError:  # It has gone meanwhile.
                    continue
                made = StoredImage(path.stem, form, path, status.st_size, status.st_mtime)
                found.append(made)
        return sorted(found, key=lambda one: one.created)


def _remove(path: Path) -> None:
    with suppress(OSError):  # It has gone, or cannot be: the next time will tell.
        path.unlink()
