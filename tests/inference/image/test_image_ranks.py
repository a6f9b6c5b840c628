"""One picture over several ranks is the picture of one. All ranks are in this process and thread:
to send is to have the next rank compute."""

import json
import math
import shutil
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgpack
import pytest
from mflux.models.common.config.model_config import ModelConfig

from exo.errors import EngineError, RingError
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.kernels.use import use_kernels
from exo.inference.ring.frames import Frame, Kind
from exo.models.image_variants import VARIANTS
from tests.inference.image.conftest import Engines, Folders, draw, load_of, noise_png, spec_of

# Blocks of the tiny models: 2 + 2, 1 + 2, 2, 2.
PLANS = {
    "flux.1-dev": [(1, 3), (1,), (2,), (1, 2), (2, 3)],
    "flux.1-kontext-dev": [(1,)],
    "flux.2-klein-base-4b": [(1,), (2,), (1, 2)],
    "qwen-image": [(1,)],
    "qwen-image-edit-2511": [(1,)],
    "z-image": [(1,)],
}
BLOCKS = {"flux": 4, "flux2": 3, "qwen-image": 2, "z-image": 2}
CASES = [(variant, cuts) for variant, plans in PLANS.items() for cuts in plans]


class Loop:
    """A ring whose ranks are called one by the other."""

    local_hosts = ("127.0.0.1", "127.0.0.1")

    def __init__(self, ranks: Sequence[MfluxEngine]) -> None:
        self.came: deque[Frame] = deque()
        self.frames: list[Frame] = []
        self.broken = self.spoil = False
        self.given_up: list[str] = []
        for rank, engine in enumerate(ranks):
            engine.start(_Link(self, ranks, rank), 1, self.wait)

    def wait(self) -> Frame:
        if self.broken:
            raise RingError("gone")
        frame = self.came.popleft()
        return _flattened(frame) if self.spoil else frame


def _flattened(frame: Frame) -> Frame:
    """With a tensor of another shape."""
    said = msgpack.unpackb(frame.body)
    name, shape = said["tensors"][0]
    return frame._replace(body=msgpack.packb({**said, "tensors": [(name, [math.prod(shape)])]}))


class _Link:
    local_hosts = ("127.0.0.1", "127.0.0.1")

    def __init__(self, loop: Loop, ranks: Sequence[MfluxEngine], rank: int) -> None:
        self._loop, self._ranks, self._following = loop, ranks, (rank + 1) % len(ranks)

    def allow_silence(self, seconds: float) -> None: ...
    def give_up(self, reason: str) -> None:
        self._loop.given_up.append(reason)

    def send(self, frame: Frame, life: int) -> None:
        assert life == 1
        whole = frame._replace(tensors=(memoryview(b"".join(frame.tensors)),))
        self._loop.frames.append(whole)
        if self._following == 0:
            self._loop.came.append(whole)
        else:
            self._ranks[self._following].receive(whole)


def ranks_of(
    folders: Sequence[Path], cuts: tuple[int, ...], variant: str, *, with_kernels: bool = False
) -> list[MfluxEngine]:
    bounds = [0, *cuts, BLOCKS[VARIANTS[variant].family]]
    engines = []
    for rank, folder in enumerate(folders):
        engine = MfluxEngine(with_kernels=with_kernels)
        load = load_of(folder).model_copy(
            update={
                "rank": rank,
                "size": len(folders),
                "start_layer": bounds[rank],
                "end_layer": bounds[rank + 1],
            }
        )
        engine.load(load, lambda *_: None)
        engines.append(engine)
    return engines


@pytest.mark.parametrize(("variant", "cuts"), CASES)
def test_the_picture_is_that_of_one_rank(
    engines: Engines, folders: Folders, variant: str, cuts: tuple[int, ...]
) -> None:
    ranks = ranks_of([folders(variant)] * (len(cuts) + 1), cuts, variant)
    Loop(ranks)
    for spec in (spec_of(variant), spec_of(variant, seed=9, prompt="something else", width=96)):
        assert draw(ranks[0], spec) == draw(engines(variant), spec)


