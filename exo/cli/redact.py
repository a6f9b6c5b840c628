"""What must not leave this machine in a bug report: tokens, keys and passwords."""

import re
from typing import cast

REMOVED = "[removed]"

# A setting, a header or a field of this name holds a secret. Tokens of text are `tokens`.
_NAMES = (
    r"[\w-]*(?:secret|passw(?:or)?d|passphrase|credentials?|authorization|token"
    r"|(?:api|access|private)[_-]?key)"
)
_SECRET_NAME = re.compile(rf"(?i){_NAMES}")
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL), REMOVED),
    # A join token, wherever it stands.
    (re.compile(r"\bexo1-[\w+/=.-]+"), REMOVED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {REMOVED}"),
    # Keys of well-known services, by their beginnings.
    (re.compile(r"\b(?:sk|pk|rk|hf|gh[pousr]|xox[abp])[-_][\w-]{10,}"), REMOVED),
    # The password of an address.
    (re.compile(r"(://[^\s/:@\"']*):[^\s/@\"']+@"), rf"\1:{REMOVED}@"),
    # A value beside the name of a secret: in quotes, else up to the end of the line or the list.
    (re.compile(rf"(?i)(\b{_NAMES}[\"']?\s*[:=]\s*)([\"'])[^\r\n]*?\2"), rf"\1\2{REMOVED}\2"),
    (re.compile(rf"(?i)(\b{_NAMES}[ \t]*[:=][ \t]*)(?![\"'\s])[^\r\n,;]+"), rf"\1{REMOVED}"),
)


def redact(text: str) -> str:
    """`text` without what looks like a secret."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact_json(value: object) -> object:
    """A JSON value without what looks like a secret, by its name or by itself."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_json(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {name: _field(name, item) for name, item in items}
    return value


def _field(name: str, value: object) -> object:
    if isinstance(value, str) and value and _SECRET_NAME.fullmatch(name):
        return REMOVED
    return redact_json(value)
