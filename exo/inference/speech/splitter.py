"""A model's text taken apart as it comes: pure."""

from collections.abc import Iterator

from exo.inference.speech.json_call import JsonCall
from exo.inference.speech.speech import (
    Called,
    NotACallError,
    Piece,
    Said,
    Speech,
    State,
    Thought,
)
from exo.inference.text import overlap


class Splitter:
    """Thoughts, what is said, and calls. Blank space between them belongs to none of them.

    A text of a model that marks nothing comes back as it is.
    """

    def __init__(self, speech: Speech) -> None:
        self._think = speech.think
        self._tools = speech.tools
        self.state = State.THINKING if speech.thinking else State.SAYING
        self.calls = 0
        self.complete = False
        self._held = ""
        # Blank space that is told only if more of the same follows.
        self._blank = ""
        self._fresh = self.state is State.THINKING
        self._call = JsonCall()

    def push(self, text: str) -> list[Piece]:
        """Take in more text; return what can be told of it. `complete` says that no more is
        wanted: the one call that may be made has been."""
        self._held += text
        pieces: list[Piece] = []
        moved = True
        while moved and not self.complete:
            moved = False
            for piece in self._advance():
                moved = moved or piece is None
                if piece is not None:
                    pieces.append(piece)
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, at the end of the answer."""
        rest, self._held = self._held, ""
        if self.complete:
            return []
        if self.state is State.CALLING and self._tools is not None:
            self._flow(rest)
            # Where a mark is due at the end, what has none is cut off.
            return self._ended(cut=bool(self._tools.end))
        return self._tell(rest, last=True)

    def _advance(self) -> Iterator[Piece | None]:
        """Pieces of what is held, up to the next mark; None where a mark was passed."""
        if self._in_arguments():
            # A mark within them is not one.
            text, self._held = self._held, ""
            pieces, self._held = self._argue(text)
            yield from pieces
            if self._call.closed:
                yield None
            return
        marks = self._marks()
        if not marks:
            text, self._held = self._held, ""
            yield from self._flow(text)
            return
        found = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
        if found:
            at, mark = min(found)
            text, self._held = self._held[:at], self._held[at + len(mark) :]
            yield from self._flow(text)
            yield from self._pass(mark)
            yield None
            return
        keep = max(overlap(self._held, mark) for mark in marks)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        yield from self._flow(text)

    def _marks(self) -> list[str]:
        if self.state is State.THINKING:
            return [self._think[1]] if self._think else []
        if self.state is State.CALLING:
            return [self._tools.end] if self._tools and self._tools.end else []
        marks = [self._think[0]] if self._think else []
        return [*marks, self._tools.begin] if self._tools else marks

    def _flow(self, text: str) -> list[Piece]:
        if self.state is not State.CALLING:
            return self._tell(text)
        if not self._call.closed:
            self._call.text += text
        return []

    def _tell(self, text: str, *, last: bool = False) -> list[Piece]:
        if self._think is None and self._tools is None:
            return [Said(text)] if text else []
        text = self._blank + text
        if self._fresh:
            text = text.lstrip()
        kept = text if last and self.state is State.SAYING else text.rstrip()
        self._blank = text[len(kept) :]
        if not kept:
            return []
        self._fresh = False
        return [Thought(kept) if self.state is State.THINKING else Said(kept)]

    def _pass(self, mark: str) -> list[Piece]:
        """Go on behind a mark."""
        self._blank, self._fresh = "", True
        if self.state is State.CALLING:
            return self._ended()
        if self.state is State.THINKING:
            self.state = State.SAYING
        elif self._think and mark == self._think[0]:
            self.state = State.THINKING
        else:
            self.state, self._call = State.CALLING, JsonCall()
        return []

    # Calls.

    def _in_arguments(self) -> bool:
        call = self._call
        if self.state is not State.CALLING or not self._tools or not self._tools.json:
            return False
        return not call.closed and (call.name is not None or call.begins(self._held))

    def _argue(self, text: str) -> tuple[list[Piece], str]:
        """More of arguments that have begun, and what is behind them."""
        begun = self._call.name is not None
        new, rest = self._call.push(text)
        pieces: list[Piece] = []
        if not begun and self._call.name is not None:
            self.calls += 1
            pieces.append(Called(self.calls - 1, "", self._call.name))
        if new:
            pieces.append(Called(self.calls - 1, new))
        return pieces, rest

    def _ended(self, *, cut: bool = False) -> list[Piece]:
        """A call has come to its end; with `cut`, the answer has come to its own."""
        tools, call = self._tools, self._call
        self.state = State.SAYING
        if tools is None:
            return []
        if tools.json and call.name is not None:
            self.complete = tools.single and not cut
            return []
        try:
            found = () if cut else tools.parse(call.text)
        except NotACallError:
            found = ()
        if not found:
            text = f"{tools.begin}{call.text}{'' if cut else tools.end}"
            self._fresh = False
            return [Said(text)]
        found = found[:1] if tools.single else found
        first = self.calls
        self.calls += len(found)
        self.complete = tools.single
        return [Called(first + n, each.arguments, each.name) for n, each in enumerate(found)]
