"""Keeps what transformers finds out about itself at every start.

Its import reads the sources of all its models, a few thousand files, to know what each of them
defines, and does so twice: most of the time that it takes. What it found is kept beside its
compiled modules, as those are for as long as their source is the same.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE = "transformers.utils.import_utils"
_SCAN = "define_import_structure"
# The folder of all models; those of single ones are in it.
_ALL = "models"
# What is looked for: by what they need, the modules and what they define.
Index = dict[frozenset[str], dict[str, set[str]]]
Scan = Callable[..., Index]


def keep_index() -> None:
    """Have transformers, when it is imported, scan its models only once for each installation."""
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if scan := getattr(module, _SCAN, None):
            setattr(module, _SCAN, kept(scan))


def kept(scan: Scan) -> Scan:
    """The scan, of which that of all models is kept in a file. One that cannot be read, or is of
    other sources, is made again; one that cannot be written is not."""

    def scan_once(module_path: Any, prefix: str | None = None) -> Index:
        folder = Path(module_path)
        if folder.name == "__init__.py":
            folder = folder.parent
        if folder.name != _ALL:
            return scan(module_path, prefix)
        file = folder.parent / "__pycache__" / f"{_ALL}.{prefix or 'bare'}.exo.json"
        stamp = [_stamp(folder), _stamp(folder.parent / "__init__.py")]
        try:
            held = json.loads(file.read_bytes())
            if held["of"] == stamp:
                return _from_json(held["index"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            pass
        found = scan(module_path, prefix)
        if not sys.dont_write_bytecode:
            with contextlib.suppress(OSError):
                _write(file, {"of": stamp, "index": _to_json(found)})
        return found

    return scan_once


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]


def _to_json(index: Index) -> list[list[Any]]:
    return [
        [sorted(needs), {name: sorted(defined) for name, defined in modules.items()}]
        for needs, modules in index.items()
    ]


def _from_json(rows: list[tuple[list[str], Mapping[str, list[str]]]]) -> Index:
    return {
        frozenset(needs): {name: set(defined) for name, defined in modules.items()}
        for needs, modules in rows
    }


def _write(file: Path, content: object) -> None:
    """In one step: several runners start at the same time."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
