"""The chat format, as pieces of text that are learnt or only read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

START, END, CALL, CALL_END = "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"
PAD = "<|endoftext|>"

Message = dict[str, Any]


@dataclass
class Conversation:
    """One training example. `cut` leaves out the end of the last answer."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    cut: bool = False


def call(name: str, arguments: dict[str, Any]) -> Message:
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
    }


def _tool_line(tool: dict[str, Any]) -> str:
    function = tool["function"]
    parameters = function["parameters"]["properties"]
    listed = ", ".join(f"{name}: {spec['type']}" for name, spec in parameters.items())
    return f"- {function['name']}({listed}) {function['description']}"


def _call_text(calls: list[dict[str, Any]]) -> str:
    texts = []
    for item in calls:
        function = item["function"]
        arguments = json.dumps(function["arguments"])
        texts.append(
            f'{CALL}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{CALL_END}'
        )
    return "\n".join(texts)


def pieces(talk: Conversation) -> Iterator[tuple[str, bool]]:
    """Yields text and whether it is the model's own."""
    rest = talk.messages
    system = ""
    if rest and rest[0]["role"] == "system":
        system, rest = rest[0]["content"], rest[1:]
    if talk.tools:
        lines = "\n".join(_tool_line(t) for t in talk.tools)
        system = f"{system}\n\nTools:\n{lines}" if system else f"Tools:\n{lines}"
    if system:
        yield f"{START}system\n{system}{END}\n", False
    for at, message in enumerate(rest):
        yield f"{START}{message['role']}\n", False
        content = message["content"]
        if message.get("tool_calls"):
            content = (content + "\n" if content else "") + _call_text(message["tool_calls"])
        own = message["role"] == "assistant"
        yield content, own
        if talk.cut and at == len(rest) - 1:
            return
        yield END, own
        yield "\n", False


def text(talk: Conversation) -> str:
    return "".join(piece for piece, _ in pieces(talk))
