"""A fixture that makes networks, and takes them away again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import new_home

from .lan import Lan
from .namespace import unavailable

MakeLan = Callable[[int], Lan]


@pytest.fixture
def make_lan(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeLan]:
    """Make a network of so many hosts. At the end the daemons that still run must stop cleanly."""
    if reason := unavailable():
        pytest.skip(reason)
    made: list[Lan] = []

    def make_home(home: Path) -> Path:
        return new_home(home, request.getfixturevalue("measured"))

    def call(count: int) -> Lan:
        made.append(Lan(count, tmp_path, make_home))
        return made[-1]

    yield call
    try:
        for lan in made:
            lan.stop()
    finally:
        for lan in made:
            lan.remove()
