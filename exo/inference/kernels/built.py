"""What was built, and whether it fits this environment."""

import hashlib
import importlib.metadata
import json
import sysconfig
from pathlib import Path
from typing import TypedDict

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "cpp"
LIBRARY = "_kernels.so"
RECORD = "built.json"


class Record(TypedDict):
    """Of what a library was built: MLX's version, Python's ABI, a hash of the sources."""

    mlx: str
    python: str
    sources: str


def source_hash() -> str:
    """A hash of everything in `cpp/`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def kernels_state() -> str:
    """Which kernels there are to be used, or why none: changes if that does."""
    return why_not() or source_hash()


def why_not(folder: Path = FOLDER) -> str | None:
    """Why the library in `folder` cannot be used; None if it can."""
    if not (folder / LIBRARY).exists():
        return "they are not built"
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return "their build was broken off"
    mlx = importlib.metadata.version("mlx")
    if record.get("mlx") != mlx:
        return f"they were built for MLX {record.get('mlx')}, and this is {mlx}"
    if record.get("python") != sysconfig.get_config_var("EXT_SUFFIX"):
        return "they were built for another Python"
    if record.get("sources") != source_hash():
        return "their sources have changed since they were built"
    return None
