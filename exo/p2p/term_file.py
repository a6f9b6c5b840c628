"""The highest term that this node has seen, on disk: it must never take part in an older one."""

import json
import logging
from pathlib import Path

from exo.errors import HomeError
from exo.p2p.files import write_private
from exo.p2p.term import Term

FORMAT = 1

log = logging.getLogger(__name__)


class TermFile:
    """`{"format": 1, "term": {"number": …, "master_id": …}}`, written anew in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Term | None:
        """The term, None before the first. A damaged file is moved aside, not deleted.

        Raises:
            HomeError: the file cannot be read.
        """
        try:
            data = json.loads(self._path.read_text("utf-8"))
            return Term.model_validate(data["term"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeError(f"{self._path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError):
            aside = self._path.with_suffix(".damaged")
            log.warning("%s is damaged; it is kept as %s.", self._path, aside)
            self._path.replace(aside)
            return None

    def save(self, term: Term) -> None:
        """Return when the term is on the disk.

        Raises:
            HomeError: it cannot be written.
        """
        try:
            write_private(self._path, json.dumps({"format": FORMAT, "term": term.model_dump()}))
        except OSError as error:
            raise HomeError(
                f"The term of the master cannot be written to {self._path}: {error.strerror}.",
                hint="Free some space on that disk.",
            ) from error
