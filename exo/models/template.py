"""A model's chat template, read without its tokenizer."""

import json
from pathlib import Path
from typing import Any, cast


def read_template(folder: Path) -> str:
    """The chat template of a model folder, empty if it has none. It blocks."""
    try:
        file = folder / "chat_template.jinja"
        if file.exists():
            return file.read_text("utf-8")
        data: Any = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    found = cast("dict[str, Any]", data).get("chat_template") if isinstance(data, dict) else ""
    return found if isinstance(found, str) else ""


# What templates that speak of thoughts have in them.
_THINKING = ("<think>", "enable_thinking", "<|channel|>analysis")


def capabilities(template: str) -> list[str]:
    """What a model with this template can do, in Ollama's words."""
    found = ["completion"]
    if "tools" in template:
        found.append("tools")
    if any(sign in template for sign in _THINKING):
        found.append("thinking")
    return found
