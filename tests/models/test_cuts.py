"""Where a list of layers may be cut, by the config alone. That the rule agrees with the models' own
code is tested with the split."""

import pytest

from exo.models.cuts import cuts

GEMMA = {
    "num_hidden_layers": 10,
    "num_kv_shared_layers": 4,
    "layer_types": ["sliding_attention"] * 4 + ["full_attention", "sliding_attention"] * 3,
}


def test_most_architectures_may_be_cut_anywhere():
    assert cuts({"model_type": "llama", "num_hidden_layers": 4}) is None
    assert cuts({"model_type": "an architecture of tomorrow"}) is None
    assert cuts({}) is None


@pytest.mark.parametrize("model_type", ["gemma3n", "gemma4", "gemma4_text"])
def test_layers_that_share_keys_and_values_stay_with_the_first_that_made_them(model_type):
    assert cuts({"model_type": model_type, **GEMMA}) == (1, 2, 3, 4)
    assert cuts({"model_type": model_type, "text_config": GEMMA}) == (1, 2, 3, 4)


def test_a_gemma_that_shares_nothing_may_be_cut_anywhere():
    assert (
        cuts({"model_type": "gemma4", "text_config": {**GEMMA, "num_kv_shared_layers": 0}}) is None
    )


def test_a_gemma_that_says_little_has_the_defaults_of_its_kind():
    assert cuts({"model_type": "gemma4_text"}) == tuple(range(1, 14))


def test_only_the_types_that_are_shared_count():
    types = ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]
    config = {"num_hidden_layers": 4, "num_kv_shared_layers": 1, "layer_types": types}
    assert cuts({"model_type": "gemma4_text", **config}) == (1, 2)


def test_layers_that_reuse_the_last_keys_and_values_stay_with_it():
    assert cuts({"model_type": "afm7", "num_layers": 6, "num_kv_reuse_layers": 3}) == (1, 2)
    assert cuts({"model_type": "afm7", "num_layers": 6, "num_kv_reuse_layers": 0}) is None


def test_layers_that_compress_for_others_stay_with_them():
    config = {
        "num_hidden_layers": 8,
        "compress_ratios": [0, 4, 4, 4, 4, 4, 4, 0],
        "kv_source_layer_ids": [1, 4],
        "index_source_layer_ids": [1, 4],
    }
    assert cuts({"model_type": "deepseek_v41", **config}) == (1, 4, 7)


def test_layers_that_are_computed_several_times_cannot_be_cut():
    assert cuts({"model_type": "nanbeige", "num_hidden_layers": 4, "num_loops": 2}) == ()
    looped = {"model_type": "nanbeige", "num_hidden_layers": 4, "loop_loss_weights": [1.0]}
    assert cuts(looped) == ()
    assert cuts({"model_type": "nanbeige", "num_hidden_layers": 4}) is None
    assert cuts({"model_type": "iquestloopcoder", "num_hidden_layers": 4}) == ()


@pytest.mark.parametrize(
    "damage",
    [
        {"num_hidden_layers": "many"},
        {"layer_types": []},
        {"layer_types": 3},
        {"num_hidden_layers": 9},
    ],
)
def test_a_damaged_config_is_not_cut(damage):
    config = {"model_type": "gemma3n", **GEMMA, "num_kv_shared_layers": 9, **damage}
    assert cuts(config) == ()
