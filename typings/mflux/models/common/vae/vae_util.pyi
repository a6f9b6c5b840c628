import mlx.core as mx
from mlx import nn

class VAEUtil:
    @staticmethod
    def decode(vae: nn.Module, latent: mx.array) -> mx.array: ...
