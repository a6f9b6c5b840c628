"""What `mlx_lm.generate` answers: `python reference.py` reads jobs from stdin, in a process that
knows nothing of exo.

A job is {"path", "messages", "max_tokens"}; the output is a JSON list of the answers' texts. On a
CPU everything that is not packed is cast to float32 first, as exo does.
"""

import json
import sys
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import generate, load

HALF = (mx.float16, mx.bfloat16)


def answers(jobs: list[dict[str, Any]]) -> list[str]:
    texts: list[str] = []
    for job in jobs:
        model, tokenizer = load(job["path"])
        if mx.default_device() == mx.Device(mx.cpu):
            model.update(
                tree_map(
                    lambda a: a.astype(mx.float32) if a.dtype in HALF else a, model.parameters()
                )
            )
        prompt = tokenizer.apply_chat_template(job["messages"], add_generation_prompt=True)
        texts.append(generate(model, tokenizer, prompt, max_tokens=job["max_tokens"]))
    return texts


if __name__ == "__main__":
    json.dump(answers(json.load(sys.stdin)), sys.stdout)
