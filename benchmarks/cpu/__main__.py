"""exo's CPU kernels beside stock MLX, MLX with OpenBLAS, and llama.cpp, on random weights.

    python -m benchmarks.cpu [--shapes 50M 350M llama-3.2-1b] [--cores 2] [--plot FILE.svg]
                             [--llama-python PYTHON] [--json FILE]

All run one after the other on the same cores, each in a process of its own; the table gives
tokens/s, and exo's to each. llama.cpp needs a Python that has `llama-cpp-python` and `gguf` (its
build takes some minutes); without --llama-python it is left out, and the table says so.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cpu.shapes import SHAPES
from exo.device.blas import blas_environment
from exo.device.huge_pages import huge_page_environment

LLAMA = Path(__file__).with_name("llama_cpp_model.py")


class Variant(NamedTuple):
    """`weights` is what it is compared by: one row of the table each."""

    name: str
    weights: str
    command: tuple[str, ...]
    environment: dict[str, str]


def variants(shape: str, cores: int, llama_python: str | None, folder: str) -> list[Variant]:
    off = {"EXO_KERNELS": "off"}
    blas = {**blas_environment(Path(folder)), "OPENBLAS_NUM_THREADS": str(cores), **off}

    def mlx(kind: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "benchmarks.cpu.mlx_model", shape, kind)

    made = [
        Variant("exo", "4 bits", mlx("q4"), {}),
        Variant("exo", "8 bits", mlx("q8"), {}),
        Variant("exo", "bfloat16", mlx("bf16"), {}),
        Variant("MLX", "4 bits", mlx("q4"), off),
        Variant("MLX, float32 scales", "4 bits", mlx("q4-f32"), off),
        Variant("MLX, float32 scales", "8 bits", mlx("q8-f32"), off),
        Variant("MLX", "bfloat16", mlx("bf16"), off),
        Variant("MLX, cast to float32", "bfloat16", mlx("bf16-f32"), off),
        Variant("MLX, cast to float32, OpenBLAS", "bfloat16", mlx("bf16-f32"), blas),
    ]
    if llama_python:
        for kind, weights in (("Q4_0", "4 bits"), ("Q8_0", "8 bits")):
            command = (llama_python, str(LLAMA), shape, kind, str(cores), folder)
            made.append(Variant(f"llama.cpp {kind}", weights, command, {}))
    return made


def measured(variant: Variant, cores: set[int]) -> dict[str, Any] | None:
    """None if it failed; its last words are shown."""
    done = subprocess.run(
        variant.command,
        env={**os.environ, **huge_page_environment(os.environ), **variant.environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{variant.name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def figure(value: float) -> str:
    """Three digits of it."""
    return f"{value:.3g}" if value < 999.5 else f"{round(value, -int(math.log10(value)) + 2):.0f}"


def table(results: list[dict[str, Any]]) -> str:
    """Tokens/s, and in brackets exo's to it."""
    columns = [("decode", n) for n in ("1", "4", "8")]
    columns += [("prefill", n) for n in ("128", "512", "2048")]
    lines = [
        "| model | weights | | " + " | ".join(f"{kind} {n}" for kind, n in columns) + " |",
        "|---" * (3 + len(columns)) + "|",
    ]
    ours = {(r["shape"], r["weights"]): r for r in results if r["name"] == "exo"}
    for row in results:
        cells = []
        own = ours[row["shape"], row["weights"]]
        for kind, n in columns:
            value = row[kind][n]
            ratio = "" if row is own else f" ({own[kind][n] / value:.2f})"
            short = "*" if kind == "prefill" and row["tokens"][n] < int(n) else ""
            cells.append(f"{figure(value)}{short}{ratio}")
        lines.append(f"| {row['shape']} | {row['weights']} | {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], file: Path) -> None:
    """Decode and prefill of the largest shape, by variant."""
    import matplotlib as mpl  # noqa: PLC0415  only if asked for

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shape = results[-1]["shape"]
    rows = [r for r in results if r["shape"] == shape]
    names = [f"{r['name']}, {r['weights']}" for r in rows]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    colours = ["tab:blue" if r["name"] == "exo" else "tab:gray" for r in rows]
    for axis, kind, n in zip(axes, ("decode", "prefill"), ("1", "512"), strict=True):
        axis.barh(names, [r[kind][n] for r in rows], color=colours)
        axis.set_xscale("log")
        axis.set_xlabel("tokens/s")
        axis.set_title(f"{shape}: {'one stream' if kind == 'decode' else 'prompt of 512 tokens'}")
    axes[0].invert_yaxis()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-python")
    parser.add_argument("--only", nargs="+", help="variants whose names begin so")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="needs matplotlib")
    arguments = parser.parse_args()
    cores = set(sorted(os.sched_getaffinity(0))[: arguments.cores])
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.shapes:
            for variant in variants(shape, len(cores), arguments.llama_python, folder):
                if arguments.only and not variant.name.startswith(tuple(arguments.only)):
                    continue
                found = measured(variant, cores)
                if found:
                    head = {"shape": shape, "name": variant.name, "weights": variant.weights}
                    results.append({**head, **found})
                    print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(table(results))
    if any(r["tokens"][n] < int(n) for r in results for n in r["tokens"]):
        print("\n\\* measured on the beginning of the prompt: the whole of it takes too long.")
    if not arguments.llama_python:
        print("\nllama.cpp was left out: no --llama-python.")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
