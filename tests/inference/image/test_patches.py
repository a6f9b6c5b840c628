"""A picture in patches over several ranks: where it must be that of one node, and what is left of
it when it ends. All ranks are in this process and thread."""

from collections import deque
from dataclasses import replace

import mlx.core as mx
import msgpack
import pytest

from exo.errors import RequestError, RingError
from exo.inference.image.engine import DrawSpec
from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.canvas import open_image
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.image.mflux.family import Work
from exo.inference.image.mflux.patches import Cut, Layout, Patch, cut, put, take
from exo.inference.image.mflux.pipeline import whole_steps
from exo.inference.ring.frames import Frame, Kind
from exo.models.image_variants import VARIANTS
from tests.inference.image.conftest import Engines, Folders, draw, noise_png, spec_of
from tests.inference.image.test_image_ranks import Loop, guided_ranks, ranks_of

# Before which blocks each is cut, over two ranks.
CUTS = {"flux": (3,), "flux2": (2,), "qwen-image": (1,), "z-image": (1,)}
# One of each way that a family has: with references and without, one look and two.
FAMILIES = [
    "flux.1-dev",
    "flux.1-kontext-dev",
    "flux.2-klein-base-4b",
    "qwen-image",
    "qwen-image-edit-2511",
    "z-image",
]


def two_ranks(folders: Folders, variant: str) -> list[MfluxEngine]:
    return ranks_of([folders(variant)] * 2, CUTS[VARIANTS[variant].family], variant)


def tall(variant: str, **given: object) -> DrawSpec:
    """A picture of six rows."""
    if VARIANTS[variant].family == "flux2":
        given.setdefault("images", (noise_png(1),))
    return spec_of(variant, height=96, **given)


def kept(ranks: list[MfluxEngine]) -> int:
    """Bytes of keys and values on all ranks."""
    return sum(rank._stage.stale.nbytes for rank in ranks)


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_look_at_a_patch_with_fresh_keys_is_a_part_of_the_whole_look(
    folders: Folders, variant: str
) -> None:
    ranks = two_ranks(folders, variant)
    Loop(ranks)
    spec, family, head = tall(variant), ranks[0]._family, ranks[0]._head
    images = tuple(open_image(png) for png in spec.images)
    asked = Asked(spec.prompt, "blurred", 3.0, spec.width, spec.height, images)
    schedule = family.schedule(asked, 4)
    work = Work(asked, schedule, family.encode(asked))
    latents = family.noise(7, asked)
    whole = head.look_and_keep(work, 2, latents)
    for patch in cut(family.layout(0, work.encoded, asked), 3):
        head.begin(work, 2, patch, latents)
        seen = head.finish(work, 2, patch, latents)
        assert len(seen) == len(whole)
        for got, expected in zip(seen, whole, strict=True):
            part, same = (patch.rows(each, family.row_axis, 6) for each in (got, expected))
            assert part.size
            assert mx.abs(part - same).max().item() < 1e-2 * mx.abs(same).max().item()
    assert kept(ranks) > 0
    head.forget()
    assert kept(ranks) == 0


@pytest.mark.parametrize("variant", ["flux.1-dev", "flux.2-klein-4b", "qwen-image", "z-image"])
def test_one_patch_and_whole_steps_alone_are_exact(folders: Folders, variant: str) -> None:
    ranks = two_ranks(folders, variant)
    loop = Loop(ranks)
    spec = tall(variant, steps=2)
    exact = draw(ranks[0], spec)
    assert draw(ranks[0], replace(spec, patches=3, sync_steps=2)) == exact
    assert all(b"patch" not in frame.body for frame in loop.frames)
    assert draw(ranks[0], replace(spec, patches=1, sync_steps=1)) == exact
    assert any(b"patch" in frame.body for frame in loop.frames)
    assert draw(ranks[0], replace(spec, patches=3, sync_steps=1)) != exact
    assert kept(ranks) == 0


@pytest.mark.parametrize("given", [{"strength": 0.4}, {"mask": True}])
def test_images_and_masks_go_with_patches(folders: Folders, given: dict[str, object]) -> None:
    variant = "z-image-turbo"
    ranks = two_ranks(folders, variant)
    Loop(ranks)
    image = noise_png(1, 64, 96)
    if "mask" in given:
        given = {"mask": noise_png(2, 64, 96)}
    spec = tall(variant, steps=4, images=(image,), **given)
    exact = draw(ranks[0], spec)
    assert draw(ranks[0], replace(spec, patches=1, sync_steps=1)) == exact
    assert draw(ranks[0], replace(spec, patches=3, sync_steps=1)) != exact


@pytest.mark.parametrize(
    ("variant", "plans"), [("flux.1-dev", [(2,), (1, 3)]), ("flux.2-klein-4b", [(1,), (1, 2)])]
)
def test_the_same_patches_are_the_same_picture_over_any_ranks(
    folders: Folders, variant: str, plans: list[tuple[int, ...]]
) -> None:
    pictures: list[bytes] = []
    for cuts in plans:
        ranks = ranks_of([folders(variant)] * (len(cuts) + 1), cuts, variant)
        Loop(ranks)
        pictures.append(draw(ranks[0], tall(variant, steps=4, patches=3, sync_steps=1)))
    assert pictures[0] == pictures[1]


class _Counted(deque[Frame]):
    """What has come to rank 0 and is not waited for yet, and how much that was at most."""

    most = 0

    def append(self, frame: Frame) -> None:
        super().append(frame)
        self.most = max(self.most, len(self))


