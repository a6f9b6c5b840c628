"""JSON in a model's folder."""

import json
from pathlib import Path
from typing import Any, cast

from exo.errors import ModelInvalid
from exo.models.safetensors import invalid


def read_json(path: Path, hint: str | None = None) -> dict[str, Any]:
    """The object in a file of a model.

    Raises:
        ModelInvalid: there is none; `hint` says what to do where the file is missing.
    """
    data = _load(path, hint)
    if not isinstance(data, dict):
        raise invalid(path, "it is no JSON object")
    return cast("dict[str, Any]", data)


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of the list in a file of a model.

    Raises:
        ModelInvalid: there is none.
    """
    data = _load(path, None)
    if not isinstance(data, list):
        raise invalid(path, "it is no list")
    return [as_dict(each) for each in cast("list[object]", data)]


def _load(path: Path, hint: str | None) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path} is missing.", hint=hint) from error
    except OSError as error:
        raise invalid(path, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise invalid(path, "it is no valid JSON") from error


def as_dict(value: object) -> dict[str, Any]:
    """JSON that is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
