"""`exo doctor`: each check, and the report."""

import json
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exo import __version__
from exo.cli import doctor, doctor_network

from .conftest import Exo
from .fake_api import DEVICE, FakeApi


class FakeProbe:
    """Stands for `subprocess.run`: of the probe, and of the system's tools by their names."""

    def __init__(self, code: int = 0, out: str = "", err: str = "", slow: bool = False) -> None:
        self.result = subprocess.CompletedProcess([], code, out, err)
        self.slow = slow
        self.command: list[str] = []
        self.tools: dict[str, str] = {"timedatectl": "yes\n"}

    def __call__(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[0] != sys.executable:
            said = self.tools.get(Path(command[0]).name)
            return subprocess.CompletedProcess([], 0 if said is not None else 1, said or "", "")
        self.command = list(command)
        if self.slow:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return self.result


def use_probe(monkeypatch: pytest.MonkeyPatch, probe: FakeProbe) -> FakeProbe:
    monkeypatch.setattr("subprocess.run", probe)
    return probe


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch, home: Path) -> FakeProbe:
    """A device on which all is well, and exo is not running."""
    monkeypatch.setenv("EXO_PORT", "0")
    monkeypatch.setenv("EXO_P2P_PORT", "0")
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor, "utc_now", lambda: datetime(2026, 11, 23, 10, tzinfo=UTC))
    monkeypatch.setattr(doctor_network, "UFW", home / "no-ufw")
    interfaces = [{"name": "eth0", "addresses": ["10.0.0.1", "fd00::1"]}]
    monkeypatch.setattr(doctor_network, "local_interfaces", lambda: interfaces)
    usage = namedtuple("Usage", "total used free")(0, 0, 500 * 1024**3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    model = home / "data" / "models" / "exo-demo"
    model.mkdir(parents=True)
    (model / "config.json").touch()
    return use_probe(monkeypatch, FakeProbe(out=json.dumps(DEVICE)))


def test_a_healthy_device(exo: Exo, good: FakeProbe, home: Path) -> None:
    python = ".".join(map(str, sys.version_info[:3]))

    result = exo("doctor")

    assert result.code == 0
    assert result.out == (
        f"✓ exo: {__version__}\n"
        f"✓ Python: {python}\n"
        "✓ platform: Linux x86_64\n"
        "✓ MLX: 0.32.2 on Test CPU (cpu): 150 GFLOP/s float32, 20 GFLOP/s bfloat16, "
        "memory 40 GB/s\n"
        "✓ CPU kernels: avx512vnni\n"
        "✓ clock: 2026-11-23 10:00:00 UTC, synchronised\n"
        "✓ settings: defaults and environment\n"
        f"✓ folders: {home}/data and {home}/state are writable\n"
        f"✓ models: 1 model in {home}/data/models\n"
        f"✓ disk: 500.0 GiB free at {home}/data/models\n"
        "✓ port: 127.0.0.1, port 0 is free\n"
        "✓ p2p port: every address, port 0 is free\n"
        "✓ interfaces: eth0 (10.0.0.1, fd00::1)\n"
        "- discovery: whether multicast works shows once exo is running\n"
        "✓ firewall: none that exo knows is active\n"
    )
    assert good.command[:4] == [sys.executable, "-P", "-m", "exo.probe"]
    report = exo("doctor", "--json").json()
    assert report["ok"] is True
    assert report["checks"][0] == {
        "name": "exo",
        "verdict": "ok",
        "detail": __version__,
        "hint": None,
    }


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        (FakeProbe(1, '{"error": "ImportError: libmlx.so"}'), "ImportError: libmlx.so"),
        (FakeProbe(slow=True), "no answer within 60 s"),
        (FakeProbe(-11), "the probe ended with code -11: no output"),
        (FakeProbe(1, "", "a\nNo module named mlx\n"), "code 1: No module named mlx"),
    ],
)
def test_a_backend_that_does_not_work(
    exo: Exo, good: FakeProbe, monkeypatch: pytest.MonkeyPatch, probe: FakeProbe, problem: str
) -> None:
    use_probe(monkeypatch, probe)

    result = exo("doctor")

    assert result.code == 1
    assert f"{problem}\n  Install exo with one backend" in result.out
    assert "✗ MLX: " in result.out


