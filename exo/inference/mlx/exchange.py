"""What a layer leaves behind: the value it returns, and what it writes into objects it was given.

Every array in it has a path: where it came out, and how to get to it from there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx import nn

# The first step is the name or number of an argument, or None for what was returned.
Path = tuple[str | int | None, ...]


def is_record(value: object) -> bool:
    """Whether it is an object of the model's own that holds arrays: no module, class or function,
    and no cache."""
    return (
        hasattr(value, "__dict__")
        and type(value).__module__.startswith("mlx_lm.models.")
        and not isinstance(value, nn.Module | type)
        and not callable(value)
        and not hasattr(value, "state")
    )


def is_written_to(value: object) -> bool:
    """Whether a layer that is given this can leave something in it."""
    return isinstance(value, list | dict) or is_record(value)


def parts_of(value: object) -> list[tuple[str | int, Any]]:
    """What a container has in it, each with the step that leads there."""
    if isinstance(value, tuple | list):
        return list(enumerate(cast("Sequence[Any]", value)))
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).items())
    return list(vars(value).items()) if is_record(value) else []


def arrays_in(value: object, path: Path = ()) -> Iterator[tuple[Path, mx.array]]:
    """The arrays in nested containers, in order."""
    if isinstance(value, mx.array):
        yield path, value
        return
    for step, part in parts_of(value):
        yield from arrays_in(part, (*path, step))


def look_up(value: object, path: Path) -> Any:
    """What is at a path, or None."""
    for step in path:
        if isinstance(value, dict):
            value = cast("dict[Any, Any]", value).get(step)
        elif isinstance(value, tuple | list):
            value = cast("Sequence[Any]", value)[cast("int", step)]
        else:
            value = getattr(value, str(step), None)
    return value


def write(value: object, path: Path, new: object) -> None:
    """Put something at a path, in containers that can be written to."""
    *way, last = path
    container = look_up(value, tuple(way))
    if isinstance(container, list | dict):
        cast("dict[Any, Any]", container)[last] = new
    else:
        setattr(container, str(last), new)


@dataclass(frozen=True)
class Slot:
    """The place of an array."""

    path: Path


@dataclass(frozen=True)
class Given:
    """An argument, returned as it is."""

    name: str | int


@dataclass(frozen=True)
class Form:
    """A container, of the kind of `like`."""

    like: type[Any]
    parts: tuple[tuple[str | int, Any], ...]


def form_of(value: object, given: Mapping[str | int, object], path: Path = (None,)) -> Any:
    """How a returned value is built, with slots where its arrays are.

    Raises:
        TypeError: there is an object in it that exo would not know how to make again.
    """
    for name, argument in given.items():
        if argument is value and is_written_to(value):
            return Given(name)
    if isinstance(value, mx.array):
        return Slot(path)
    if is_record(value):
        raise TypeError(type(value).__name__)
    if isinstance(value, tuple | list | dict):
        container = cast("object", value)
        parts = [(step, form_of(part, given, (*path, step))) for step, part in parts_of(container)]
        return Form(type(container), tuple(parts))
    return value


def build(form: Any, fill: Callable[[Path], mx.array], given: Mapping[str | int, object]) -> Any:
    """A value of this form, with new arrays in its slots."""
    match form:
        case Slot():
            return fill(form.path)
        case Given():
            return given[form.name]
        case Form():
            parts = [(step, build(part, fill, given)) for step, part in form.parts]
            if issubclass(form.like, dict):
                return dict(parts)
            return form.like(part for _, part in parts)
        case _:
            return form


def slots_in(form: Any) -> Iterator[Path]:
    """The paths of a form's slots, in order."""
    if isinstance(form, Slot):
        yield form.path
    elif isinstance(form, Form):
        for _, part in form.parts:
            yield from slots_in(part)


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str | int, Any]:
    """The arguments of a call by number and name."""
    return {**dict(enumerate(args)), **kwargs}


class Reads(dict[Any, Any]):
    """A dict that notes which of its first entries are asked for before they are written."""

    def __init__(self, of: Mapping[Any, Any]) -> None:
        super().__init__(of)
        self.first = dict(of)
        self.read: set[Any] = set()
        self._written: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._written.add(key)
        super().__setitem__(key, value)

    def _note(self, key: Any) -> None:
        if key in self.first and key not in self._written:
            self.read.add(key)
