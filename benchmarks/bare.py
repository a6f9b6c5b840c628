"""The least that a pipeline over two cores can be: a model's layers in two processes that hand
activations on through a pipe, without a scheduler, caches, encryption or answers.

What it gives beside one such process that has all layers is what the cores allow: while one of them
is slow, no pipeline is faster than that one, and the other one waits.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, cast

import mlx.core as mx
import numpy as np

from benchmarks.pinned import on_core
from exo.inference.kernels.use import use_kernels
from exo.inference.mlx.loading import open_whole


@dataclass(frozen=True)
class Work:
    """So many groups of so many rows that pass through all layers so many times."""

    rows: int
    groups: int
    rounds: int


class BarePipeline:
    """Two stages with a core each, or, with no `cut`, one process with the first core."""

    def __init__(self, folder: Path, cut: int | None, environment: dict[str, str]) -> None:
        self._folder = folder
        self._bounds = [slice(0, cut), slice(cut, None)] if cut else [slice(0, None)]
        self._environment = environment
        self._processes: list[Any] = []
        self._controls: list[Connection] = []

    def __enter__(self) -> Self:
        # One that is forked would have the threads' state of this process and not the threads.
        context = multiprocessing.get_context("spawn")
        links = context.Pipe() if len(self._bounds) == 2 else (None,)
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            for at, (own, link) in enumerate(zip(self._bounds, links, strict=True)):
                ours, theirs = context.Pipe()
                args = (self._folder, own, link, theirs)
                process = context.Process(target=_serve, args=args, daemon=True)
                with on_core(at):
                    process.start()
                # Else nobody would be told when it ends.
                for end in filter(None, (link, theirs)):
                    end.close()
                self._processes.append(process)
                self._controls.append(ours)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def rate(self, work: Work) -> float:
        """Rows per second through all layers, while both stages are at work.

        Raises:
            EOFError: a process has ended; it said why.
        """
        for control in self._controls:
            control.send(work)
        seconds = [cast("float", control.recv()) for control in self._controls]
        return work.rows / seconds[0]


def _serve(folder: Path, own: slice, link: Connection | None, control: Connection) -> None:
    mx.set_default_device(mx.cpu)
    shard = open_whole(folder, cast_float32=True, kernels=use_kernels())
    width = int(shard.config["hidden_size"])
    stage = _Stage(cast("Any", shard.stage.model).layers[own], width, link, first=own.start == 0)
    while True:
        work = cast("Work", control.recv())
        control.send(stage.run(work))


class _Stage:
    def __init__(
        self, layers: Sequence[Any], width: int, link: Connection | None, *, first: bool
    ) -> None:
        self._layers = layers
        self._width = width
        self._link = link
        self._first = first

    def run(self, work: Work) -> float:
        """Seconds of a group's step, but for one round at the beginning, in which the stages fill
        and the weights are read, and one at the end, in which they empty."""
        sampled = np.ones((work.rows, 1, self._width), np.float32)
        steps = work.groups * (work.rounds + 2)
        done: list[float] = []
        for number in range(steps):
            if self._link is None:
                self._compute(sampled)
            elif self._first:
                if number >= work.groups:
                    self._link.recv_bytes()
                self._link.send_bytes(self._compute(sampled).tobytes())
            else:
                received = np.frombuffer(self._link.recv_bytes(), np.float32)
                self._compute(received.reshape(sampled.shape))
                self._link.send_bytes(sampled.tobytes())
            done.append(time.perf_counter())
        if self._link is not None and self._first:
            for _ in range(work.groups):
                self._link.recv_bytes()
        return (done[-1 - work.groups] - done[work.groups - 1]) / (work.groups * work.rounds)

    def _compute(self, rows: Any) -> Any:
        hidden = mx.array(rows)
        for layer in self._layers:
            hidden = layer(hidden)
        return np.asarray(hidden)