def test_it_is_with_the_kernels_and_quantised_weights(folders: Folders) -> None:
    if use_kernels() is None:
        pytest.skip("there are no kernels here")
    variant, kept = "flux.2-klein-4b", ModelConfig.precision
    try:
        folder = folders(variant, bits=8)
        alone = MfluxEngine()
        alone.load(load_of(folder), lambda *_: None)
        ranks = ranks_of([folder] * 2, (1,), variant, with_kernels=True)
        Loop(ranks)
        spec = spec_of(variant, images=(noise_png(1),))
        assert draw(ranks[0], spec) == draw(alone, spec)
    finally:
        ModelConfig.precision = kept


def test_a_rank_needs_no_weights_but_its_own(
    engines: Engines, folders: Folders, tmp_path: Path
) -> None:
    """What is not its own is cut out of its copy of the files, as far as MLX reads them."""
    variant = "qwen-image"
    copies = [_only_block(folders(variant), tmp_path / str(rank), rank) for rank in (0, 1)]
    ranks = ranks_of(copies, (1,), variant)
    Loop(ranks)
    spec = spec_of(variant)
    assert draw(ranks[0], spec) == draw(engines(variant), spec)


def _only_block(folder: Path, copy: Path, index: int) -> Path:
    """A copy in which the weights of the other block are not numbers."""
    shutil.copytree(folder, copy)
    for file in (copy / "transformer").glob("*.safetensors"):
        _blank(file, f"transformer_blocks.{1 - index}.")
    return copy


def _blank(file: Path, start: str) -> None:
    """Have what begins so be no numbers."""
    whole = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    for name, entry in header.items():
        if name.startswith(start) and name != "__metadata__":
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            whole[first:last] = b"\xff" * (last - first)
    file.write_bytes(whole)


def test_a_rank_loads_its_blocks_alone(folders: Folders) -> None:
    variant = "flux.1-dev"
    told: list[tuple[int, int]] = []
    engine = MfluxEngine(with_kernels=False)
    load = load_of(folders(variant)).model_copy(
        update={"rank": 1, "size": 2, "start_layer": 1, "end_layer": 4}
    )
    size = engine.load(load, lambda *done: told.append(done))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    whole = MfluxEngine(with_kernels=False).load(load_of(folders(variant)), lambda *_: None)
    assert 0 < size < whole / 2


def test_what_all_looks_have_in_common_travels_once(folders: Folders) -> None:
    variant = "qwen-image"
    ranks = ranks_of([folders(variant)] * 2, (1,), variant)
    loop = Loop(ranks)
    draw(ranks[0], spec_of(variant, steps=3))
    steps = [frame for frame in loop.frames if frame.kind is Kind.STEP]
    assert len(steps) == 6  # Two looks for each step.
    sizes = [frame.tensors[0].nbytes for frame in steps]
    assert sizes[0] > sizes[2] == sizes[4]


GUIDED = ["flux.2-klein-base-4b", "qwen-image", "qwen-image-edit-2511", "z-image"]


def guided_ranks(*folders: Path) -> list[MfluxEngine]:
    """Each with the whole transformer, for one of the passes."""
    engines = []
    for rank, folder in enumerate(folders):
        engine = MfluxEngine(with_kernels=False)
        fields = {"rank": rank, "size": 2, "end_layer": 99, "guidance": True}
        engine.load(load_of(folder).model_copy(update=fields), lambda *_: None)
        engines.append(engine)
    return engines


@pytest.mark.parametrize("variant", GUIDED)
def test_two_ranks_that_compute_a_pass_each_draw_what_one_does(
    engines: Engines, folders: Folders, variant: str
) -> None:
    ranks = guided_ranks(*[folders(variant)] * 2)
    loop = Loop(ranks)
    for spec in (
        spec_of(variant, guidance=3.0, negative_prompt="blurred"),
        spec_of(variant, guidance=2.0, seed=9, prompt="something else", width=96),
    ):
        assert draw(ranks[0], spec) == draw(engines(variant), spec)
    asked, answered = (
        [frame for frame in loop.frames if frame.kind is kind] for kind in (Kind.STEP, Kind.RESULT)
    )
    assert len(asked) == len(answered) == 4, "one for each step of the two pictures"


