"""Where the kernels cannot be built or used, exo says why and goes on without."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from exo.errors import KernelsUnavailable
from exo.inference.kernels import build, built, library
from exo.inference.kernels.library import Library


@pytest.fixture
def record(tmp_path: Path, kernels: Library) -> dict[str, str]:
    """A copy of what was built lies in `tmp_path`."""
    for name in (built.LIBRARY, built.RECORD):
        (tmp_path / name).write_bytes((built.FOLDER / name).read_bytes())
    return json.loads((tmp_path / built.RECORD).read_text())


def test_what_was_built_here_fits(tmp_path: Path, record):
    assert built.why_not(tmp_path) is None


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("mlx", "built for MLX 0.1.0"),
        ("python", "for another Python"),
        ("sources", "their sources have changed"),
    ],
)
def test_what_was_built_for_something_else_is_not_loaded(tmp_path: Path, record, field, reason):
    (tmp_path / built.RECORD).write_text(json.dumps({**record, field: "0.1.0"}))
    with pytest.raises(KernelsUnavailable, match=reason) as caught:
        library.load(tmp_path)
    assert "install.sh" in str(caught.value.hint)


def test_nothing_built_and_a_broken_build(tmp_path: Path, record):
    (tmp_path / built.RECORD).write_text("{")
    assert built.why_not(tmp_path) == "their build was broken off"
    (tmp_path / built.LIBRARY).unlink()
    assert built.why_not(tmp_path) == "they are not built"


def test_a_library_that_is_none(tmp_path: Path, record):
    (tmp_path / built.LIBRARY).write_bytes(b"no library")
    with pytest.raises(KernelsUnavailable, match="do not fit this MLX"):
        library.load(tmp_path)


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [
        ("avx2 fma f16c", {"avx512", "avx512vnni", "avx512amx"}),
        ("avx2 avx512f avx512bw avx512vl", {"avx512", "avx512vnni", "avx512amx"}),
        ("avx2 avx512f avx512bw avx512vl avx512dq", {"avx512vnni", "avx512amx"}),
        ("avx512f avx512bw avx512vl avx512dq avx512_vnni amx_bf16", {"avx512amx"}),
        ("avx512f avx512bw avx512vl avx512dq avx512_vnni amx_bf16 amx_int8 amx_tile", set[str]()),
    ],
)
def test_only_what_the_processor_has_is_compiled(flags: str, lacks: set[str]):
    assert build.lacking(f"model name\t: one\nflags\t\t: fpu {flags}\n") == lacks


def test_where_nothing_is_known_of_the_processor_all_is_compiled():
    assert build.lacking(None) == set()


def test_what_this_processor_does_not_have_could_be_compiled_too(kernels: Library):
    compiler, source = build.find_compiler(), built.SOURCES / "isa.cpp"
    for name, flags in build.instruction_sets(compiler).items():
        command = [compiler, "-std=c++20", *flags, f"-DEXO_ISA={name}", "-fsyntax-only", source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_they_can_be_turned_off_and_chosen(monkeypatch: pytest.MonkeyPatch, kernels: Library):
    monkeypatch.setenv("EXO_KERNELS", "off")
    with pytest.raises(KernelsUnavailable, match="EXO_KERNELS=off"):
        library.load()
    monkeypatch.setenv("EXO_KERNELS", "sse")
    with pytest.raises(KernelsUnavailable, match="cannot execute 'sse' kernels"):
        library.load()
    monkeypatch.delenv("EXO_KERNELS")
    assert built.kernels_state() == built.source_hash()
    assert library.load().name()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(KernelsUnavailable, match=r"no C\+\+ compiler") as caught:
        build.build(tmp_path)
    assert "apt install g++" in str(caught.value.hint)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Tiles are an extension of x86.")
def test_a_compiler_that_does_not_know_tiles_compiles_what_it_knows(tmp_path: Path):
    compiler = tmp_path / "old"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-mamx*) exit 1;; esac\n')
    compiler.chmod(0o755)
    assert set(build.instruction_sets(str(compiler))) == {"avx2", "avx512", "avx512vnni"}
    assert "avx512amx" in build.instruction_sets("true")


def test_a_compiler_that_fails_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record, capsys: pytest.CaptureFixture[str]
):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(KernelsUnavailable, match="could not be compiled"):
        build.build(tmp_path)
    assert "no space left" in capsys.readouterr().err
    assert built.why_not(tmp_path) is None


def test_a_runner_without_kernels_computes_with_mlx(kernels: Library):
    """And says so in its log; with them it says which."""
    code = (
        "import logging, mlx.core as mx; logging.basicConfig(level='INFO', format='%(message)s');"
        "mx.set_default_device(mx.cpu);"
        "from exo.inference.kernels.use import use_kernels; print(use_kernels() is None)"
    )
    said = {}
    for wanted in ("off", ""):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "EXO_KERNELS": wanted},
            capture_output=True,
            text=True,
            check=True,
        )
        said[wanted] = (done.stdout.strip(), done.stderr)
    assert said["off"][0] == "True"
    assert "off (EXO_KERNELS=off)" in said["off"][1]
    assert said[""][0] == "False"
    assert f"CPU kernels: {kernels.name()}" in said[""][1]


def test_threads_are_as_many_as_cores(kernels: Library):
    for threads in (1, 3, 2):
        kernels.set_threads(threads)
        assert kernels.threads() == threads
        assert mx.sum(kernels.gated(mx.ones(100_000), mx.ones(100_000))).item() > 70_000
