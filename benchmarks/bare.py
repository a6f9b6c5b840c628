"""The least that a pipeline over two cores can be: a model's layers in two processes that hand
activations on through a pipe, without a scheduler, caches, encryption or answers.

What it gives beside one such process that has all layers is what the cores allow: while one of them
is slow, no pipeline is faster than that one, and the other one waits.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, cast

import mlx.core as mx
import numpy as np

from benchmarks.pinned import PinnedProcesses
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
        self._processes = PinnedProcesses()

    def __enter__(self) -> Self:
        processes = self._processes
        links = processes.context.Pipe() if len(self._bounds) == 2 else (None,)
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            for own, link in zip(self._bounds, links, strict=True):
                processes.start(_serve, self._folder, own, link)
                if link is not None:  # As with the pipe to it: it alone has this end.
                    link.close()
        finally:
            os.environ.clear()
            os.environ.update(before)
        return self

    def __exit__(self, *exc: object) -> None:
        self._processes.stop()

    def rate(self, work: Work) -> float:
        """Rows per second through all layers, while both stages are at work.

        Raises:
            EOFError: a process has ended; it said why.
        """
        for control in self._processes.controls:
            control.send(work)
        seconds = [cast("float", control.recv()) for control in self._processes.controls]
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