def test_without_guidance_a_step_is_computed_by_one(engines: Engines, folders: Folders) -> None:
    variant = "flux.2-klein-base-4b"
    ranks = guided_ranks(*[folders(variant)] * 2)
    loop = Loop(ranks)
    spec = spec_of(variant, guidance=1.0)
    assert draw(ranks[0], spec) == draw(engines(variant), spec)
    assert not loop.frames


def test_the_other_pass_needs_the_transformer_alone(
    engines: Engines, folders: Folders, tmp_path: Path
) -> None:
    variant = "z-image"
    copy = Path(shutil.copytree(folders(variant), tmp_path / "copy"))
    for part in ("text_encoder", "vae"):
        for file in (copy / part).glob("*.safetensors"):
            _blank(file, "")
    ranks = guided_ranks(folders(variant), copy)
    Loop(ranks)
    spec = spec_of(variant, guidance=3.0)
    assert draw(ranks[0], spec) == draw(engines(variant), spec)


def test_ranks_of_passes_do_not_take_nonsense(folders: Folders) -> None:
    variant = "z-image"
    ranks = guided_ranks(*[folders(variant)] * 2)
    loop = Loop(ranks)
    draw(ranks[0], spec_of(variant, guidance=3.0))
    asked = next(frame for frame in loop.frames if frame.kind is Kind.STEP)
    # As if there were one pass more, or none.
    for wrong in (b"\x02", b"\x00"):
        body = asked.body.replace(b"\xa5which\x01", b"\xa5which" + wrong)
        assert body != asked.body
        with pytest.raises(RingError):
            ranks[1].receive(asked._replace(body=body))
    steps = ranks[0].begin(spec_of(variant, guidance=3.0)).steps()
    loop.spoil = True
    with pytest.raises(RingError, match="no look"):
        next(steps)
    assert loop.given_up


def test_a_ring_that_breaks_ends_the_picture_and_nothing_else(
    engines: Engines, folders: Folders
) -> None:
    variant = "z-image"
    ranks = ranks_of([folders(variant)] * 2, (1,), variant)
    loop = Loop(ranks)
    steps = ranks[0].begin(spec_of(variant, steps=4)).steps()
    next(steps)
    loop.broken = True
    with pytest.raises(RingError):
        next(steps)
    for rank in ranks:
        rank.stop()
    with pytest.raises(RingError):
        ranks[0].begin(spec_of(variant))
    Loop(ranks)
    assert draw(ranks[0], spec_of(variant)) == draw(engines(variant), spec_of(variant))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.RESULT, b""),
        Frame(Kind.STEP, b"\xc1"),
        Frame(Kind.STEP, b"\x80"),
        Frame(Kind.STEP, bytes.fromhex("83a561626f757490a774656e736f727390a66e756d62657201")),
    ],
)
def test_nonsense_is_no_look(folders: Folders, frame: Frame) -> None:
    ranks = ranks_of([folders("z-image")] * 2, (1,), "z-image")
    Loop(ranks)
    with pytest.raises(RingError):
        ranks[1].receive(frame)


def test_ranks_compare_what_they_have(folders: Folders, tmp_path: Path) -> None:
    engine, folder = MfluxEngine(with_kernels=False), folders("z-image")
    facts = engine.facts(load_of(folder))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert engine.facts(load_of(copy)) == facts
    file = copy / "transformer" / "0.safetensors"
    whole = bytearray(file.read_bytes())
    whole[-64:] = bytes(64)
    file.write_bytes(whole)
    assert engine.facts(load_of(copy)) != facts


def test_a_cut_must_leave_blocks(folders: Folders) -> None:
    engine = MfluxEngine(with_kernels=False)
    load = load_of(folders("z-image")).model_copy(
        update={"rank": 1, "size": 2, "start_layer": 2, "end_layer": 3}
    )
    with pytest.raises(EngineError):
        engine.load(load, lambda *_: None)
