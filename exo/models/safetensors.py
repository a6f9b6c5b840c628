"""The headers of safetensors files: what is in a file, without reading it.

The format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header with
the offsets of each tensor, then the data).
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from exo.errors import ModelInvalid

_MAX_HEADER = 100_000_000


class Entry(NamedTuple):
    """One tensor: its type as the format calls it (`BF16`, `U32`), its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file by name, and what its writer says of it."""

    tensors: dict[str, Entry]
    metadata: dict[str, Any]


def read_header(file: Path) -> Header:
    """The header of a file, having checked that the file is as long as it says.

    Raises:
        ModelInvalid: the file cannot be read, is cut short, or is none of these.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 0 < length <= min(_MAX_HEADER, size - 8):
                raise invalid(file, "it is cut short or no safetensors file")
            raw: Any = json.loads(stream.read(length))
    except OSError as error:
        raise invalid(file, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise invalid(file, "its header is damaged") from error
    if not isinstance(raw, dict):
        raise invalid(file, "its header is damaged")
    header, end = _parse(file, cast("dict[str, Any]", raw))
    if size != 8 + length + end:
        raise invalid(file, f"it has {size} bytes where its header says {8 + length + end}")
    return header


def _parse(file: Path, raw: dict[str, Any]) -> tuple[Header, int]:
    """The header, and how many bytes of data it speaks of."""
    tensors: dict[str, Entry] = {}
    end = 0
    for name, entry in raw.items():
        if name == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            shape = tuple(int(n) for n in entry.get("shape", ()))
            tensors[name] = Entry(str(entry["dtype"]), shape, int(last) - int(first))
            end = max(end, int(last))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise invalid(file, f"its header is damaged at {name}") from error
    said: Any = raw.get("__metadata__")
    return Header(tensors, cast("dict[str, Any]", said) if isinstance(said, dict) else {}), end


def invalid(path: Path, reason: str) -> ModelInvalid:
    """The error of a model whose files are not what they should be."""
    return ModelInvalid(
        f"The model at {path} cannot be used: {reason}.",
        hint="Copy or download it again.",
    )
