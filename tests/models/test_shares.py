"""What each node must get an equal part of, by the `config.json` alone."""

import pytest

from exo.models.shares import shares

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
}


def test_heads_and_widths_are_divided():
    found = shares(LLAMA)
    assert found is not None
    assert found.parts == {
        "attention heads": 32,
        "key-value heads": 8,
        "of the feed-forward width": 14336,
    }
    assert not found.latent
    assert [n for n in range(2, 17) if found.obstacle(n) is None] == [2, 4, 8]
    assert found.obstacle(16) == "8 key-value heads cannot be divided by 16"


def test_packed_weights_are_divided_between_groups():
    found = shares({**LLAMA, "intermediate_size": 64 * 6, "quantization": {"group_size": 64}})
    assert found is not None
    assert found.obstacle(2) is None
    assert found.obstacle(4) == (
        "6 of the feed-forward width, in groups of 64, cannot be divided by 4"
    )


def test_latent_keys_and_values_have_no_heads():
    found = shares({**LLAMA, "model_type": "deepseek_v3", "num_key_value_heads": 1})
    assert found is not None
    assert found.latent
    assert found.obstacle(2) is None


def test_what_lies_deeper_counts_as_well():
    text = {"text_config": LLAMA, "model_type": "qwen3_5", "vocab_size": 1001}
    found = shares(text)
    assert found is not None
    assert found.obstacle(2) == "1001 tokens of the vocabulary cannot be divided by 2"
    assert shares({**text, "tie_word_embeddings": True}).obstacle(2) is None
    step = {**LLAMA, "model_type": "step3p5"}
    other = {"num_attention_heads": 9, "num_attention_groups": 2}
    found = shares({**step, "attention_other_setting": other})
    assert found is not None
    assert found.obstacle(2) == "9 attention heads of some layers cannot be divided by 2"


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "gemma3"}, {"model_type": ["llama"]}, {"model_type": None}]
)
def test_other_architectures_are_not_split(config):
    assert shares(config) is None


@pytest.mark.parametrize("value", [None, "32", -1, 0, [8], {"a": 1}])
def test_what_is_no_number_is_no_obstacle(value):
    found = shares({**LLAMA, "num_key_value_heads": value, "quantization": value})
    assert found is not None
    assert "key-value heads" not in found.parts
