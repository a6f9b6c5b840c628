"""The items of a request: as exo keeps them, and as the messages that chat templates know. Pure."""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from exo.api.chat_adapter import arguments_of
from exo.api.chat_schema import RefusalPart
from exo.api.response_ids import item_id
from exo.api.response_items import (
    AskedView,
    CallView,
    InputTextView,
    Item,
    OutputTextView,
    RefusalView,
    ResultView,
    SaidView,
    SummaryView,
    ThoughtTextView,
    ThoughtView,
)
from exo.api.response_schema import (
    CallItem,
    InputItem,
    MessageItem,
    ReferenceItem,
    ResultItem,
    ThoughtItem,
)
from exo.errors import RequestError

_ENCODED = "exo1:"
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}


def references(asked: str | Sequence[InputItem] | None) -> list[str]:
    """The ids of the items that are only referred to."""
    if asked is None or isinstance(asked, str):
        return []
    return [item.id for item in asked if isinstance(item, ReferenceItem)]


def items_of(
    asked: str | Sequence[InputItem] | None,
    response_id: str,
    first: int,
    known: Callable[[str], Item],
) -> list[Item]:
    """The items as they are kept, the first of which has the number `first` in its id if it has
    none. `known` gives those that are referred to.

    Raises:
        RequestError: a thought cannot be read.
    """
    if asked is None:
        return []
    if isinstance(asked, str):
        asked = [MessageItem(role="user", content=asked)]
    found: list[Item] = []
    for number, item in enumerate(asked, first):
        if isinstance(item, ReferenceItem):
            found.append(known(item.id))
            continue
        name = item.id or item_id(_PREFIXES[item.type], response_id, number)
        found.append(_kept(item, name))
    return found


def _kept(item: MessageItem | CallItem | ResultItem | ThoughtItem, name: str) -> Item:
    status = item.status or "completed"
    match item:
        case MessageItem():
            return _message(item, name)
        case CallItem():
            return CallView(
                id=name,
                status=status,
                call_id=item.call_id,
                name=item.name,
                arguments=item.arguments,
            )
        case ResultItem(output=output):
            texts = output if isinstance(output, str) else [_input(part.text) for part in output]
            return ResultView(
                id=name, status=status, call_id=item.call_id, output=texts, name=item.name
            )
        case ThoughtItem():
            thoughts = [part.text for part in item.content or ()]
            if not thoughts and item.encrypted_content is not None:
                thoughts = [decoded(item.encrypted_content)]
            return ThoughtView(
                id=name,
                status=status,
                summary=[SummaryView(text=part.text) for part in item.summary],
                content=[ThoughtTextView(text=text) for text in thoughts],
                encrypted_content=item.encrypted_content,
            )


def _message(item: MessageItem, name: str) -> AskedView | SaidView:
    status = item.status or "completed"
    parts = item.content
    if item.role != "assistant":
        texts = [parts] if isinstance(parts, str) else [_text(part) for part in parts]
        content = [_input(text) for text in texts]
        return AskedView(id=name, role=item.role, status=status, content=content)
    if isinstance(parts, str):
        return SaidView(id=name, status=status, content=[OutputTextView(text=parts)])
    said = [
        RefusalView(refusal=part.refusal)
        if isinstance(part, RefusalPart)
        else OutputTextView(text=part.text)
        for part in parts
    ]
    return SaidView(id=name, status=status, content=said)


def _input(text: str) -> InputTextView:
    return InputTextView(text=text)


def _text(part: Any) -> str:
    """What a part of a message says."""
    return part.refusal if isinstance(part, RefusalPart | RefusalView) else part.text


# Thoughts, for clients that keep nothing else of them.


def encoded(text: str) -> str:
    """A thought as the one text that clients keep of it. It is no secret: they see it as well."""
    return _ENCODED + base64.b64encode(text.encode()).decode("ascii")


def decoded(text: str) -> str:
    """Raises:
    RequestError: it is not what `encoded` gave.
    """
    try:
        if text.startswith(_ENCODED):
            return base64.b64decode(text.removeprefix(_ENCODED), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        pass
    raise RequestError("An encrypted_content is not one of exo's.", param="input")


# Messages.


class _Talk:
    """Messages in the making: what the assistant thinks, says and calls in a row is one."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._turn: dict[str, Any] | None = None
        self._asked: set[str] = set()

    def add(self, item: Item) -> None:
        match item:
            case AskedView():
                self._turn, self._asked = None, set()
                role = "system" if item.role == "developer" else item.role
                self.messages.append({"role": role, "content": _joined(item.content)})
            case ResultView():
                self._turn = None
                self._result(item)
            case ThoughtView():
                turn = self._open("content", "tool_calls", "reasoning_content")
                turn["reasoning_content"] = _joined(item.content or item.summary)
            case SaidView():
                self._open("content")["content"] = _joined(item.content)
            case CallView():
                self._call(item)

    def _open(self, *taken: str) -> dict[str, Any]:
        """The assistant's message, another one if this has one of these already."""
        if self._turn is None or any(self._turn.get(name) for name in taken):
            self._turn = {"role": "assistant", "content": ""}
            self.messages.append(self._turn)
        return self._turn

    def _call(self, item: CallView) -> None:
        function = {"name": item.name, "arguments": arguments_of(item.arguments)}
        call = {"id": item.call_id, "type": "function", "function": function}
        self._open().setdefault("tool_calls", []).append(call)
        self._asked.add(item.call_id)

    def _result(self, item: ResultView) -> None:
        if item.call_id not in self._asked:
            raise RequestError(
                f"There is the result of the call '{item.call_id}', which nothing before it asks "
                "for.",
                param="input",
            )
        output = item.output if isinstance(item.output, str) else _joined(item.output)
        message = {"role": "tool", "tool_call_id": item.call_id, "content": output}
        self.messages.append({**message, "name": item.name} if item.name else message)


def _joined(parts: Iterable[Any]) -> str:
    return "".join(_text(part) for part in parts)


def to_messages(instructions: str | None, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Messages as chat templates know them. The instructions and what the system says at the
    beginning are one, since many templates know one only.

    Raises:
        RequestError: one is the result of no call.
    """
    talk = _Talk()
    for item in items:
        talk.add(item)
    messages = talk.messages
    if not instructions:
        return messages
    leading = sum(1 for _ in _leading(messages))
    texts = [instructions, *(message["content"] for message in messages[:leading])]
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[leading:]]


def _leading(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message["role"] != "system":
            return
        yield message


# What is left out so that the rest fits.


def turns(items: Sequence[Item]) -> int:
    """How many turns the conversation has: each begins with what the user says."""
    return max(sum(1 for item in items if _begins(item)), 1)


def shortened(items: Sequence[Item], dropped: int) -> list[Item]:
    """The conversation without its first turns; what the system says stays."""
    found: list[Item] = []
    begun = 0
    for item in items:
        begun += _begins(item)
        system = isinstance(item, AskedView) and item.role != "user"
        if system or begun > dropped or dropped == 0:
            found.append(item)
    return found


def _begins(item: Item) -> bool:
    return isinstance(item, AskedView) and item.role == "user"
