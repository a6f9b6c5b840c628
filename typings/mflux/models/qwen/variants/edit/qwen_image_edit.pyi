import mlx.core as mx
from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from PIL import Image

class QwenImageEdit(QwenImage):
    def _encode_prompts_with_images(
        self, prompt: str, negative_prompt: str, image_paths: list[Image.Image], config: None
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]: ...
