"""Tiny random models in mlx-lm layout, made in a moment, whose every byte the tests know.

A random llama says nonsense, but the same nonsense every time, so tests can compare answers. Its
tokenizer knows all bytes, so that answers are cut within characters as well.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|im_end|>"
SPECIAL = ["<unk>", "<s>", END, "<|im_start|>"]
END_ID = SPECIAL.index(END)
VOCABULARY = 400
HIDDEN, HEADS, FEED_FORWARD = 64, 4, 128
GROUP = 32

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' and not m.tool_call_id %}"
    "{{ raise_exception('a tool message needs its call') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Weights = dict[str, mx.array]


def make_model(
    folder: Path,
    *,
    dtype: mx.Dtype = mx.float16,
    files: int = 1,
    bits: int | None = None,
    layers: int = 3,
    context: int = 2048,
    seed: int = 0,
    scale: int = 1,
    heads: int = HEADS,
    ends: bool = True,
) -> Path:
    """A model folder. With several `files` there is an index; with `bits` it is quantised, and
    the scales keep `dtype`. It is `scale` times as wide as a tiny one, whose `heads` share
    keys and values in pairs. Without `ends` no greedy answer ends before it
    is as long as it may be: the end's logit is 0, and of hundreds of others some are above."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN * scale,
        "num_hidden_layers": layers,
        "num_attention_heads": heads * scale,
        "num_key_value_heads": heads // 2 * scale,
        "head_dim": HIDDEN // heads,
        "intermediate_size": FEED_FORWARD * scale,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype).rsplit(".", 1)[-1],
        "bos_token_id": SPECIAL.index("<s>"),
        "eos_token_id": END_ID,
    }
    weights = _random_weights(layers, dtype, seed, scale)
    if not ends:
        weights["lm_head.weight"][END_ID] = 0
    if bits is not None:
        config["quantization"] = {"group_size": GROUP, "bits": bits}
        weights = _quantised(weights, bits)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _save_weights(folder, weights, files)
    _save_tokenizer(folder, context)
    return folder


def _random_weights(layers: int, dtype: mx.Dtype, seed: int, width: int) -> Weights:
    hidden, forward = HIDDEN * width, FEED_FORWARD * width
    shared = hidden // 2  # Two heads share keys and values.
    keys = iter(list(mx.random.split(mx.random.key(seed), 2 + 7 * layers)))
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        values = mx.random.normal((rows, columns), key=next(keys)) * scale
        weights[f"{name}.weight"] = values.astype(dtype)

    matrix("model.embed_tokens", VOCABULARY, hidden, 1.0)
    matrix("lm_head", VOCABULARY, hidden, 0.4)
    weights["model.norm.weight"] = mx.ones((hidden,), dtype=dtype)
    for number in range(layers):
        layer = f"model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{layer}.{norm}.weight"] = mx.ones((hidden,), dtype=dtype)
        matrix(f"{layer}.self_attn.q_proj", hidden, hidden, 0.2)
        matrix(f"{layer}.self_attn.k_proj", shared, hidden, 0.2)
        matrix(f"{layer}.self_attn.v_proj", shared, hidden, 0.2)
        matrix(f"{layer}.self_attn.o_proj", hidden, hidden, 0.2)
        matrix(f"{layer}.mlp.gate_proj", forward, hidden, 0.2)
        matrix(f"{layer}.mlp.up_proj", forward, hidden, 0.2)
        matrix(f"{layer}.mlp.down_proj", hidden, forward, 0.2)
    return weights


def _quantised(weights: Weights, bits: int) -> Weights:
    packed: Weights = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            packed[name] = weight
            continue
        stem = name.removesuffix(".weight")
        values, scales, biases = mx.quantize(weight, group_size=GROUP, bits=bits)
        packed |= {name: values, f"{stem}.scales": scales, f"{stem}.biases": biases}
    return packed


def _save_weights(folder: Path, weights: Weights, files: int) -> None:
    names = sorted(weights)
    mx.eval(weights)
    if files == 1:
        _save(folder / "model.safetensors", weights)
        return
    places: dict[str, str] = {}
    for number in range(files):
        part = names[number::files]
        file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        _save(folder / file, {name: weights[name] for name in part})
        places |= dict.fromkeys(part, file)
    total = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _save(file: Path, weights: Weights) -> None:
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})


def _save_tokenizer(folder: Path, context: int) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the corpus gives {tokenizer.get_vocab_size()} tokens only")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": END,
        "pad_token": END,
        "unk_token": "<unk>",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def _corpus() -> list[str]:
    """Any text does: here the file at hand."""
    return Path(__file__).read_text("utf-8").splitlines()
