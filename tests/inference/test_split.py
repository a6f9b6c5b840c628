"""A model in stages computes what it computes whole, bit for bit, and reads only what it needs."""

import gc
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from exo.errors import ModelInvalid, RingError
from exo.inference.mlx.adapter import open_model
from exo.inference.mlx.split import SplitStage
from exo.inference.mlx.stage import WholeModel
from exo.inference.mlx.trace import trace
from tests.models_maker import make_model

from .architectures import (
    build,
    configurations,
    generate,
    judge,
    layers_of,
    random_weights,
    same,
)

ROOT = Path(__file__).parents[2]
KNOWN = configurations()

# Of each kind that the split has to know about.
OF_EACH_KIND = [
    "llama",  # nothing special
    "afm7",  # the last layers reuse the keys and values of one
    "bailing_moe_linear",  # stages that have no layer of one kind, but need its position
    "cohere2",  # sliding windows, parallel blocks
    "deepseek_v3",  # latent attention, experts
    "deepseek_v32",  # two caches in each layer
    "deepseek_v41",  # layers write into a dict that others read
    "gemma3n",  # shared keys and values; an embedding for each layer; hidden states are stacked
    "gemma4_text",  # shared keys and values are returned
    "gpt_oss",  # attention sinks, sliding windows
    "gptj",  # the hidden state is a keyword
    "hunyuan",  # keys and values of one token travel
    "jamba",  # attention and state space
    "kimi_k3",  # layers add to an object that they return
    "llama4",  # caches in chunks, which are cut outside of the layers
    "longcat_flash_ngram",  # a cache of tokens that no layer is given
    "nemotron_h",  # layers without a cache
    "olmo_hybrid",  # the kinds of layers are told apart by their class
    "qwen3_next",  # linear attention
    "rwkv7",  # what the first layer returns travels to all others
    "talkie",  # the embedding goes to every layer
]


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_stages_compute_what_the_whole_model_computes(name):
    # Over more stages than three as well: the table below.
    outcome = judge(KNOWN[name], every_cut=False)
    assert outcome.wrong is None
    assert outcome.refused is None
    assert len(outcome.passed) >= 4


@pytest.mark.parametrize("name", ["llama", "gemma3n", "falcon_h1"])
@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_stages_of_a_quantised_model_compute_what_it_computes_whole(name, mode):
    def build_quantised():
        model = build(KNOWN[name], weights)
        nn.quantize(model, 32, 4, mode=mode, class_predicate=_can_be_quantised)
        return model

    weights = random_weights(build(KNOWN[name]))
    plan = trace(build_quantised())
    stages = [SplitStage(build_quantised(), plan, 0, 2), SplitStage(build_quantised(), plan, 2, 3)]
    stages.append(SplitStage(build_quantised(), plan, 3, plan.n_layers))
    assert same(generate(stages, [33, 37]), generate([WholeModel(build_quantised())], [33, 37]))


def _can_be_quantised(_, module) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_the_table_says_what_comes_of_every_architecture():
    command = [sys.executable, "tools/architectures.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["nanbeige", "iquestloopcoder"])
def test_layers_that_do_not_follow_each_other_are_refused(name):
    with pytest.raises(ModelInvalid, match="cannot be split over nodes"):
        trace(build(KNOWN[name]))


def test_a_cut_between_layers_that_share_is_refused_with_the_reason():
    model = build(KNOWN["gemma3n"])
    with pytest.raises(ModelInvalid, match=r"layers 4 and 7 share .* before 1, 2, 3, 4\."):
        SplitStage(model, trace(model), 0, 6)


@pytest.mark.parametrize(("start", "end"), [(0, 5), (2, 2), (-1, 3), (3, 1)])
def test_layers_that_are_not_there_are_refused(start, end):
    model = build(KNOWN["llama"])
    with pytest.raises(ModelInvalid, match="has no layers"):
        SplitStage(model, trace(model), start, end)


def test_too_few_tensors_are_refused():
    model = build(KNOWN["rwkv7"])
    stage = SplitStage(model, trace(model), 1, 4)
    with pytest.raises(RingError, match="1 tensors came where 2 were due"):
        stage(mx.array([[1]]), [mx.zeros((1, 1, 128))], stage.make_cache())


def test_a_traced_model_is_as_it_was():
    entry = KNOWN["kimi_k3"]
    weights = random_weights(build(entry))
    tokens = mx.array([[1, 2, 3]])
    untraced, model = build(entry, weights), build(entry, weights)
    classes = [type(layer) for layer in layers_of(model)]
    trace(model)
    assert [type(layer) for layer in layers_of(model)] == classes
    assert mx.array_equal(model(tokens), untraced(tokens)).item()


def test_what_is_learned_does_not_depend_on_whether_functions_are_compiled():
    cuts = [sorted(trace(build(KNOWN["gemma4_text"])).valid_cuts)]
    mx.enable_compile()
    try:
        cuts.append(sorted(trace(build(KNOWN["gemma4_text"])).valid_cuts))
    finally:
        mx.disable_compile()
    assert cuts == [[1, 2, 3, 4]] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("deep") / "model", layers=24, dtype=mx.float32)


def memory_of(load) -> int:
    """Bytes that MLX holds at most while this runs, beyond what it held before."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    kept = load()
    peak = mx.get_peak_memory() - before
    del kept
    return peak


def test_learning_about_a_model_reads_nothing(folder):
    model, _ = open_model(folder)
    assert memory_of(lambda: trace(model)) < 2**16


@pytest.mark.parametrize(("start", "end"), [(0, 8), (8, 16), (16, 24)])
def test_a_stage_reads_its_share_of_the_weights(folder, start, end):
    def load():
        model, _ = open_model(folder)
        stage = SplitStage(model, trace(model), start, end)
        mx.eval(stage.model.parameters())
        return stage

    whole, _ = open_model(folder)
    share = sum(part.nbytes for part in _arrays(whole.layers[start:end]))
    share += _arrays([whole.model.embed_tokens])[0].nbytes if start == 0 else 0
    share += sum(p.nbytes for p in _arrays([whole.lm_head, whole.model.norm])) if end == 24 else 0
    assert 0.9 * share < memory_of(load) <= 1.2 * share


def test_a_stage_that_nobody_needs_gives_its_memory_back_at_once(folder):
    def load():
        model, _ = open_model(folder)
        stage = SplitStage(model, trace(model), 8, 16)
        mx.eval(stage.model.parameters())

    gc.collect()
    before = mx.get_active_memory()
    gc.disable()
    try:
        load()
        assert mx.get_active_memory() - before < 2**16
    finally:
        gc.enable()


def test_computing_reads_nothing_more(folder):
    model, _ = open_model(folder)
    stage = SplitStage(model, trace(model), 8, 16)
    mx.eval(stage.model.parameters())
    embedding = model.model.embed_tokens.weight.nbytes

    def step():
        cache = stage.make_cache()
        outputs = stage(mx.array([[1]]), [mx.zeros((1, 1, 64))], cache)
        mx.eval(outputs, [each.state for each in cache])
        return sum(each.nbytes for each in cache)

    caches = step()
    assert memory_of(step) - caches < embedding


def _arrays(modules) -> list[mx.array]:
    return [array for module in modules for _, array in tree_flatten(module.parameters())]
