"""Loaded by every Python that has this folder in its path (see `site`): on SIGUSR1 a daemon writes
how many asyncio tasks it has, which nothing outside of a process can see, to the pipe `tasks` in
its home."""

import asyncio
import os
import signal


def tell(*_: object) -> None:
    count = len(asyncio.all_tasks())
    with open(os.path.join(os.environ["EXO_HOME"], "tasks"), "w", encoding="ascii") as pipe:  # noqa: PTH118, PTH123  pathlib would be imported into every process
        pipe.write(f"{count}\n")


if "EXO_HOME" in os.environ:
    signal.signal(signal.SIGUSR1, tell)
