"""What marks the calls and thoughts of the model families that exo knows, as their chat templates
and tokenizers have it: just enough for mlx-lm to tell them apart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.models_maker import VOCABULARY, make_model

_MESSAGES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
THINK_TOKENS = ("<think>", "</think>")
# The template of a model that thinks if it may, by itself or from the prompt on.
THINKING = (
    _MESSAGES
    + "{% if enable_thinking is defined and not enable_thinking %}"
    + "<think>\n\n</think>\n\n{% endif %}"
)
ALWAYS_THINKING = _MESSAGES + "{% if add_generation_prompt %}<think>\n{% endif %}"
LEVELS = THINKING + "{# {{ reasoning_effort }} #}{% if reasoning_effort %}{% endif %}"


@dataclass(frozen=True)
class Family:
    """`sign` is what the template says of calls, `tokens` those that no text spells; `one` and
    `two` are how the calls f(a=5, b="x y") and f(a=5), g() are written."""

    kind: str
    sign: str
    tokens: tuple[str, ...]
    one: str
    two: str

    @property
    def template(self) -> str:
        quoted = self.sign.replace("\\", "\\\\").replace('"', '\\"')
        return f'{_TOOLS}{{% set sign = "{quoted}" %}}{_MESSAGES}'


def first_of(tokens: Sequence[str]) -> int:
    """The number of the first of a family's tokens; the others follow."""
    return VOCABULARY - len(tokens)


def make_family(folder: Path, template: str, tokens: Sequence[str]) -> Path:
    """A tiny model with this template, and these tokens in the place of its last ones."""
    make_model(folder)
    file, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    data = json.loads(file.read_text("utf-8"))
    first, model = first_of(tokens), data["model"]
    model["vocab"] = {text: number for text, number in model["vocab"].items() if number < first}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    usual = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    data["added_tokens"] += [
        {"id": first + n, "content": text, "special": True, **usual}
        for n, text in enumerate(tokens)
    ]
    file.write_text(json.dumps(data), "utf-8")
    settings = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**settings, "chat_template": template}), "utf-8")
    return folder


FAMILIES = [
    Family(
        "json_tools",
        "<tool_call> tool_call.name </tool_call>",
        ("<tool_call>", "</tool_call>"),
        '<tool_call>\n{"name": "f", "arguments": {"a": 5, "b": "x y"}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {"a": 5}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
    ),
    Family(
        "mistral",
        "[TOOL_CALLS] [ARGS]",
        ("[TOOL_CALLS]", "[ARGS]"),
        '[TOOL_CALLS]f[ARGS]{"a": 5, "b": "x y"}',
        '[TOOL_CALLS]f[ARGS]{"a": 5}[TOOL_CALLS]g[ARGS]{}',
    ),
    Family(
        "mistral list",
        "[TOOL_CALLS]",
        ("[TOOL_CALLS]",),
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 5, "b": "x y"}}]',
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 5}}, {"name": "g", "arguments": {}}]',
    ),
    Family(
        "qwen3_coder",
        "<tool_call>\n<function=",
        ("<tool_call>", "</tool_call>"),
        "<tool_call>\n<function=f>\n<parameter=a>\n5\n</parameter>\n<parameter=b>\nx y\n"
        "</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=f>\n<parameter=a>\n5\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=g>\n</function>\n</tool_call>",
    ),
    Family(
        "glm47",
        "<arg_key>",
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>5</arg_value>\n<arg_key>b</arg_key>\n"
        "<arg_value>x y</arg_value>\n</tool_call>",
        "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>5</arg_value>\n</tool_call>\n"
        "<tool_call>g\n</tool_call>",
    ),
    Family(
        "pythonic",
        "<|tool_call_start|>",
        ("<|tool_call_start|>", "<|tool_call_end|>"),
        '<|tool_call_start|>[f(a=5, b="x y")]<|tool_call_end|>',
        "<|tool_call_start|>[f(a=5), g()]<|tool_call_end|>",
    ),
]

# Those that mlx-lm has no parser for: templates of exo's tests, in the words of the models' own.

HARMONY_TOKENS = (
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|constrain|>",
)
HARMONY = (
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{# {{ reasoning_effort }} #}{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>"
    "{% endif %}{% if m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    "{% if m.content %}{{ raise_exception('a call has no content') }}{% endif %}"
    "<|start|>assistant to=functions.{{ call.name }}<|channel|>commentary json<|message|>"
    "{{ call.arguments | tojson }}<|call|>"
    "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
LLAMA_TOKENS = ("<|python_tag|>",)
LLAMA = (
    '{% if tools %}Respond in the format {"name": function name, "parameters": dictionary of '
    "argument name and its value}.{{ tools | tojson }}{% endif %}" + _MESSAGES
)
