"""Names of this machine, on systems that tell more or less."""

import platform
from pathlib import Path

import pytest

from exo.device import host
from exo.device.host import cores, cpu_name, fingerprint, os_name

INTEL = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R)  CPU @ 2.00GHz\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU part\t: 0xd0b\n"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"/proc/cpuinfo": INTEL}, "Intel(R) Xeon(R) CPU @ 2.00GHz"),
        (
            {"/proc/cpuinfo": ARM, "/proc/device-tree/model": "Raspberry Pi 5 Model B\0"},
            "Raspberry Pi 5 Model B",
        ),
        ({"/proc/cpuinfo": ARM}, platform.machine()),
        ({}, platform.machine()),
    ],
)
def test_cpu_name(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], name: str) -> None:
    monkeypatch.setattr(host.sys, "platform", "linux")
    monkeypatch.setattr(host, "_read", lambda path: files.get(path, ""))
    assert cpu_name() == name


def test_os_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.sys, "platform", "linux")
    monkeypatch.setattr(host.platform, "system", lambda: "Linux")
    monkeypatch.setattr(host.platform, "release", lambda: "6.1.0-18-amd64")
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    assert os_name() == "Linux 6.1 x86_64"
    monkeypatch.setattr(host.sys, "platform", "darwin")
    monkeypatch.setattr(host.platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    monkeypatch.setattr(host.platform, "machine", lambda: "arm64")
    assert os_name() == "macOS 15.5 arm64"


def test_cores() -> None:
    assert cores() >= 1


def test_the_fingerprint_is_steady_and_names_no_secret() -> None:
    found = fingerprint()
    assert found == fingerprint()
    assert found["mlx"].startswith("mlx 0.")
    if (machine_id := Path("/etc/machine-id")).exists() and machine_id.read_text().strip():
        assert machine_id.read_text().strip() not in str(found)


def test_cards_are_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert host._nvidia_cards(tmp_path) == ""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text(
        "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 95\nGPU UUID: \t GPU-1\n"
    )
    assert host._nvidia_cards(tmp_path) == "NVIDIA GeForce RTX 4090, GPU-1"
