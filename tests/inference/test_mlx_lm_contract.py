"""What exo relies on in mlx-lm, whose interfaces change with about every second release.

If one of these fails after an upgrade, `exo/inference/mlx/adapter.py` is what has to follow.
"""

import copy
import importlib
import inspect
from importlib.metadata import version

import mlx.core as mx
import pytest
from mlx_lm.models.cache import CacheList, KVCache, RotatingKVCache
from mlx_lm.tokenizer_utils import StreamingDetokenizer, TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_versions_are_the_pinned_ones():
    assert version("mlx-lm") == "0.32.2"
    assert version("mlx") == "0.32.2"


def test_caches_of_a_batch_are_made_of_those_of_sequences_and_back():
    def filled(tokens: int) -> KVCache:
        cache = KVCache()
        keys = mx.random.normal((1, 2, tokens, 4))
        cache.update_and_fetch(keys, keys)
        return cache

    short, long = filled(3), filled(5)
    batch = KVCache.merge([short])
    batch.extend(KVCache.merge([long]))
    batch.filter([1])
    (kept,) = [batch.extract(0)]
    assert isinstance(kept, KVCache)
    assert kept.offset == 5
    assert mx.array_equal(kept.keys[..., :5, :], long.keys[..., :5, :])


def test_a_copy_of_a_cache_goes_its_own_way():
    cache = KVCache()
    keys = mx.random.normal((1, 2, 4, 4))
    cache.update_and_fetch(keys, keys)
    other = copy.deepcopy(cache)
    assert other.trim(2) == 2
    other.update_and_fetch(keys, keys)
    assert (cache.offset, other.offset) == (4, 6)
    assert mx.array_equal(cache.keys[..., :4, :], keys)


def test_windows_and_states_say_that_they_are():
    assert RotatingKVCache(max_size=8).max_size == 8
    assert CacheList(KVCache(), KVCache()).caches


def test_loading_is_lazy_and_runs_no_code_of_the_models():
    assert {"model_path", "lazy", "trust_remote_code"} <= parameters(load_model)
    assert inspect.signature(load_model).parameters["trust_remote_code"].default is False
    assert "eos_token_ids" in parameters(load_tokenizer)


def test_tokenizers_and_detokenizers_have_what_is_used():
    for name in ("apply_chat_template", "eos_token_ids", "detokenizer"):
        assert hasattr(TokenizerWrapper, name)
    for name in ("add_token", "finalize", "last_segment"):
        assert hasattr(StreamingDetokenizer, name)


def test_tokenizers_say_how_their_model_marks_thoughts_and_calls():
    for name in (
        "has_tool_calling",
        "tool_call_start",
        "tool_call_end",
        "tool_parser",
        "think_start",
        "think_end",
        "eos_token_ids",
    ):
        assert isinstance(inspect.getattr_static(TokenizerWrapper, name), property), name
    assert parameters(TokenizerWrapper.rfind_think_start) >= {"tokens"}
    assert parameters(TokenizerWrapper.rfind_think_end) >= {"tokens"}


@pytest.mark.parametrize(
    "name", ["json_tools", "mistral", "qwen3_coder", "glm47", "pythonic", "function_gemma"]
)
def test_a_parser_reads_the_text_between_its_marks(name: str):
    module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    assert isinstance(module.tool_call_start, str)
    assert isinstance(module.tool_call_end, str)
    assert len(parameters(module.parse_tool_call)) == 2
