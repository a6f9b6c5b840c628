"""The sizes of models that are compared: Llama's architecture with random weights."""

from typing import NamedTuple


class Shape(NamedTuple):
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int


SHAPES = {
    "50M": Shape(8, 512, 1536, 8, 4, 64, 32000),
    "350M": Shape(24, 1024, 2816, 16, 8, 64, 32000),
    "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 64, 128256),
}
