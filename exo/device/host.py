"""What is known of this machine without MLX: its names, and what a measurement is valid for."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from exo import __version__

# With `mlx` comes one of these; the same version of another one computes on another device.
_MLX_PACKAGES = ("mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")


def cores() -> int:
    """CPU cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computes_on_cpu() -> bool:
    """Whether the MLX that is installed knows no other device: then nothing need be measured to
    know what computes."""
    others = [name for name in _MLX_PACKAGES if name not in {"mlx", "mlx-cpu"}]
    return sys.platform == "linux" and not any(_version(name) for name in others)


def os_name() -> str:
    """Such as `Linux 6.1 x86_64` or `macOS 15.5 arm64`."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    release = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {release} {platform.machine()}"


def cpu_name() -> str:
    """Such as `AMD EPYC 9554` or `Apple M3 Max`; the architecture if the system does not say."""
    if sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string")
    else:
        fields = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
        name = next((value for key, _, value in fields if key.strip() == "model name"), "")
        # Arm's cpuinfo has no names; small boards tell theirs here, with a zero byte at the end.
        name = name or _read("/proc/device-tree/model").rstrip("\0")
    return " ".join(name.split()) or platform.machine()


def fingerprint() -> dict[str, str]:
    """All that a measurement depends on, as far as it can be read without measuring."""
    packages = [f"{name} {found}" for name in _MLX_PACKAGES if (found := _version(name))]
    return {
        "exo": __version__,
        "mlx": ", ".join(packages),
        "python": platform.python_version(),
        "os": os_name(),
        "machine": _machine(),
        "cpu": cpu_name(),
        "cores": str(cores()),
        "memory_gib": str(round(psutil.virtual_memory().total / 2**30)),
        "gpu": _nvidia_cards(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }


def _machine() -> str:
    """An id of this machine; hashed, as systemd asks of programs that store its machine id."""
    identity = _read("/etc/machine-id").strip() or platform.node()
    return hashlib.sha256(f"exo {identity}".encode()).hexdigest()[:16]


def _nvidia_cards(folder: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    try:
        files = sorted(card / "information" for card in folder.iterdir())
    except OSError:
        return ""
    lines = [line for file in files for line in _read(str(file)).splitlines()]
    wanted = [line.split(":", 1)[1] for line in lines if line.startswith(("Model:", "GPU UUID:"))]
    return ", ".join(" ".join(value.split()) for value in wanted)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sysctl(name: str) -> str:
    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=5
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
