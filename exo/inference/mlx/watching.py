"""Which caches a model's code looks at, or changes, outside of its layers."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from exo.inference.mlx.adapter import Cache, CacheList


class Watch:
    """Notes in `read` and `written` the numbers of the caches that are used while not paused."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self.read: set[int] = set()
        self.written: set[int] = set()
        self._on = True
        self._numbers: dict[int, int] = {}
        for number, cache in enumerate(caches):
            self._add(cache, number)

    def number(self, value: object) -> int | None:
        """The number of the cache that a value is, or is part of."""
        return self._numbers.get(id(value))

    @contextmanager
    def paused(self) -> Generator[None]:
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def _add(self, cache: Cache, number: int) -> None:
        self._numbers[id(cache)] = number
        for part in cache.caches if isinstance(cache, CacheList) else ():
            self._add(part, number)
        cache.__class__ = self._watched(type(cache), number)

    def _watched(self, cls: Any, number: int) -> Any:
        def noted(into: set[int], method: str) -> Any:
            own = getattr(cls, method)

            def call(cache: Any, *args: Any) -> Any:
                if self._on:
                    into.add(number)
                return own(cache, *args)

            return call

        methods = {
            "__getattribute__": noted(self.read, "__getattribute__"),
            "__setattr__": noted(self.written, "__setattr__"),
        }
        if hasattr(cls, "__getitem__"):
            methods["__getitem__"] = noted(self.read, "__getitem__")
        if hasattr(cls, "__setitem__"):
            methods["__setitem__"] = noted(self.written, "__setitem__")
        return type(cls.__name__, (cls,), methods)
