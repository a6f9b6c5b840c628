import mlx.core as mx
from mlx import nn
from PIL import Image

class LatentCreator:
    @staticmethod
    def encode_image(
        vae: nn.Module, image_path: Image.Image, height: int, width: int
    ) -> mx.array: ...
