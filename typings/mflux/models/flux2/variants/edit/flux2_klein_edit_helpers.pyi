import mlx.core as mx
from mlx import nn
from PIL import Image

MAX_REFERENCE_AREA: int
REFERENCE_DIM_MULTIPLE: int

class _Flux2KleinEditHelpers:
    @staticmethod
    def ensure_4d_latents(latents: mx.array) -> mx.array: ...
    @staticmethod
    def bn_normalize_vae_encoded_latents(encoded: mx.array, *, vae: nn.Module) -> mx.array: ...
    @staticmethod
    def prepare_reference_image_conditioning(
        *, vae: nn.Module, tiling_config: None, image_paths: list[Image.Image]
    ) -> tuple[mx.array, mx.array]: ...
