"""Measure this device once, in a child process, and keep the result on disk."""

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from exo.device.host import fingerprint
from exo.device.profile import DeviceProfile
from exo.errors import EngineError

logger = logging.getLogger(__name__)

# The module that measures: it knows also rooms that this one must not.
PROBE = "exo.probe"


class _CacheFile(BaseModel):
    format: Literal[1] = 1
    fingerprint: dict[str, str]
    profile: DeviceProfile


class _Failure(BaseModel):
    error: str


def cached(
    cache_file: Path, environment: Mapping[str, str] | None = None, kernels: str = ""
) -> DeviceProfile | None:
    """The kept measurement; None if there is none, or it was not made in these circumstances."""
    try:
        cache = _CacheFile.model_validate_json(cache_file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        logger.warning("%s is not readable, so it is made anew: %s", cache_file, _first_line(error))
        return None
    return cache.profile if cache.fingerprint == _circumstances(environment, kernels) else None


async def measure(
    cache_file: Path,
    *,
    refresh: bool = False,
    environment: Mapping[str, str] | None = None,
    kernels: str = "",
    executable: str = sys.executable,
    limit: float = 60.0,
) -> DeviceProfile:
    """The kept measurement, or a new one that takes about two seconds.

    Args:
        cache_file: where it is kept.
        refresh: measure even if it is kept.
        environment: added to the child's environment: what runners get, such as another BLAS.
        kernels: which CPU kernels the child will use, or why none: a measurement is of these.
        executable: the Python that measures.
        limit: seconds after which the child process is killed.

    Raises:
        EngineError: MLX does not work here, or the child process failed.
    """
    kept = None if refresh else await asyncio.to_thread(cached, cache_file, environment, kernels)
    if kept is not None:
        return kept
    profile = await _run_probe(executable, environment or {}, limit)
    try:
        await asyncio.to_thread(_keep, cache_file, profile, _circumstances(environment, kernels))
    except OSError as error:  # the next start measures again, and that is all
        logger.warning("%s cannot be written: %s", cache_file, error)
    return profile


async def _run_probe(
    executable: str, environment: Mapping[str, str], limit: float
) -> DeviceProfile:
    # -P: a file in the folder where the user happens to be must not shadow a module.
    arguments = ("-P", "-m", PROBE)
    try:
        process = await asyncio.create_subprocess_exec(
            executable,
            *arguments,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **environment},
        )
    except OSError as error:
        raise _failed(f"{executable} did not start: {error.strerror}") from error
    try:
        async with asyncio.timeout(limit):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise _failed(f"it took longer than {limit:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _parse(out, err, process.returncode or 0)


def _parse(out: bytes, err: bytes, status: int) -> DeviceProfile:
    """The profile in the last line: a library may print something of its own before it."""
    line = out.strip().rsplit(b"\n", 1)[-1]
    try:
        if status == 0:
            return DeviceProfile.model_validate_json(line)
        raise _failed(_Failure.model_validate_json(line).error)
    except ValidationError as error:
        if status == 0:
            raise _failed(f"the probe's answer is not readable: {_first_line(error)}") from error
    last_words = err.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
    raise _failed(f"the probe {_ending(status)} {last_words}".strip())


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with exit status {status}."
    try:
        return f"was ended by {signal.Signals(-status).name}."
    except ValueError:
        return f"was ended by signal {-status}."


def _failed(reason: str) -> EngineError:
    return EngineError(
        f"This device could not be measured: {reason.rstrip('.')}.",
        hint="`exo doctor` checks the installation.",
    )


def _circumstances(environment: Mapping[str, str] | None, kernels: str) -> dict[str, str]:
    text = json.dumps(dict(environment or {}), sort_keys=True)
    return {**fingerprint(), "environment": text, "kernels": kernels}


def _keep(cache_file: Path, profile: DeviceProfile, circumstances: dict[str, str]) -> None:
    """Write the file whole or not at all."""
    cache = _CacheFile(fingerprint=circumstances, profile=profile)
    text = json.dumps(cache.model_dump(mode="json"), indent=2) + "\n"
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{cache_file.name}-", dir=cache_file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(cache_file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
