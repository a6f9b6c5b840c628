"""Where pictures are written, so that none is lost: names from the prompt, and no file is
overwritten unless it is asked for."""

import re
import unicodedata
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from exo.errors import HomeError, RequestError

STDOUT = "-"
_LONGEST = 48
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(frozen=True)
class Target:
    """What `-o` and `--format` say together. `path` None is stdout; `chosen` is whether the user
    named the file."""

    path: Path | None
    format: str
    chosen: bool
    force: bool = False

    def paths(self, n: int) -> list[Path]:
        """Where `n` pictures go.

        Raises:
            RequestError: a file is there that may not be overwritten.
        """
        if self.path is None:
            return []
        if not self.chosen:
            names = (self._numbered(n, number) for number in count(1))
            return next(paths for paths in names if not any(path.exists() for path in paths))
        paths = [self.path] if n == 1 else [_with_number(self.path, i + 1) for i in range(n)]
        for path in paths:
            if path.exists() and not self.force:
                raise RequestError(f"{path} is there already.", hint="--force overwrites it.")
        return paths

    def _numbered(self, n: int, number: int) -> list[Path]:
        assert self.path is not None  # noqa: S101  the caller looked
        base = self.path if number == 1 else _with_number(self.path, number)
        return [base] if n == 1 else [_with_number(base, i + 1) for i in range(n)]

    def write(self, path: Path, data: bytes) -> None:
        """Write a picture, whole or not at all.

        Raises:
            RequestError: somebody else has written that file meanwhile.
            HomeError: it cannot be written.
        """
        try:
            file = path.open("wb" if self.force else "xb")
        except FileExistsError as error:
            raise RequestError(f"{path} is there by now.", hint="--force overwrites it.") from error
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            with file:
                file.write(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _unwritable(path, error) from error


def target(out: str | None, form: str | None, prompt: str, *, force: bool) -> Target:
    """
    Raises:
        RequestError: the file's name and the format do not agree, or there is no such folder.
    """
    if out == STDOUT:
        return Target(None, form or "png", chosen=True)
    given = Path(out).expanduser() if out else None
    if given is None or given.is_dir():
        name = f"{slug(prompt)}{_SUFFIXES[form or 'png']}"
        return Target((given or Path()) / name, form or "png", chosen=False)
    meant = _FORMATS.get(given.suffix.lower())
    if form and meant and meant != form:
        raise RequestError(f"{given} is the name of a {meant}, and --format says {form}.")
    if not given.parent.is_dir():
        raise RequestError(f"There is no folder {given.parent}.")
    return Target(given, form or meant or "png", chosen=True, force=force)


def slug(prompt: str) -> str:
    """'A cat, sleeping.' -> 'a-cat-sleeping'; no longer than a file's name should be."""
    plain = unicodedata.normalize("NFC", prompt).lower()
    words = re.findall(r"\w+", plain.replace("'", ""))
    name = ""
    for word in words:
        if len(name) + len(word) >= _LONGEST:
            break
        name += f"-{word}" if name else word
    return name or (words[0][:_LONGEST] if words else "picture")


def _unwritable(path: Path, error: OSError) -> HomeError:
    return HomeError(f"{path} cannot be written: {error.strerror}.")


def _with_number(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")
