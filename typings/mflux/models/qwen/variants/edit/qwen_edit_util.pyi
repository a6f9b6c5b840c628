import mlx.core as mx
from mlx import nn
from PIL import Image

class QwenEditUtil:
    @staticmethod
    def create_image_conditioning_latents(
        vae: nn.Module, height: int, width: int, image_paths: list[Image.Image]
    ) -> tuple[mx.array, mx.array, int, int, int]: ...
