"""One call as a JSON object, read while it comes."""

import json
import re

# The object up to its arguments, with the name first, as templates show it to models.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


class Braces:
    """Finds where an object ends, in a text that comes in pieces; `depth` is how many are open."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._quoted = self._escaped = False

    def end(self, text: str) -> int | None:
        """How much of this text there is up to the end, None if it is further on."""
        for at, character in enumerate(text):
            self._step(character)
            if self._depth == 0:
                return at + 1
        return None

    def _step(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = character == "\\"
            self._quoted = character != '"'
        elif character == '"':
            self._quoted = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1


class JsonCall:
    """Takes the text of a call; gives the name, then the arguments as far as they have come.

    `name` is None until the arguments begin, `closed` is true when they have ended. What does not
    look like this is in `text` as a whole, to be read in another way when it has ended.
    """

    def __init__(self) -> None:
        self.text = ""
        self.name: str | None = None
        self.closed = False
        self._braces = Braces()

    def begins(self, text: str) -> bool:
        """Whether the arguments begin in what has come and this text behind it."""
        return _HEAD.match(self.text + text) is not None

    def push(self, text: str) -> tuple[str, str]:
        """What is new of the arguments, and what is behind their end."""
        if self.closed:
            return "", text
        if self.name is None:
            head = _HEAD.match(self.text + text)
            if head is None:
                self.text += text
                return "", ""
            self.name = unquoted(head[1])
            text = (self.text + text)[head.end() :]
        end = self._braces.end(text)
        if end is None:
            return text, ""
        self.closed = True
        return text[:end], text[end:]


def unquoted(text: str) -> str:
    """What a JSON text in its quotes says."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]  # With an escape that JSON does not have.
