"""Calls that nothing marks, as Llama 3 writes them, taken apart as they come: pure.

An answer that begins with `{"name": …, "parameters": {…}}` is a call of that function; others may
follow behind a semicolon. `<|python_tag|>` may stand before one, also further on in the answer.
"""

import json
import re
from typing import Any, cast

from exo.inference.speech.json_call import Braces, unquoted
from exo.inference.speech.speech import Called, Piece, Said, Speech, State
from exo.inference.text import overlap

TAG = "<|python_tag|>"
# What may stand between two calls.
_GAP = re.compile(r"[\s;,]*")
_TEXT = r'("(?:[^"\\]|\\.)*")'
_NAME = re.compile(rf'\{{\s*"name"\s*:\s*{_TEXT}')
_HEAD = re.compile(rf'{_NAME.pattern}\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{{)')
# An object up to its first key, as far as that has come.
_FIRST_KEY = re.compile(r'\{\s*(?:$|"(\w*)($|"))')
_KEYS = ("name", "type", "parameters", "arguments")


class BareSplitter:
    """Objects at the beginning of the answer, or behind the tag, that call one of the tools.
    Everything else is said."""

    def __init__(self, speech: Speech) -> None:
        self._tools = speech.tools
        self.state = State.SAYING
        self.calls = 0
        self.complete = False
        self._held = ""
        # Whether what comes next may be a call, and what of it is text if it is none.
        self._seeking = speech.tools is not None
        self._before = ""
        # Of an object that may be one: how much of it has been looked through.
        self._whole, self._seen = Braces(), 0
        # In a call: where its arguments end, and then where it ends itself.
        self._arguments: Braces | None = None
        self._rest = Braces(1)

    def push(self, text: str) -> list[Piece]:
        """Take in more text; return what can be told of it. `complete` says that no more is
        wanted: the one call that may be made has been."""
        self._held += text
        pieces: list[Piece] = []
        while not self.complete:
            if self.state is State.CALLING:
                found = self._argue()
            elif self._seeking:
                found = self._seek()
            else:
                found = self._say()
            if found is None:
                break
            pieces += found
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, at the end of the answer."""
        rest, self._held = self._held, ""
        if self.complete or self.state is State.CALLING:
            return []
        if self._seeking:
            rest = self._before + (rest[_gap(rest) :] if self.calls else rest)
        return [Said(rest)] if rest else []

    # Each of these goes one step on, and returns what it tells; None if more text is needed.

    def _say(self) -> list[Piece] | None:
        if not self._held:
            return None
        at = self._held.find(TAG) if self._tools else -1
        if at >= 0:
            text, self._held = self._held[:at], self._held[at:]
            self._seeking = True
            return [Said(text)] if text else []
        cut = len(self._held) - (overlap(self._held, TAG) if self._tools else 0)
        text, self._held = self._held[:cut], self._held[cut:]
        return [Said(text)] if text else None

    def _seek(self) -> list[Piece] | None:
        gap = _gap(self._held) if self.calls else _blank(self._held)
        body = self._held[gap:]
        if TAG.startswith(body) and body != TAG:
            return None
        if body.startswith(TAG):
            self._before += self._held[:gap] * (not self.calls) + TAG
            self._held = body[len(TAG) :]
            return []
        if not _may_call(body):
            return self._none(gap)
        head = _HEAD.match(body)
        name = unquoted(found[1]) if (found := _NAME.match(body)) else None
        if name is not None and not self._knows(name):
            return self._none(gap)
        if head is not None and name is not None:
            self._held = body[head.end() :]
            return self._call(name)
        return self._seek_end(gap, body)

    def _seek_end(self, gap: int, body: str) -> list[Piece] | None:
        """Of an object with its keys in another order."""
        end = self._whole.end(body[self._seen :])
        if end is None:
            self._seen = len(body)
            return None
        end += self._seen
        self._whole, self._seen = Braces(), 0
        found = self._read(body[:end])
        if found is None:
            return self._none(gap)
        name, arguments = found
        self._held = body[end:]
        self.calls += 1
        self._ended()
        return [Called(self.calls - 1, arguments, name)]

    def _call(self, name: str) -> list[Piece]:
        self.calls += 1
        self.state = State.CALLING
        self._arguments, self._rest = Braces(), Braces(1)
        return [Called(self.calls - 1, "", name)]

    def _argue(self) -> list[Piece] | None:
        text, self._held = self._held, ""
        if not text:
            return None
        if self._arguments is None:
            end = self._rest.end(text)
            if end is not None:
                self._held = text[end:]
                self._ended()
            return []
        end = self._arguments.end(text)
        if end is not None:
            text, self._held, self._arguments = text[:end], text[end:], None
        return [Called(self.calls - 1, text)]

    def _ended(self) -> None:
        """A call has come to its end."""
        self.state, self._seeking, self._before = State.SAYING, True, ""
        self._whole, self._seen = Braces(), 0
        self.complete = self._tools is not None and self._tools.single

    def _none(self, gap: int) -> list[Piece]:
        """It is no call: what was held is text."""
        text = self._before + (self._held[gap:] if self.calls else self._held)
        self._held, self._seeking, self._before = "", False, ""
        self._whole, self._seen = Braces(), 0
        # A tag further on begins another search.
        at = text.find(TAG, 1)
        if at >= 0:
            text, self._held = text[:at], text[at:]
        else:
            cut = len(text) - overlap(text, TAG)
            text, self._held = text[:cut], text[cut:]
        return [Said(text)] if text else []

    def _knows(self, name: str) -> bool:
        return self._tools is not None and name in self._tools.names

    def _read(self, text: str) -> tuple[str, str] | None:
        """The name and the arguments of a whole object, if it is a call."""
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            return None
        call = cast("dict[str, Any]", found)
        name = call.get("name")
        arguments = call.get("parameters", call.get("arguments"))
        if not isinstance(name, str) or not self._knows(name) or not isinstance(arguments, dict):
            return None
        return name, json.dumps(arguments, ensure_ascii=False)


def _may_call(text: str) -> bool:
    """Whether a text that has come so far may be an object with a call in it."""
    if not text.startswith("{"):
        return False
    key = _FIRST_KEY.match(text)
    if key is None:
        return False
    if key[1] is None:
        return True
    return key[1] in _KEYS if key[2] else any(name.startswith(key[1]) for name in _KEYS)


def _gap(text: str) -> int:
    found = _GAP.match(text)
    return found.end() if found else 0


def _blank(text: str) -> int:
    return len(text) - len(text.lstrip())
