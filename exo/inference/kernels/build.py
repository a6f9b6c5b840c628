"""`python -m exo.inference.kernels.build`: compiles the kernels for this environment.

No build system: a handful of files, one compiler call each.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exo.errors import KernelsUnavailable
from exo.inference.kernels.built import (
    FOLDER,
    LIBRARY,
    RECORD,
    SOURCES,
    Record,
    source_hash,
    why_not,
)

_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    # Every instruction set must give the same bits: products are fused where the code says so.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wno-psabi",
    # GCC's own headers of AVX-512 set it off.
    "-Wno-maybe-uninitialized",
)
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
_VNNI = (*_AVX512, "-mavx512vnni")
_AMX = (*_VNNI, "-mamx-tile", "-mamx-int8", "-mamx-bf16")
# Each is a namespace of its own in the library; dispatch.cpp chooses one when it is loaded.
_INSTRUCTION_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"avx2": _AVX2, "avx512": _AVX512, "avx512vnni": _VNNI, "avx512amx": _AMX},
    "aarch64": {"neon": ()},
}

# What Linux calls what they need beyond the first one, which every machine has to have.
_NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx512vnni": {"avx512_vnni"},
    "avx512amx": {"amx_bf16", "amx_int8"},
}
_CPUINFO = Path("/proc/cpuinfo")


def build(target: Path = FOLDER, extra_flags: tuple[str, ...] = ()) -> Path:
    """Compile and link the library into `target`; an older one is replaced in one step. It has the
    kernels for this machine's processor and for those of its kind that know less.

    Takes half a minute to a minute on two cores.

    Raises:
        KernelsUnavailable: something is missing, or the compiler fails; the text says what.
    """
    compiler = find_compiler()
    includes = find_includes()
    with tempfile.TemporaryDirectory(prefix="exo-kernels-") as work:
        sets = instruction_sets(compiler)
        for name in lacking(_CPUINFO.read_text() if _CPUINFO.exists() else None):
            sets.pop(name, None)
        jobs = _jobs(sets, includes, Path(work))
        calls = [(compiler, *_FLAGS, *extra_flags, *job) for job in jobs]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(_call, calls))
        objects = [str(path) for path in sorted(Path(work).glob("*.o"))]
        library = target / f".{LIBRARY}.{os.getpid()}"
        mlx = Path(includes[0]).parent / "lib"
        # MLX is in the process already when this library is loaded: its symbols are found there.
        link = (
            compiler,
            "-shared",
            *extra_flags,
            *objects,
            f"-L{mlx}",
            "-lmlx",
            "-o",
            str(library),
        )
        _call(link)
    record = Record(
        mlx=importlib.metadata.version("mlx"),
        python=sysconfig.get_config_var("EXT_SUFFIX"),
        sources=source_hash(),
    )
    (target / RECORD).unlink(missing_ok=True)
    library.replace(target / LIBRARY)
    (target / RECORD).write_text(json.dumps(record))
    return target / LIBRARY


def build_test(
    source: Path, folder: Path, flags: tuple[str, ...], without: Collection[str] = ()
) -> Path:
    """A program of `source` and the kernels without MLX, compiled with more flags into `folder`,
    but for the instruction sets `without`.

    Raises:
        KernelsUnavailable: as `build`.
    """
    compiler = find_compiler()
    known = instruction_sets(compiler)
    sets = {name: of for name, of in known.items() if name not in without}
    plain = [
        (*_names_of(sets), "-c", str(SOURCES / f"{name}.cpp"), "-o", str(folder / f"{name}.o"))
        for name in ("dispatch", "packing", "pool")
    ]
    own = (f"-I{SOURCES}", "-c", str(source), "-o", str(folder / "test.o"))
    jobs = [*_kernel_jobs(sets, folder), own, *plain]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(_call, [(compiler, *_FLAGS, *flags, *job) for job in jobs]))
    program = folder / "test"
    objects = map(str, sorted(folder.glob("*.o")))
    _call((compiler, *flags, *objects, "-pthread", "-o", str(program)))
    return program


def find_compiler() -> str:
    """The C++ compiler: that of $CXX, or the system's.

    Raises:
        KernelsUnavailable: there is none.
    """
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise KernelsUnavailable(
        "There is no C++ compiler.", hint="On Debian and Ubuntu: sudo apt install g++"
    )


def find_includes() -> tuple[str, str, str, str]:
    """The folders of MLX's, Python's and nanobind's headers.

    Raises:
        KernelsUnavailable: one is missing.
    """
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise KernelsUnavailable(
            f"The headers of Python {version} are missing.",
            hint=f"On Debian and Ubuntu: sudo apt install python{version}-dev",
        )
    mlx, nanobind = _package("mlx") / "include", _package("nanobind")
    return str(mlx), str(python), str(nanobind / "include"), str(nanobind / "ext/robin_map/include")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise KernelsUnavailable(
            f"The package {name} is not installed.", hint="Run install.sh again."
        )
    return Path(places[0])


def instruction_sets(compiler: str) -> dict[str, tuple[str, ...]]:
    """The compiler's flags for each instruction set that this machine's kind of processor may have
    and the compiler knows: tiles (AMX) need GCC 11 or Clang 12.

    Raises:
        KernelsUnavailable: there are no kernels for such a machine.
    """
    machine = platform.machine()
    if machine not in _INSTRUCTION_SETS:
        raise KernelsUnavailable(f"There are no kernels for {machine}.")
    sets = dict(_INSTRUCTION_SETS[machine])
    if "avx512amx" in sets and not _knows(compiler, sets["avx512amx"]):
        del sets["avx512amx"]
    return sets


def lacking(cpuinfo: str | None) -> set[str]:
    """The instruction sets that a processor does not have of which Linux says this; none if it says
    nothing."""
    if cpuinfo is None:
        return set()
    has = set(cpuinfo.split())
    return {name for name, needed in _NEEDS.items() if not needed <= has}


def _knows(compiler: str, flags: tuple[str, ...]) -> bool:
    trial = (compiler, *flags, "-E", "-x", "c++", os.devnull)
    return not subprocess.run(trial, capture_output=True, check=False).returncode


def _names_of(sets: Iterable[str]) -> tuple[str, ...]:
    """Tells dispatch.cpp what there is."""
    return tuple(f"-DEXO_HAS_{name.upper()}" for name in sets)


def _kernel_jobs(sets: dict[str, tuple[str, ...]], work: Path) -> list[tuple[str, ...]]:
    """The arguments of the compiler calls for the kernels themselves, the longest first."""
    return [
        (*flags, f"-DEXO_ISA={name}", "-c", str(SOURCES / "isa.cpp"), "-o", str(work / f"{name}.o"))
        for name, flags in sets.items()
    ]


def _jobs(
    sets: dict[str, tuple[str, ...]], includes: tuple[str, ...], work: Path
) -> list[tuple[str, ...]]:
    jobs = _kernel_jobs(sets, work)
    outer = [f"-isystem{path}" for path in includes]
    # MLX's wheels hold no headers of their version as text.
    version = f'-DMLX_VERSION="{importlib.metadata.version("mlx")}"'
    for name in ("primitives", "bindings", "dispatch", "packing", "pool"):
        source, to = str(SOURCES / f"{name}.cpp"), str(work / f"{name}.o")
        names = _names_of(sets)
        jobs.append((*outer, "-DNB_DOMAIN=mlx", version, *names, "-c", source, "-o", to))
    nanobind = Path(includes[2]).parent / "src" / "nb_combined.cpp"
    flags = ("-DNB_DOMAIN=mlx", "-fno-strict-aliasing", "-w")
    jobs.append((*outer, *flags, "-c", str(nanobind), "-o", str(work / "nanobind.o")))
    return jobs


def _call(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.stderr:
        print(done.stderr, file=sys.stderr)  # noqa: T201  a compiler's words go where it would put them
    if done.returncode:
        what = next((word for word in arguments if word.endswith(".cpp")), "the library")
        raise KernelsUnavailable(f"{Path(what).name} could not be compiled.")


def main() -> None:
    """Build, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder for the library")
    parser.add_argument("--flag", action="append", default=[], help="for the compiler")
    parser.add_argument(
        "--if-needed", action="store_true", help="not where they do not apply, or are there already"
    )
    arguments = parser.parse_args()
    if arguments.if_needed and (sys.platform != "linux" or why_not(arguments.target) is None):
        return
    try:
        build(arguments.target, tuple(arguments.flag))
    except KernelsUnavailable as error:
        sys.exit(f"{error} {error.hint or ''}".strip())


if __name__ == "__main__":
    main()
