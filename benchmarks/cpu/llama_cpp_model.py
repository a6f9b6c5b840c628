"""llama.cpp on the same shape, from a Python that has `llama-cpp-python` and `gguf`, not exo's:

python llama_cpp_model.py SHAPE Q4_0|Q8_0 THREADS FOLDER
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cpu.pace import report
from benchmarks.cpu.shapes import SHAPES

CONTEXT = 2304


def write(path: Path, shape_name: str, kind: str) -> None:
    """Random weights as a GGUF file."""
    shape = SHAPES[shape_name]
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("llama")
    words = [b"<unk>", b"<s>", b"</s>", *(f"w{n}".encode() for n in range(3, shape.vocabulary))]
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * shape.vocabulary)
    writer.add_token_types([1] * shape.vocabulary)
    dtype = gguf.GGMLQuantizationType[kind]

    def add(name: str, n: int, k: int) -> None:
        values = draw.standard_normal((n, k), dtype=np.float32) * np.float32(k**-0.5)
        writer.add_tensor(name, gguf.quants.quantize(values, dtype), raw_dtype=dtype)

    add("token_embd.weight", shape.vocabulary, shape.hidden)
    ones = np.ones(shape.hidden, np.float32)
    writer.add_tensor("output_norm.weight", ones)
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", ones)
        writer.add_tensor(block + "ffn_norm.weight", ones)
        add(block + "attn_q.weight", queries, shape.hidden)
        add(block + "attn_k.weight", keys, shape.hidden)
        add(block + "attn_v.weight", keys, shape.hidden)
        add(block + "attn_output.weight", shape.hidden, queries)
        add(block + "ffn_gate.weight", shape.intermediate, shape.hidden)
        add(block + "ffn_up.weight", shape.intermediate, shape.hidden)
        add(block + "ffn_down.weight", shape.hidden, shape.intermediate)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Session:
    """llama.cpp's own API: a batch of tokens of any sequences, decoded at once."""

    def __init__(self, path: Path, threads: int) -> None:
        llama_cpp.llama_log_set(_SILENT, None)
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = 2 * CONTEXT
        options.n_batch = options.n_ubatch = 512
        options.n_seq_max = 8
        options.kv_unified = True
        options.n_threads = options.n_threads_batch = threads
        self.context: Any = llama_cpp.llama_init_from_model(self.model, options)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def decode(self, rows: list[tuple[int, int, int]], *, logits: bool) -> None:
        """Tokens with their positions and sequences."""
        for at, (token, position, sequence) in enumerate(rows):
            self.batch.token[at] = token
            self.batch.pos[at] = position
            self.batch.n_seq_id[at] = 1
            self.batch.seq_id[at][0] = sequence
            self.batch.logits[at] = logits
        self.batch.n_tokens = len(rows)
        if llama_cpp.llama_decode(self.context, self.batch):
            raise RuntimeError("llama.cpp could not decode")

    def prefill(self, size: int) -> None:
        self.clear()
        for first in range(0, size, 512):
            places = range(first, min(size, first + 512))
            self.decode([((7 * n) % 1000 + 3, n, 0) for n in places], logits=False)

    def decoder(self, batch: int) -> Callable[[], None]:
        self.clear()
        position = 0

        def step() -> None:
            nonlocal position
            self.decode([(n + 5, position, n) for n in range(batch)], logits=True)
            for row in range(batch):  # until they are there
                llama_cpp.llama_get_logits_ith(self.context, row)[0]
            position += 1

        return step


@llama_cpp.llama_log_callback
def _SILENT(*_: Any) -> None:  # noqa: N802  it must outlive every call
    pass


def main() -> None:
    shape, kind, threads, folder = sys.argv[1:]
    path = Path(folder) / f"{shape}-{kind}.gguf"
    if not path.exists():
        write(path, shape, kind)
    session = Session(path, int(threads))
    report(session.prefill, session.decoder)


if __name__ == "__main__":
    main()
