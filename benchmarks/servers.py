"""The servers that are compared, each a real process started fresh."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def wait_until_ready(url: str, process: subprocess.Popen[bytes], limit: float = 120) -> None:
    """Ask until the server answers; it tells no one when it is ready."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310  an address of our own
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise TimeoutError(url)


# What is measured must not become a cluster with what else runs here.
ALONE = {"EXO_P2P_PORT": "0", "EXO_DISCOVERY": "false"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait(60)


@contextmanager
def exo(model: Path) -> Iterator[tuple[str, str]]:
    """(base URL, model id) of exo in a home of its own."""
    home, port = Path(tempfile.mkdtemp()), free_port()
    command = [sys.executable, "-m", "exo", "start", f"--port={port}"]
    base = f"http://127.0.0.1:{port}"
    try:
        with process(command, EXO_HOME=str(home), **ALONE) as running:
            wait_until_ready(f"{base}/readyz", running)
            body = json.dumps({"instance": {"model_id": str(model)}}).encode()
            request = urllib.request.Request(f"{base}/instance", body)  # noqa: S310
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                yield base, json.load(answer)["model_id"]
    finally:
        shutil.rmtree(home)


@contextmanager
def mlx_lm(model: Path, **environment: str) -> Iterator[tuple[str, str]]:
    """(base URL, model id) of `mlx_lm.server`."""
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", f"--model={model}", f"--port={port}"]
    with process([*command, "--log-level=ERROR"], **environment) as running:
        wait_until_ready(f"http://127.0.0.1:{port}/health", running)
        yield f"http://127.0.0.1:{port}", str(model)


def float32_copy(model: Path, folder: Path) -> Path:
    """The same model with what is not packed in float32: `mlx_lm.server` at its best on a CPU."""
    import mlx.core as mx  # noqa: PLC0415  not paid for by the other benchmark

    shutil.copytree(model, folder)
    for file in folder.glob("model*.safetensors"):
        weights = mx.load(str(file))
        if not isinstance(weights, dict):
            raise TypeError(f"{file} holds no named tensors")
        half = (mx.float16, mx.bfloat16)
        cast = {n: a.astype(mx.float32) if a.dtype in half else a for n, a in weights.items()}
        mx.eval(cast)
        mx.save_safetensors(str(file), cast, metadata={"format": "mlx"})
    return folder
