"""The splitter for a style of speech."""

from collections.abc import Callable
from typing import Protocol

from exo.inference.speech.bare import BareSplitter
from exo.inference.speech.channels import ChannelSplitter
from exo.inference.speech.speech import Piece, Speech, State, Style
from exo.inference.speech.splitter import Splitter


class Splits(Protocol):
    """Takes a text apart as it comes: `state` is where it stands, `calls` how many it has seen, and
    `complete` says that no more is wanted."""

    @property
    def state(self) -> State: ...
    @property
    def calls(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    def push(self, text: str) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


_SPLITTERS: dict[Style, Callable[[Speech], Splits]] = {
    "marks": Splitter,
    "channels": ChannelSplitter,
    "bare": BareSplitter,
}


def open_splitter(speech: Speech) -> Splits:
    """What takes an answer apart that is spoken so."""
    return _SPLITTERS[speech.style](speech)