def test_all_patches_are_on_their_way_at_once_also_between_steps(folders: Folders) -> None:
    variant = "flux.2-klein-4b"
    ranks = two_ranks(folders, variant)
    loop = Loop(ranks)
    loop.came = came = _Counted()
    picture = ranks[0].begin(tall(variant, steps=4, patches=3, sync_steps=1))
    waiting = [len(came) for _ in picture.steps()]
    assert came.most == 3
    # Nothing behind the whole step; then the next step of every patch, until there is none.
    assert waiting == [0, 3, 3, 0]
    assert [stroke.approximate for stroke in picture.steps()] == [False, True, True, True]


def test_a_picture_that_is_given_up_leaves_nothing(engines: Engines, folders: Folders) -> None:
    variant = "z-image"
    ranks = two_ranks(folders, variant)
    loop = Loop(ranks)
    steps = ranks[0].begin(tall(variant, steps=4, patches=2, sync_steps=1)).steps()
    next(steps)
    next(steps)
    assert loop.came
    assert kept(ranks) > 0
    steps.close()
    assert not loop.came
    assert kept(ranks) == 0
    assert draw(ranks[0], tall(variant)) == draw(engines(variant), tall(variant))


def test_a_ring_that_breaks_ends_it_and_what_is_kept(engines: Engines, folders: Folders) -> None:
    variant = "z-image"
    ranks = two_ranks(folders, variant)
    loop = Loop(ranks)
    steps = ranks[0].begin(tall(variant, steps=4, patches=2, sync_steps=1)).steps()
    next(steps)
    loop.broken = True
    with pytest.raises(RingError):
        next(steps)
    for rank in ranks:
        rank.stop()
    assert kept(ranks) == 0
    Loop(ranks)
    assert draw(ranks[0], tall(variant)) == draw(engines(variant), tall(variant))


def test_a_patch_of_what_was_not_seen_whole_is_nonsense(folders: Folders) -> None:
    variant = "z-image"
    ranks = two_ranks(folders, variant)
    loop = Loop(ranks)
    draw(ranks[0], tall(variant, steps=3, patches=2, sync_steps=1))
    patches = [f for f in loop.frames if f.kind is Kind.STEP and b"patch" in f.body]
    with pytest.raises(RingError, match="as a whole"):
        ranks[1].receive(patches[-1])
    said = msgpack.unpackb(patches[-1].body)
    for patch in ([2, 2, 0, 3], [1, 2, 3, 3], [1, 2, 3, 7], [1, 2, -1, 3]):
        body = msgpack.packb({**said, "patch": patch})
        with pytest.raises(RingError, match="does not have"):
            ranks[1].receive(patches[-1]._replace(body=body))


def test_patches_are_for_models_that_are_split(engines: Engines, folders: Folders) -> None:
    variant = "flux.2-klein-base-4b"
    both = guided_ranks(*[folders(variant)] * 2)
    Loop(both)
    for engine in (engines(variant), both[0]):
        with pytest.raises(RequestError) as caught:
            draw(engine, tall(variant, patches=2))
        assert caught.value.param == "patches"


def test_there_are_no_more_patches_than_rows(folders: Folders) -> None:
    variant = "flux.2-klein-4b"
    ranks = two_ranks(folders, variant)
    Loop(ranks)
    for given, param in (({"patches": 7}, "patches"), ({"sync_steps": 1}, "num_sync_steps")):
        with pytest.raises(RequestError) as caught:
            draw(ranks[0], tall(variant, **given))
        assert caught.value.param == param


def test_a_fifth_of_the_steps_is_whole_unless_it_is_said() -> None:
    assert [whole_steps(steps, None) for steps in (1, 4, 5, 9, 25, 50)] == [1, 1, 1, 2, 5, 10]
    assert [whole_steps(4, asked) for asked in (1, 3, 4, 9)] == [1, 3, 4, 4]


@pytest.mark.parametrize(
    ("layout", "count", "ends"),
    [
        (Layout(0, 6, 4), 3, [2, 4, 6]),
        (Layout(0, 7, 4), 2, [4, 7]),
        # As many tokens each, words included: 8 + 8 and 16.
        (Layout(8, 6, 4), 2, [2, 6]),
        # A row at least, however many the words are.
        (Layout(99, 6, 4), 3, [1, 2, 6]),
        (Layout(99, 3, 4), 3, [1, 2, 3]),
    ],
)
def test_patches_have_as_many_tokens_each(layout: Layout, count: int, ends: list[int]) -> None:
    patches = cut(layout, count)
    assert [patch.end for patch in patches] == ends
    assert [patch.start for patch in patches] == [0, *ends[:-1]]
    for wrong in (0, layout.rows + 1):
        with pytest.raises(ValueError, match="patches"):
            cut(layout, wrong)


@pytest.mark.parametrize("words_last", [False, True])
@pytest.mark.parametrize("others", [0, 1, 5])
def test_patches_are_all_tokens(others: int, words_last: bool) -> None:
    layout = Layout(3, 5, 2, others, words_last)
    tokens = mx.arange(3 + layout.shown)[None]
    found: set[int] = set()
    for patch in cut(layout, 3):
        part = Cut(layout, patch)
        taken = take(tokens, part.together, 1)
        found |= set(taken[0].tolist())
        marked = put(tokens, part.together, 1, -1 - taken)
        assert (marked < 0).sum().item() == taken.size
        assert mx.array_equal(take(marked, part.together, 1), -1 - taken)
    assert found == set(range(tokens.size))


def test_a_patch_of_latents_is_its_rows() -> None:
    latents = mx.arange(24).reshape(1, 12, 2)
    rows = Patch(1, 2, 1, 3).rows(latents, 1, 3)
    assert rows.tolist() == latents[:, 4:].tolist()
