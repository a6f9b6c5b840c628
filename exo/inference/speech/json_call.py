"""One call as a JSON object, read while it comes."""

import json
import re

# The object up to its arguments, with the name first, as templates show it to models.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


class JsonCall:
    """Takes the text of a call; gives the name, then the arguments as far as they have come.

    `name` is None until the arguments begin, `closed` is true when they have ended. What does not
    look like this is in `text` as a whole, to be read in another way when it has ended.
    """

    def __init__(self) -> None:
        self.text = ""
        self.name: str | None = None
        self.closed = False
        self._depth = 0
        self._quoted = self._escaped = False

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
            self.name = _unquoted(head[1])
            text = (self.text + text)[head.end() :]
        for at, character in enumerate(text):
            self._step(character)
            if self._depth == 0:
                self.closed = True
                return text[: at + 1], text[at + 1 :]
        return text, ""

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


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]  # With an escape that JSON does not have.
