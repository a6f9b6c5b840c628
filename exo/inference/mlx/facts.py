"""What all ranks of an instance must have in common, or their layers would not be of one model."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from exo import __version__

# Bytes that are read of each file of weights, evenly spread: two versions of a model differ
# everywhere, and whole files would take minutes to read.
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def facts(folder: Path, plan: str) -> dict[str, str]:
    """Versions, plan and a fingerprint of the model in `folder`."""
    return {
        "exo": __version__,
        "mlx": version("mlx"),
        "mlx-lm": version("mlx-lm"),
        "layers": plan,
        "weights": fingerprint(folder),
    }


def fingerprint(folder: Path) -> str:
    """A hash over the config and samples of the weights, the same wherever the files lie.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("model*.safetensors")):
        sample(path, digest)
    return digest.hexdigest()


def sample(path: Path, digest: "hashlib.blake2b") -> None:
    """Take a file's name, its size and some of its bytes into a hash.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest.update(f"{path.name} {size}".encode())
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
