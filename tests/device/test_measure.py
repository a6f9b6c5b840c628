"""`measure`: one real child process, then fakes of it that fail in every way seen or feared."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from exo.device.measure import cached, measure
from exo.device.profile import DTYPES, DeviceProfile
from exo.errors import EngineError

PROFILE = DeviceProfile(
    kind="cpu",
    name="A CPU",
    cores=2,
    memory_total=2**34,
    flops=dict.fromkeys(DTYPES, 1e9),
    memory_bandwidth=2e10,
    os="Linux 6.1 x86_64",
    python="3.11.2",
    mlx="0.32.2",
    measured_at="2026-11-23T12:00:00+00:00",
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "device.json"


def fake(folder: Path, script: str) -> str:
    """A stand-in for Python, which does `script` whatever it is asked to run."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def answer(folder: Path, profile: DeviceProfile = PROFILE) -> str:
    return fake(folder, f"echo '{profile.model_dump_json()}'")


def run(cache: Path, **options: Any) -> DeviceProfile:
    return asyncio.run(measure(cache, **options))


def test_real_mlx(cache: Path, tmp_path: Path) -> None:
    profile = run(cache)
    assert profile.kind in {"cpu", "metal", "cuda"}
    assert profile.name
    assert set(profile.flops) - {"quantized"} == set(DTYPES)
    # Without kernels the reason is told.
    assert (profile.kernels is None) == (profile.no_kernels is not None or profile.kind != "cpu")
    assert all(value > 0 for value in profile.flops.values())
    assert profile.memory_bandwidth > 0
    assert 2**28 < profile.memory_total <= psutil.virtual_memory().total or profile.kind == "cuda"
    assert cached(cache) == profile
    assert run(cache, executable=fake(tmp_path, "exit 9")) == profile


def test_refresh_measures_again(cache: Path, tmp_path: Path) -> None:
    run(cache, executable=answer(tmp_path))
    other = PROFILE.model_copy(update={"memory_bandwidth": 5e10})
    assert run(cache, refresh=True, executable=answer(tmp_path, other)) == other
    assert cached(cache) == other
    assert [path.name for path in cache.parent.iterdir()] == ["device.json"]


def test_noise_before_the_answer(cache: Path, tmp_path: Path) -> None:
    script = f"echo 'a library says hello'; echo '{PROFILE.model_dump_json()}'"
    assert run(cache, executable=fake(tmp_path, script)) == PROFILE


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'no memory' >&2; exit 3", "exit status 3. no memory."),
        ("kill -SEGV $$", "ended by SIGSEGV."),
        ('echo \'{"error": "ImportError: libcuda.so.1"}\'; exit 1', "ImportError: libcuda.so.1."),
        ("echo garbage", "not readable"),
        ("true", "not readable"),
        ("echo '{}'", "not readable"),
        (f"echo '{PROFILE.model_dump_json().replace('1000000000.0', 'NaN')}'", "not readable"),
        ("head -c 100000 /dev/urandom", "not readable"),
    ],
)
def test_child_fails(cache: Path, tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        run(cache, executable=fake(tmp_path, script))
    assert message in caught.value.message
    assert not cache.exists()


def test_no_python(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="did not start"):
        run(cache, executable=str(tmp_path / "nothing"))


def test_a_hanging_child_is_killed(cache: Path, tmp_path: Path) -> None:
    before = psutil.Process().children()
    with pytest.raises(EngineError, match=r"longer than 0\.2 s"):
        run(cache, executable=fake(tmp_path, "exec sleep 600"), limit=0.2)
    assert psutil.Process().children() == before


async def test_cancelling_kills_the_child(cache: Path, tmp_path: Path) -> None:
    before = psutil.Process().children()
    task = asyncio.create_task(measure(cache, executable=fake(tmp_path, "exec sleep 600")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.2)
    assert psutil.Process().children() == before


def test_the_environment_of_runners(cache: Path, tmp_path: Path) -> None:
    text = PROFILE.model_dump_json().replace("A CPU", "'$CPU'")
    executable = fake(tmp_path, f"echo '{text}'")
    assert run(cache, environment={"CPU": "One"}, executable=executable).name == "One"
    assert run(cache, environment={"CPU": "Two"}, executable=executable).name == "Two"
    assert cached(cache, {"CPU": "Two"}) is not None
    assert cached(cache) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "\0\xff", '{"format": 2'])
def test_a_damaged_cache_is_measured_again(cache: Path, tmp_path: Path, damage: str) -> None:
    cache.parent.mkdir()
    cache.write_text(damage)
    assert cached(cache) is None
    assert run(cache, executable=answer(tmp_path)) == PROFILE
    assert cached(cache) == PROFILE


@pytest.mark.parametrize("field", ["exo", "mlx", "machine", "cpu", "cores", "gpu", "memory_gib"])
def test_a_cache_of_another_machine(cache: Path, tmp_path: Path, field: str) -> None:
    run(cache, executable=answer(tmp_path))
    content = json.loads(cache.read_text())
    content["fingerprint"][field] = "another"
    cache.write_text(json.dumps(content))
    assert cached(cache) is None


def test_a_cache_of_another_format(cache: Path, tmp_path: Path) -> None:
    run(cache, executable=answer(tmp_path))
    cache.write_text(cache.read_text().replace('"format": 1', '"format": 2'))
    assert cached(cache) is None


def test_a_cache_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "device.json"
    assert run(cache, executable=answer(tmp_path)) == PROFILE
    assert "cannot be written" in caplog.text


def test_only_the_child_imports_mlx() -> None:
    code = """
import sys, exo.device.measure, exo.device.memory, exo.probe
sys.exit("mlx" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
