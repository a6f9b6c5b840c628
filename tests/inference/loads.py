"""What an engine that makes vectors is loaded with in tests."""

from pathlib import Path
from typing import Any

from exo.inference.messages import Load


def load_of(folder: Path, **fields: Any) -> Load:
    """All three layers of a tiny model."""
    settings = {
        "path": folder,
        "start_layer": 0,
        "end_layer": 3,
        "context_length": 32,
        "max_concurrency": 1,
        "max_queue": 1,
        "kv_tokens": 1000,
        "kv_bytes_per_token": 768,
        "prefix_cache_bytes": 0,
        "cast_float32": True,
    }
    return Load.model_validate({**settings, **fields})
