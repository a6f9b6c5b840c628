"""Tokenizers of a few hundred tokens, as the image models' loaders want them."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPTokenizer, T5Tokenizer

_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
QWEN_SIZE = len(_BYTES) + len(_SPECIAL)
IMAGE_TOKEN = len(_BYTES) + _SPECIAL.index("<|image_pad|>")
CLIP_SIZE = 2 * len(_BYTES) + 2
T5_SIZE = 256

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen(folder: Path) -> None:
    folder.mkdir(parents=True)
    vocabulary = {token: index for index, token in enumerate(_BYTES)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(len(_BYTES) + index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for index, token in enumerate(_SPECIAL)
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "Qwen2Tokenizer",
                "added_tokens_decoder": added,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": 2048,
                "chat_template": _CHAT,
            }
        )
    )


def clip(folder: Path) -> None:
    """The end token has the highest number: CLIP finds it so."""
    words = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: i for i, token in enumerate(words)}, merges=[]).save_pretrained(
        folder
    )


def t5(folder: Path) -> None:
    letters = [f"▁{chr(c)}" for c in range(33, 127)] + [chr(c) for c in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(token, -3.0) for token in letters]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder)
