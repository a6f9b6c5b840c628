"""The progress bar, as a terminal gets it."""

import io

import pytest

from exo.cli import follow

from .fake_api import instance


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR")

    with follow._display() as display:
        display.show(instance("i1", "downloading", 0))
        display.show(instance("i1", "loading", 3))
        assert isinstance(display, follow._Bar)
        display._progress.refresh()

    assert "exo-demo: loading" in terminal.getvalue()
    assert "3/6 layers" in terminal.getvalue()


def test_layers_are_counted_over_all_shards() -> None:
    two = instance("i1", "loading", 3)
    second = instance("i1", "loading", 0)["shards"][0] | {"start_layer": 6, "end_layer": 10}
    two["shards"].append(second)
    two["shards"].append(second | {"start_layer": 10, "end_layer": 12, "runner": None})

    assert follow.layers(two) == (3, 12)
