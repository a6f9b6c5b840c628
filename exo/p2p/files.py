"""Small files that must be whole, and private to the user."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a file anew in one step (0600) and return when it is on the disk.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
