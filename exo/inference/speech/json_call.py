"""One call as a JSON object, read while it comes."""

import json
import re

# The object up to its arguments, with the name first, as templates show it to models.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


class JsonCall:
    """Takes the text of a call; gives the name, then the arguments as far as they have come.

    `name` is None until the arguments begin. What does not look like this is in `text` as a whole,
    to be read in another way when it has ended.
    """

    def __init__(self) -> None:
        self.text = ""
        self.name: str | None = None
        self._at = 0
        self._depth = 0
        self._quoted = self._escaped = False

    def push(self, text: str) -> str:
        """What is new of the arguments."""
        self.text += text
        if self.name is None:
            head = _HEAD.match(self.text)
            if head is None:
                return ""
            try:
                self.name = str(json.loads(head[1]))
            except ValueError:
                return ""
            self._at = head.end()
            self._depth = 0
        elif self._depth == 0:
            return ""
        begin = self._at
        while self._at < len(self.text):
            self._step(self.text[self._at])
            self._at += 1
            if self._depth == 0:
                break
        return self.text[begin : self._at]

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
