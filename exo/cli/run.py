"""`exo run`: ask a model once, or chat with it."""

import contextlib
import importlib
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer

from exo.cli.client import LOGS_HINT, Client, JsonObject, api_is_chosen, connect, model_argument
from exo.cli.instance import ModelArgument
from exo.cli.model import require_task
from exo.cli.output import JsonOption, out, printable
from exo.cli.ready import ready_model
from exo.cli.start import launch
from exo.errors import DaemonError, DaemonNotRunning, ExoError, RequestError


def run(
    model: ModelArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to ask; without it, stdin or a chat."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 takes the likeliest token each time.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    _json: JsonOption = False,
) -> None:
    """Ask a model, or chat with it.

    Starts exo and places the model if need be. A prompt that is piped in is answered like PROMPT.
    In a chat, /clear starts over, /exit or Ctrl-D ends, and Ctrl-C stops the answer.
    """
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise RequestError("The prompt is empty.")
    if prompt is None and out.json:
        raise RequestError("--json answers one prompt.", hint="Give PROMPT, or pipe it in.")
    options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    with connect_or_start() as api:
        require_task(api, model_argument(model), "text")
        chat = Chat(api, ready_model(api, model_argument(model)), options, system)
        if prompt is None:
            converse(chat)
        else:
            _answer(chat, prompt)


@dataclass
class Answer:
    """An answer as far as it has come."""

    text: str = ""
    thought: str = ""
    finish_reason: str | None = None
    usage: JsonObject | None = None

    def add(self, chunk: JsonObject) -> tuple[str, str]:
        """Take in one chunk of the stream; the text that it adds, and what the model thinks."""
        self.usage = chunk.get("usage") or self.usage
        if not chunk["choices"]:
            return "", ""
        choice = chunk["choices"][0]
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        piece: str = choice["delta"].get("content") or ""
        thought: str = choice["delta"].get("reasoning_content") or ""
        self.text += piece
        self.thought += thought
        return piece, thought


class Chat:
    """The messages between one user and one model."""

    def __init__(self, api: Client, model_id: str, options: JsonObject, system: str | None) -> None:
        self.model_id = model_id
        self._api = api
        self._options = {name: value for name, value in options.items() if value is not None}
        self._system = [{"role": "system", "content": system}] if system else []
        self.clear()

    def clear(self) -> None:
        """Forget all but the system message."""
        self.messages: list[dict[str, str]] = list(self._system)

    def ask(self, prompt: str, show: Callable[[str, str], None]) -> Answer:
        """Stream the answer through `show`. What was said stays, also when it is interrupted."""
        question = {"role": "user", "content": prompt}
        body = {
            "model": self.model_id,
            "messages": [*self.messages, question],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._options,
        }
        answer = Answer()
        try:
            with closing(self._api.stream("/v1/chat/completions", body)) as chunks:
                for chunk in chunks:
                    show(*answer.add(chunk))
        finally:
            if answer.text:
                self.messages += [question, {"role": "assistant", "content": answer.text}]
        if not answer.finish_reason:
            raise DaemonError("The answer ended before it was complete.", hint=LOGS_HINT)
        return answer


def converse(chat: Chat) -> None:
    """Read questions from the terminal until /exit or Ctrl-D."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # gives input() editing and history

    out.note(f"{chat.model_id}: /clear starts over, /exit or Ctrl-D ends.")
    while True:
        try:
            line = input("> " if sys.stdout.isatty() else "").strip()
        except EOFError:
            out.text("\n")
            return
        except KeyboardInterrupt:
            out.text("\n")
            continue
        if line == "/exit":
            return
        if line == "/clear":
            chat.clear()
        elif line:
            _take_turn(chat, line)


def _take_turn(chat: Chat, line: str) -> None:
    try:
        _answer(chat, line)
    except KeyboardInterrupt:
        out.text("\n")
    except DaemonError:
        raise
    except ExoError as error:
        # A question that was refused is no reason to lose the chat.
        out.error(error)


def _answer(chat: Chat, prompt: str) -> None:
    thinking = False

    def show(piece: str, thought: str) -> None:
        nonlocal thinking
        if out.json:
            return
        if thought and sys.stderr.isatty():
            thinking = True
            out.aside(printable(thought))
        if piece:
            if thinking:
                thinking = False
                out.aside("\n\n")
            out.text(printable(piece) if sys.stdout.isatty() else piece)

    answer = chat.ask(prompt, show)
    if out.json:
        out.result(
            {
                "model": chat.model_id,
                "answer": answer.text,
                **({"reasoning": answer.thought} if answer.thought else {}),
                "finish_reason": answer.finish_reason,
                "usage": answer.usage,
            },
            str,
        )
        return
    if not answer.text.endswith("\n"):
        out.text("\n")
    if answer.finish_reason == "length":
        out.note("The answer was cut at its longest; --max-tokens sets how long that is.")


def connect_or_start() -> Client:
    """A client of a daemon that answers; starts this machine's if none runs."""
    try:
        with connect() as api:
            api.get("/healthz")
    except DaemonNotRunning:
        if api_is_chosen():
            raise
        out.note("exo is not running: starting it in the background.")
        launch({})
    return connect()
