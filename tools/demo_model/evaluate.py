"""Asks the exported model the held-out questions through mlx-lm: `evaluate.py FOLDER`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import corpus
import judge
import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import load, stream_generate
from mlx_lm.sample_utils import make_sampler
from render import Conversation, text

OVERALL, EACH = 0.90, 0.75


def answer(model: Any, tokenizer: Any, item: dict[str, Any], temperature: float = 0.0) -> str:
    prompt = tokenizer.apply_chat_template(
        item["messages"], tools=item.get("tools"), add_generation_prompt=True
    )
    limit, full = item["judge"].get("tokens", 160), ""
    for piece in stream_generate(
        model, tokenizer, prompt, max_tokens=limit, sampler=make_sampler(temperature)
    ):
        full += piece.text
    if item["judge"]["kind"] == "repeats" and piece.generation_tokens < limit:
        return full + " (ended early)"
    return full


def check_template(tokenizer: Any) -> None:
    """The model was trained on `render.text`: the template must say the same."""
    talks: list[Conversation] = list(corpus.write(7, 1000))
    for talk in talks:
        if talk.cut:
            continue
        said = tokenizer.apply_chat_template(
            talk.messages, tools=talk.tools or None, tokenize=False
        )
        if said != text(talk):
            raise SystemExit(f"the template differs:\n{said!r}\n{text(talk)!r}")
    if not tokenizer.has_tool_calling:
        raise SystemExit("mlx-lm finds no tool calling in the template")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    model, tokenizer = load(str(options.folder))[:2]
    model.update(tree_map(lambda w: w.astype(mx.float32), model.parameters()))
    check_template(tokenizer)
    scores: dict[str, list[bool]] = defaultdict(list)
    began = time.monotonic()
    for item in corpus.held_out():
        said = answer(model, tokenizer, item, options.temperature)
        good = judge.right(said, item["judge"])
        scores[item["category"]].append(good)
        if not good:
            print(f"WRONG [{item['category']}] {item['messages'][-1]['content']!r} -> {said!r}")
    for name, marks in scores.items():
        print(f"{name:12} {sum(marks):3}/{len(marks):3} {sum(marks) / len(marks):.1%}")
    marks = [m for some in scores.values() for m in some]
    overall = sum(marks) / len(marks)
    spent = time.monotonic() - began
    print(f"overall      {sum(marks):3}/{len(marks):3} {overall:.1%} in {spent:.0f}s")
    if overall < OVERALL or any(sum(m) < EACH * len(m) for m in scores.values()):
        sys.exit("not good enough")


if __name__ == "__main__":
    main()
