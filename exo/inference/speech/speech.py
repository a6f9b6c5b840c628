"""How a model marks its thoughts and its calls of tools, as data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal


@dataclass(frozen=True)
class Call:
    """A whole call: the tool's name and its arguments, a JSON text."""

    name: str
    arguments: str


class NotACallError(Exception):
    """A text that was marked as a call and is none."""


Parse = Callable[[str], Sequence[Call]]


@dataclass(frozen=True)
class Tools:
    """How calls are marked: the texts before and after (no text after: up to the end of the
    answer), and what reads the text between, which raises NotACallError. With `json`, that is one
    object with a name and arguments, which can be read while it comes. With `single`, an answer
    ends after its first call. `names` are those of the tools."""

    begin: str
    end: str
    parse: Parse
    json: bool = False
    single: bool = False
    names: frozenset[str] = frozenset()


# By marks around thoughts and calls; as messages in channels (harmony); or calls as bare JSON.
Style = Literal["marks", "channels", "bare"]


@dataclass(frozen=True)
class Speech:
    """`think` are the texts before and after a thought, None for models that mark none; `thinking`
    says whether the prompt ends within one. `tools` is None where none may be called. Of channels,
    `begun` is what the prompt has of the answer."""

    think: tuple[str, str] | None = None
    thinking: bool = False
    tools: Tools | None = None
    style: Style = "marks"
    begun: str = ""


PLAIN = Speech()


# What becomes of a text, piece by piece.


class State(Enum):
    """What a text is at present; between messages, it is none of the others."""

    SAYING = auto()
    THINKING = auto()
    CALLING = auto()
    BETWEEN = auto()


@dataclass(frozen=True)
class Thought:
    text: str


@dataclass(frozen=True)
class Said:
    text: str


@dataclass(frozen=True)
class Called:
    """A part of call `index`: its beginning has the name, what follows more of the arguments."""

    index: int
    arguments: str
    name: str | None = None


Piece = Thought | Said | Called
