"""`exo doctor`: what stands in the way of `exo start`, and what to do about it."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from exo import __version__
from exo.cli import local
from exo.cli.checks import Check, ask_system, line
from exo.cli.client import JsonObject
from exo.cli.doctor_network import active_firewall, ask_daemon, network_checks
from exo.cli.output import JsonOption, bandwidth_text, bytes_text, count_text, flops_text, out
from exo.errors import ExoError

if TYPE_CHECKING:
    from exo.config import Paths, Settings

PROBE_TIMEOUT = 60.0
LOW_DISK = 10 * 1024**3
# No clock that is right shows an earlier year.
RELEASED = 2026
NTP_STATE = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
BACKEND_HINT = (
    "Install exo with one backend: exo[metal] on Apple silicon; exo[cpu], exo[cuda12] or "
    "exo[cuda13] on Linux."
)


class Probe(NamedTuple):
    """What the child that tries MLX said: the device, or why there is none."""

    device: JsonObject | None
    problem: str


def doctor(_json: JsonOption = False) -> None:
    """Check what exo needs on this device."""
    checks = list(all_checks())
    healthy = all(check.verdict != "fail" for check in checks)
    out.result(
        {"ok": healthy, "checks": [asdict(check) for check in checks]},
        lambda: "\n".join(map(line, checks)),
    )
    if not healthy:
        raise typer.Exit(1)


def all_checks() -> Iterator[Check]:
    """Every check, in the order of the report; each is done when it is asked for."""
    yield Check("exo", "ok", __version__)
    yield check_python(sys.version_info[:3])
    yield check_platform(platform.system(), platform.machine())
    probe = probe_device()
    yield check_mlx(probe)
    if probe.device and probe.device["kind"] == "cpu":
        yield check_kernels(probe.device)
    yield check_clock(utc_now(), ask_system(*NTP_STATE))
    paths = local.find_paths()
    try:
        from exo.config import load_settings  # noqa: PLC0415  not paid for by `exo --help`

        settings = load_settings(paths)
    except ExoError as error:
        yield Check("settings", "fail", error.message, error.hint)
        return
    yield Check("settings", "ok", _settings_source(paths))
    try:
        paths.prepare()
    except ExoError as error:
        yield Check("folders", "fail", error.message, error.hint)
        return
    yield Check("folders", "ok", f"{paths.data} and {paths.state} are writable")
    models = settings.models_dir or paths.models
    yield check_models(models)
    yield check_disk(models if models.is_dir() else paths.data)
    yield from _network(settings, paths)


def _network(settings: "Settings", paths: "Paths") -> Iterator[Check]:
    seen = None
    daemon = local.read_daemon(paths)
    if daemon and local.is_running(paths):
        yield Check("port", "ok", f"exo is running at {daemon.api} (pid {daemon.pid})")
        try:
            seen = ask_daemon()
        except ExoError as error:
            yield Check("daemon", "warn", error.message, error.hint)
        else:
            yield Check("p2p port", "ok", f"exo listens at {', '.join(seen.network['listening'])}")
    else:
        yield check_port("port", settings.host, settings.port)
        yield check_port("p2p port", settings.p2p_host, settings.p2p_port)
    yield from network_checks(seen, active_firewall(platform.system()), settings.p2p_port)


def check_python(version: tuple[int, ...]) -> Check:
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Check("Python", "ok", text)
    return Check("Python", "fail", f"{text} is too old", "Use Python 3.11 or newer.")


def check_platform(system: str, machine: str) -> Check:
    text = f"{system} {machine}"
    if system == "Linux" or (system, machine) == ("Darwin", "arm64"):
        return Check("platform", "ok", text)
    return Check("platform", "fail", text, "exo runs on Linux and on macOS with Apple silicon.")


def probe_device() -> Probe:
    """Try MLX in a child: where it is broken, it may crash or hang its process."""
    command = [sys.executable, "-P", "-m", "exo.probe", str(local.find_paths().cache)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "EXO_KERNELS": _kernels()},
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(None, f"no answer within {PROBE_TIMEOUT:.0f} s")
    try:
        said = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        return Probe(None, f"the probe ended with code {done.returncode}: {last[0]}")
    return Probe(said, "") if done.returncode == 0 else Probe(None, str(said.get("error")))


def _kernels() -> str:
    """The setting; what is wrong with settings is another check's business."""
    from exo.config import load_settings  # noqa: PLC0415  not paid for by `exo --help`

    try:
        return load_settings(local.find_paths()).kernels
    except ExoError:
        return "on"


def check_mlx(probe: Probe) -> Check:
    device = probe.device
    if not device:
        return Check("MLX", "fail", probe.problem, BACKEND_HINT)
    speeds = ", ".join(f"{flops_text(value)} {kind}" for kind, value in device["flops"].items())
    return Check(
        "MLX",
        "ok",
        f"{device['mlx']} on {device['name']} ({device['kind']}): {speeds}, "
        f"memory {bandwidth_text(device['memory_bandwidth'])}",
    )


def check_kernels(device: JsonObject) -> Check:
    """exo's own kernels, without which MLX computes on one core and with few vectors."""
    if device["kernels"]:
        return Check("CPU kernels", "ok", device["kernels"])
    return Check(
        "CPU kernels",
        "warn",
        device["no_kernels"] or "none are in use",
        "Models run on MLX's own kernels: right, but about 30 times slower.",
    )


def check_models(folder: Path) -> Check:
    try:
        count = sum(1 for config in folder.glob("*/config.json") if config.is_file())
    except OSError as error:
        return Check("models", "fail", f"{folder} cannot be read: {error.strerror}")
    if not folder.is_dir():
        return Check("models", "fail", f"{folder} does not exist", "Create it or set models_dir.")
    if not count:
        return Check(
            "models",
            "warn",
            f"there are none in {folder}",
            "Put model folders there (config.json with its .safetensors files).",
        )
    return Check("models", "ok", f"{count_text(count, 'model')} in {folder}")


def check_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{bytes_text(free)} free at {folder}"
    if free >= LOW_DISK:
        return Check("disk", "ok", text)
    return Check("disk", "warn", text, "Models take gigabytes: free some space or set models_dir.")


def check_clock(now: datetime, synchronised: str | None) -> Check:
    """A clock that is far off breaks downloads, and makes the logs of two nodes hard to compare."""
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now.year < RELEASED:
        return Check("clock", "warn", f"{text} is in the past", "Set the clock of this device.")
    if synchronised == "no":
        hint = "Turn that on with `sudo timedatectl set-ntp true`."
        return Check("clock", "warn", f"{text}, not synchronised with the network", hint)
    return Check("clock", "ok", f"{text}, synchronised" if synchronised == "yes" else text)


def utc_now() -> datetime:
    return datetime.now(UTC)


def check_port(name: str, host: str, port: int) -> Check:
    """While exo is not running, its ports must be free."""
    address = f"{host or 'every address'}, port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the daemon does: connections that are winding down do not take a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            flag = f"--{name.replace(' ', '-')}"
            return Check(
                name,
                "fail",
                f"{address} cannot be used: {error.strerror}",
                f"End the program that uses it, or choose another with `exo start {flag}`.",
            )
    return Check(name, "ok", f"{address} is free")


def _settings_source(paths: "Paths") -> str:
    return str(paths.config_file) if paths.config_file.is_file() else "defaults and environment"
