"""What all ranks of an image model must have in common, for their blocks to be of one model."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from exo import __version__
from exo.inference.mlx.facts import sample


def facts(folder: Path, variant: str, plan: str) -> dict[str, str]:
    """Versions, plan, variant and a fingerprint of the model in `folder`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*/*.safetensors")):
        digest.update(path.parent.name.encode())
        sample(path, digest)
    return {
        "exo": __version__,
        "mlx": version("mlx"),
        "mflux": version("mflux"),
        "variant": variant,
        "layers": plan,
        "weights": digest.hexdigest(),
    }
