"""Text in OpenAI's harmony format taken apart as it comes: pure.

An answer is a row of messages, `<|start|>ROLE<|channel|>CHANNEL<|message|>TEXT<|end|>`, the first
of which the prompt has begun. A message `to=functions.NAME` is a call, which ends the answer. See
https://cookbook.openai.com/articles/openai-harmony.
"""

import re

from exo.inference.speech.speech import Called, Piece, Said, Speech, State, Thought
from exo.inference.text import overlap

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
END, CALL, RETURN, CONSTRAIN = "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"
# What tells a vocabulary that knows this format.
MARKS = (START, CHANNEL, MESSAGE, END, CALL, RETURN)
# Marks that end an answer.
LAST = (CALL, RETURN)
# Where a text ends: what follows is the head of another message, or nothing.
_ENDS = (END, *LAST, START, CHANNEL)
# How a head goes on behind the role. What begins otherwise is no head, but the text.
_HEADS = (CHANNEL, MESSAGE, CONSTRAIN, " to=")
_CALLED = re.compile(r"\bto=functions\.([^\s<]+)")
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")


class ChannelSplitter:
    """Analysis is thought, the final channel and what is said between are said, and what is for a
    function is called. What is for anything else is as its channel is."""

    def __init__(self, speech: Speech) -> None:
        self._tools = speech.tools
        self.state = State.BETWEEN
        self.calls = 0
        self.complete = False
        self._held = ""
        # What the prompt has of the answer: a role, a part of a head, or of a text.
        begun = speech.begun.rpartition(START)[2]
        self._head = begun if CHANNEL in begun else ""
        self._first = not self._head
        if MESSAGE in begun:
            self._open(begun.partition(MESSAGE)[0])

    def push(self, text: str) -> list[Piece]:
        """Take in more text; return what can be told of it."""
        self._held += text
        pieces: list[Piece] = []
        while not self.complete:
            if self.state is State.BETWEEN:
                if not self._read_head(pieces):
                    break
            elif not self._read_text(pieces):
                break
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, at the end of the answer. A head without a text is dropped."""
        rest, self._held = self._held, ""
        if self.complete or self.state is State.BETWEEN:
            return []
        return self._told(rest)

    def _read_head(self, pieces: list[Piece]) -> bool:
        """Read on in a head; whether it has ended."""
        if self._first:
            if not self._held or any(head.startswith(self._held) for head in _HEADS):
                return False
            if not self._held.startswith(_HEADS):
                self._open("")
                return True
        at = self._held.find(MESSAGE)
        ends = [place for mark in LAST if (place := self._held.find(mark)) >= 0]
        if ends and (at < 0 or min(ends) < at):
            self.complete = True
            return False
        if at < 0:
            return False
        head = self._head + self._held[:at]
        self._held = self._held[at + len(MESSAGE) :]
        pieces += self._open(head.rpartition(START)[2])
        return True

    def _open(self, head: str) -> list[Piece]:
        """Behind a head: what its text is."""
        self._first, self._head = False, ""
        called = _CALLED.search(head)
        if called is not None and self._tools is not None:
            self.state = State.CALLING
            self.calls += 1
            return [Called(self.calls - 1, "", called[1])]
        channel = _CHANNEL.search(head)
        thought = channel is not None and channel[1] == "analysis"
        self.state = State.THINKING if thought else State.SAYING
        return []

    def _read_text(self, pieces: list[Piece]) -> bool:
        """Tell what has come of a text; whether it has ended."""
        found = [(at, mark) for mark in _ENDS if (at := self._held.find(mark)) >= 0]
        if not found:
            keep = max(overlap(self._held, mark) for mark in _ENDS)
            cut = len(self._held) - keep
            text, self._held = self._held[:cut], self._held[cut:]
            pieces += self._told(text)
            return False
        at, mark = min(found)
        pieces += self._told(self._held[:at])
        self._held = self._held[at:] if mark == CHANNEL else self._held[at + len(mark) :]
        # There is no second call in an answer.
        self.complete = mark in LAST or self.state is State.CALLING
        self.state = State.BETWEEN
        return True

    def _told(self, text: str) -> list[Piece]:
        if not text:
            return []
        match self.state:
            case State.CALLING:
                return [Called(self.calls - 1, text)]
            case State.THINKING:
                return [Thought(text)]
            case _:
                return [Said(text)]
