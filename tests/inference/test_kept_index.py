"""What transformers finds out about itself is kept, and is what it would find out again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exo.inference.runner.kept_index import kept

FOUND = {frozenset[str](): {"models.a.b": {"A", "B"}}, frozenset({"torch"}): {"models.a.c": {"C"}}}


class Scan:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def __call__(self, module_path: Any, prefix: str | None = None) -> Any:
        self.asked.append((module_path, prefix))
        return FOUND


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "__init__.py").write_text("")
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("path", "prefix"), [(".", "models"), ("__init__.py", None)])
def test_the_models_are_scanned_once(models: Path, path: str, prefix: str | None):
    scan = Scan()
    assert kept(scan)(models / path, prefix) == FOUND
    again = kept(scan)(models / path, prefix)
    assert again == FOUND
    assert len(scan.asked) == 1
    again[frozenset()]["models.more"] = set()
    assert kept(scan)(models / path, prefix) == FOUND


def test_with_and_without_a_prefix_they_are_not_the_same(models: Path):
    scan = Scan()
    for _ in range(2):
        kept(scan)(models, "models")
        kept(scan)(models / "__init__.py")
    assert scan.asked == [(models, "models"), (models / "__init__.py", None)]


def test_other_sources_are_scanned_anew(models: Path):
    scan = Scan()
    kept(scan)(models, prefix="models")
    (models.parent / "__init__.py").write_text("__version__ = '2'")
    kept(scan)(models, prefix="models")
    (models / "new").mkdir()
    os.utime(models, (1, 1))
    kept(scan)(models, prefix="models")
    assert len(scan.asked) == 3


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"of": OF}', '{"of": OF, "index": 3}', '{"of": OF, "index": [[[], 3]]}'],
)
def test_what_cannot_be_read_is_made_again(models: Path, content: str):
    scan = Scan()
    kept(scan)(models, prefix="models")
    (file,) = (models.parent / "__pycache__").iterdir()
    of = json.loads(file.read_text())["of"]
    file.write_text(content.replace("OF", json.dumps(of)))
    assert kept(scan)(models, prefix="models") == FOUND
    assert len(scan.asked) == 2


def test_a_folder_that_cannot_be_written_is_no_error(models: Path):
    (models.parent / "__pycache__").write_text("in the way")
    assert kept(Scan())(models, prefix="models") == FOUND


def test_nothing_is_kept_where_compiled_modules_are_not(
    models: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    kept(Scan())(models, prefix="models")
    assert not (models.parent / "__pycache__").exists()


def test_a_single_model_is_not_kept(models: Path):
    scan = Scan()
    kept(scan)(models / "a" / "__init__.py")
    assert scan.asked == [(models / "a" / "__init__.py", None)]
    assert not (models.parent / "__pycache__").exists()


def test_transformers_knows_the_same_of_itself_and_reads_little():
    """In processes of its own: with the real scan, and with what is kept of it, twice."""
    code = (
        "import sys; from exo.inference.runner.kept_index import keep_index\n"
        "read = []; sys.addaudithook(lambda event, about: event == 'open' and read.append(about))\n"
        "if sys.argv[1] == 'kept': keep_index()\n"
        "import transformers as t; from transformers import AutoTokenizer, LlamaConfig\n"
        "print(t.utils.import_utils.define_import_structure.__name__)\n"
        "print(sorted((k, sorted(v)) for k, v in t._import_structure.items()))\n"
        "print(sorted((k, sorted(v)) for k, v in t.models._import_structure.items()))\n"
        "print(sum(str(path).endswith('.py') for path, *_ in read))"
    )

    def run(way: str) -> tuple[list[str], int]:
        done = subprocess.run(
            [sys.executable, "-c", code, way], capture_output=True, text=True, check=True
        )
        *said, files = done.stdout.splitlines()
        return said, int(files)

    ((plain, *known), all_files), (first, _), (second, files) = (
        run("plain"),
        run("kept"),
        run("kept"),
    )
    assert plain == "define_import_structure"
    assert first == second == ["scan_once", *known]
    assert files < all_files / 20
