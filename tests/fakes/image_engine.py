"""An image engine without a model: a picture's bytes say what was asked and how far it is."""

from collections.abc import Generator

from exo.errors import RequestError
from exo.inference.engine import OnProgress
from exo.inference.image.engine import DrawSpec, Stroke
from exo.inference.messages import Load

MEMORY = 1000


class FakePicture:
    """`refuse` in the prompt is refused; `fail` raises as MLX does."""

    def __init__(self, spec: DrawSpec, closed: list[int]) -> None:
        self._spec = spec
        self._step = 0
        self._closed = closed

    def steps(self) -> Generator[Stroke]:
        if "refuse" in self._spec.prompt:
            raise RequestError("The model draws no such thing.", param="prompt")
        if "fail" in self._spec.prompt:
            raise RuntimeError("the fake was told to fail")
        try:
            while self._step < self._spec.steps:
                self._step += 1
                yield Stroke(self._step, self._spec.steps)
        finally:
            self._closed.append(self._spec.seed)

    def png(self) -> bytes:
        return f"{self._spec.prompt} {self._spec.seed} {self._step}".encode()


class FakeImageEngine:
    """`closed` are the seeds of the pictures that were finished or given up."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def load(self, _: Load, progress: OnProgress) -> int:
        progress(1, 1)
        return MEMORY

    def warm_up(self) -> None:
        pass

    def begin(self, spec: DrawSpec) -> FakePicture:
        return FakePicture(spec, self.closed)

    def peak_memory(self) -> int:
        return MEMORY
