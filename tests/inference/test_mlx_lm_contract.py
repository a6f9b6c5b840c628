"""What exo relies on in mlx-lm, whose interfaces change with about every second release.

If one of these fails after an upgrade, `exo/inference/mlx/adapter.py` is what has to follow.
"""

import inspect
from importlib.metadata import version

from mlx_lm.generate import BatchGenerator, GenerationBatch, generate_step
from mlx_lm.models.cache import KVCache, LRUPromptCache
from mlx_lm.tokenizer_utils import StreamingDetokenizer, TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_versions_are_the_pinned_ones():
    assert version("mlx-lm") == "0.32.2"
    assert version("mlx") == "0.32.2"


def test_the_batch_generator_takes_what_a_sequence_needs():
    assert {"stop_tokens", "completion_batch_size", "prefill_batch_size", "prefill_step_size"} <= (
        parameters(BatchGenerator.__init__)
    )
    assert {"prompts", "max_tokens", "caches", "all_tokens", "samplers", "logits_processors"} <= (
        parameters(BatchGenerator.insert)
    )
    assert "uids" in parameters(BatchGenerator.remove)


def test_a_response_has_what_the_adapter_reads():
    fields = set(GenerationBatch.Response.__dataclass_fields__)
    assert {"uid", "token", "logprobs", "finish_reason", "prompt_cache", "all_tokens"} <= fields


def test_caches_that_can_be_batched_can_be_merged():
    assert hasattr(KVCache, "merge")


def test_the_prompt_cache_is_bounded_by_bytes_and_count():
    assert {"max_size", "max_bytes"} <= parameters(LRUPromptCache.__init__)
    assert parameters(LRUPromptCache.fetch_nearest_cache) == {"self", "model", "tokens"}
    assert {"model", "tokens", "prompt_cache"} <= parameters(LRUPromptCache.insert_cache)


def test_loading_is_lazy_and_runs_no_code_of_the_models():
    assert {"model_path", "lazy", "trust_remote_code"} <= parameters(load_model)
    assert inspect.signature(load_model).parameters["trust_remote_code"].default is False
    assert "eos_token_ids" in parameters(load_tokenizer)


def test_tokenizers_and_detokenizers_have_what_is_used():
    for name in ("apply_chat_template", "eos_token_ids", "detokenizer"):
        assert hasattr(TokenizerWrapper, name)
    for name in ("add_token", "finalize", "last_segment"):
        assert hasattr(StreamingDetokenizer, name)


def test_one_by_one_generation_takes_what_a_sequence_needs():
    assert {"max_tokens", "sampler", "logits_processors", "prefill_step_size"} <= (
        parameters(generate_step)
    )
