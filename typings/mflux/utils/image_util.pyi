import mlx.core as mx
from PIL import Image

class ImageUtil:
    @staticmethod
    def to_pil(decoded_latents: mx.array) -> Image.Image: ...
    @staticmethod
    def scale_to_dimensions(
        image: Image.Image, target_width: int, target_height: int
    ) -> Image.Image: ...