def test_warnings_are_not_failures(
    exo: Exo, good: FakeProbe, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    slow = {**DEVICE, "kernels": None, "no_kernels": "The CPU kernels are not used."}
    good.result.stdout = json.dumps(slow)
    usage = namedtuple("Usage", "total used free")(0, 0, 1024**3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    shutil.rmtree(home / "data" / "models" / "exo-demo")

    result = exo("doctor")

    assert result.code == 0
    assert "! CPU kernels: The CPU kernels are not used.\n  Models run on MLX's own" in result.out
    assert "! disk: 1.0 GiB free" in result.out
    assert "! models: there are none in " in result.out


def test_wrong_settings(exo: Exo, good: FakeProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXO_PORT", "many")

    result = exo("doctor")

    assert result.code == 1
    assert "✗ settings: The setting 'port' from EXO_PORT is wrong" in result.out


def test_folders_that_cannot_be_used(
    exo: Exo, good: FakeProbe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").touch()
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "other"))

    result = exo("doctor")

    assert result.code == 1
    assert "✗ folders: exo cannot write to " in result.out


def test_a_models_folder_that_is_not_there(
    exo: Exo, good: FakeProbe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXO_MODELS_DIR", str(tmp_path / "gone"))

    result = exo("doctor")

    assert result.code == 1
    assert f"✗ models: {tmp_path}/gone does not exist\n" in result.out


@pytest.mark.parametrize("name", ["port", "p2p port"])
def test_a_port_that_another_program_has(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        check = doctor.check_port(name, "127.0.0.1", port)

    assert (check.name, check.verdict) == (name, "fail")
    assert f"127.0.0.1, port {port} cannot be used" in check.detail
    assert check.hint.endswith(f"`exo start --{name.replace(' ', '-')}`.")


@pytest.fixture
def running(api: FakeApi, good: FakeProbe, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The same device, with exo running."""
    monkeypatch.setattr("exo.cli.local.is_running", lambda _: True)
    return api


def test_a_running_daemon_says_more(exo: Exo, running: FakeApi) -> None:
    result = exo("doctor")

    assert result.code == 0
    assert result.out.endswith(
        f"✓ port: exo is running at {running.url} (pid 4242)\n"
        "✓ p2p port: exo listens at /ip4/10.0.0.1/tcp/52416\n"
        "✓ interfaces: eth0 (10.0.0.1, fd00::1)\n"
        "✓ discovery: multicast works\n"
        "✓ firewall: none that exo knows is active\n"
        "✓ cluster: exo, 1 node, open\n"
        "✓ versions: 0.1.0 on every node\n"
    )


def test_a_running_daemon_that_does_not_answer(exo: Exo, running: FakeApi) -> None:
    running.failure = (500, {"error": {"message": "It broke.", "code": "internal_error"}})

    result = exo("doctor")

    assert result.code == 0
    assert "! daemon: It broke.\n" in result.out
    assert "- discovery: whether" in result.out


@pytest.mark.parametrize(
    ("year", "synchronised", "verdict", "detail"),
    [
        (2026, "yes", "ok", "2026-01-01 00:00:00 UTC, synchronised"),
        (2026, None, "ok", "2026-01-01 00:00:00 UTC"),
        (2026, "no", "warn", "2026-01-01 00:00:00 UTC, not synchronised with the network"),
        (1970, "yes", "warn", "1970-01-01 00:00:00 UTC is in the past"),
    ],
)
def test_the_clock(year: int, synchronised: str | None, verdict: str, detail: str) -> None:
    check = doctor.check_clock(datetime(year, 1, 1, tzinfo=UTC), synchronised)

    assert (check.verdict, check.detail) == (verdict, detail)


@pytest.mark.parametrize(
    ("system", "machine", "verdict"),
    [
        ("Linux", "x86_64", "ok"),
        ("Darwin", "arm64", "ok"),
        ("Darwin", "x86_64", "fail"),
        ("Windows", "AMD64", "fail"),
    ],
)
def test_platforms(system: str, machine: str, verdict: str) -> None:
    assert doctor.check_platform(system, machine).verdict == verdict


def test_an_old_python() -> None:
    assert doctor.check_python((3, 10, 4)).verdict == "fail"
    assert doctor.check_python((3, 11, 0)).verdict == "ok"
