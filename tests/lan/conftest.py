"""Fixtures that make networks, and take them away again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import new_home

from .lan import Lan
from .namespace import unavailable

MakeLan = Callable[[int], Lan]


@pytest.fixture
def make_lan(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeLan]:
    """Make a network of so many hosts. At the end the daemons that still run must stop cleanly."""
    with lans(tmp_path, request) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_lan(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[MakeLan]:
    """As `make_lan`, for a network that all tests of a module leave as they found it."""
    with lans(tmp_path_factory.mktemp("lan"), request) as make:
        yield make


@contextmanager
def lans(folder: Path, request: pytest.FixtureRequest) -> Iterator[MakeLan]:
    if reason := unavailable():
        pytest.skip(reason)
    made: list[Lan] = []

    def make_home(home: Path) -> Path:
        return new_home(home, request.getfixturevalue("measured"))

    def call(count: int) -> Lan:
        made.append(Lan(count, folder, make_home))
        return made[-1]

    try:
        yield call
        for lan in made:
            lan.stop()
    finally:
        for lan in made:
            lan.remove()
