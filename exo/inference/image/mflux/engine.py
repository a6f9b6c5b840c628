"""The engine that draws with mflux's models."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

import hashlib
from collections import OrderedDict

import mlx.core as mx
from mlx.utils import tree_flatten
from PIL import Image

from exo.errors import EngineError, RequestError, RingError
from exo.inference.engine import OnProgress
from exo.inference.image.engine import DrawSpec
from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.canvas import to_png
from exo.inference.image.mflux.facts import facts
from exo.inference.image.mflux.family import Encoded, Family, Look, look_alone
from exo.inference.image.mflux.frames import Await
from exo.inference.image.mflux.loading import (
    in_float32,
    open_family,
    pack_for,
    read,
    read_blocks,
    read_transformer,
)
from exo.inference.image.mflux.passes import FirstPass, OtherPass
from exo.inference.image.mflux.picture import MfluxPicture
from exo.inference.image.mflux.ranks import Follower, Head
from exo.inference.image.mflux.split import Stage
from exo.inference.kernels.use import use_kernels
from exo.inference.messages import Load
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame
from exo.models.image_file import read_image_file
from exo.models.image_folder import read_image_card
from exo.models.image_traits import ImageTraits

# The pictures of one request have one prompt, and those who try seeds do too.
_REMEMBERED = 4


class MfluxEngine:
    """An image model on this node's device. Everything is called from the main thread."""

    def __init__(self, *, with_kernels: bool = True) -> None:
        if mx.default_device() == mx.Device(mx.cpu):
            # On a CPU mx.compile runs the system's C++ compiler at the first call of each shape,
            # and two processes that do so at once may write the same file.
            mx.disable_compile()
        self._kernels = use_kernels() if with_kernels else None
        self._family: Family | None = None
        self._traits: ImageTraits | None = None
        self._look: Look | None = None
        self._head: Head | None = None
        self._stage: Stage | None = None
        self._rank, self._size = 0, 1
        self._follower: Follower | OtherPass | None = None
        self._encoded: OrderedDict[str, Encoded] = OrderedDict()

    def load(self, load: Load, progress: OnProgress) -> int:
        card = read_image_card(load.path, variant=load.variant or None)
        self._family = open_family(card, read_image_file(load.path))
        if self._kernels is not None:
            pack_for(self._kernels, self._family)
        if self._kernels is not None or load.cast_float32:
            in_float32(self._family)
        self._traits = card.image
        self._rank, self._size = load.rank, load.size
        if load.size > 1 and not load.guidance:
            self._stage = Stage(self._family, load.start_layer, load.end_layer)
        if load.rank == 0:
            size = read(self._family, progress)
        elif self._stage:
            size = read_blocks(self._stage.blocks, progress)
        else:
            size = read_transformer(self._family, progress)
        mx.reset_peak_memory()
        return size

    def warm_up(self) -> None:
        _, traits = self._loaded()
        side = traits.min_side
        image = () if traits.draws else (to_png(Image.new("RGB", (side, side))),)
        spec = DrawSpec("a", side, side, traits.min_steps, 0, images=image)
        picture = self.begin(spec)
        for _ in picture.steps():
            pass
        picture.png()
        self._encoded.clear()

    def begin(self, spec: DrawSpec) -> MfluxPicture:
        family, traits = self._loaded()
        if spec.patches and self._stage is None:
            raise RequestError(
                "Here every node that draws this model has all of it, and computes no patches.",
                hint="Leave `patches` out: it is for models that are split over several nodes.",
                param="patches",
            )
        look = self._look
        if look is None:
            if self._size > 1:
                raise RingError("The ring of this model's nodes does not stand.", retry_after=2)
            look = look_alone(family)
        return MfluxPicture(family, traits, spec, self._encode, look, self._head)

    def peak_memory(self) -> int:
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
        return peak

    def facts(self, load: Load) -> dict[str, str]:
        card = read_image_card(load.path, variant=load.variant or None)
        return facts(load.path, card.architecture, load.plan)

    def start(self, ring: Ring, life: int, wait: Await) -> None:
        family, _ = self._loaded()
        if self._size == 1:
            raise EngineError("The whole model is here: there is no ring to start.")
        match self._rank, self._stage:
            case 0, None:
                self._look = FirstPass(family, ring, life, wait).look
            case 0, Stage() as stage:
                self._head = Head(family, stage, ring, life, wait)
                self._look = self._head.look
            case _, None:
                self._follower = OtherPass(family, ring, life)
            case rank, Stage() as stage:
                last = rank == self._size - 1
                self._follower = Follower(family, stage, ring, life, last=last)

    def stop(self) -> None:
        self._look, self._head, self._follower = None, None, None
        if self._stage is not None:
            self._stage.stale.forget()

    def receive(self, frame: Frame) -> None:
        if self._follower is None:
            raise RingError(f"A frame of kind {frame.kind.name} came that nobody asked for.")
        self._follower.receive(frame)

    def _loaded(self) -> tuple[Family, ImageTraits]:
        if self._family is None or self._traits is None:
            raise EngineError("No model is loaded.")
        return self._family, self._traits

    def _encode(self, asked: Asked) -> Encoded:
        """What the family makes of words and images, remembered for a few of them."""
        key = _key(asked)
        if key in self._encoded:
            self._encoded.move_to_end(key)
            return self._encoded[key]
        family, _ = self._loaded()
        encoded = family.encode(asked)
        mx.eval([array for _, array in tree_flatten(encoded) if isinstance(array, mx.array)])
        self._encoded[key] = encoded
        while len(self._encoded) > _REMEMBERED:
            self._encoded.popitem(last=False)
        return encoded


def _key(asked: Asked) -> str:
    """The same for what is encoded to the same."""
    digest = hashlib.sha256()
    words = (asked.prompt, asked.negative_prompt, asked.guidance, asked.width, asked.height)
    digest.update(repr(words).encode())
    for image in asked.images:
        digest.update(repr(image.size).encode())
        digest.update(image.tobytes())
    return digest.hexdigest()
