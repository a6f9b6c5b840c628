"""What `mlx_lm.generate` answers: `python reference.py` reads jobs from stdin, in a process that
knows nothing of exo.

A job is {"path", "messages", "max_tokens", "kv_dtype"}; the output is a JSON list of the answers'
texts. On a CPU everything that is not packed is cast to float32 first, as exo does, and keys and
values are kept in `kv_dtype`, if there is one.
"""

import json
import sys
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import generate, load
from mlx_lm.models.cache import KVCache, make_prompt_cache

HALF = (mx.float16, mx.bfloat16)


class Rounded(KVCache):
    def __init__(self, dtype: mx.Dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return super().update_and_fetch(keys.astype(self.dtype), values.astype(self.dtype))


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
        caches = make_prompt_cache(model)
        if job["kv_dtype"]:
            assert {type(cache) for cache in caches} == {KVCache}
            caches = [Rounded(getattr(mx, job["kv_dtype"])) for _ in caches]
        text = generate(model, tokenizer, prompt, max_tokens=job["max_tokens"], prompt_cache=caches)
        texts.append(text)
    return texts


if __name__ == "__main__":
    json.dump(answers(json.load(sys.stdin)), sys.stdout)
