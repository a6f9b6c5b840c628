"""Pictures that are fetched by their address: kept on disk, for an hour, within a bound."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from exo.api.image_store import LIFETIME, ImageStore
from exo.errors import StorageFull

from .painter import Studio, studio
from .pictures import opened


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> ImageStore:
    return ImageStore(tmp_path / "images", 1000, clock)


def age(store: ImageStore, image_id: str, seconds: float) -> None:
    """Make it older."""
    found = store.find(image_id)
    assert found
    then = time.time() - seconds
    os.utime(found.path, (then, then))


def test_what_is_saved_is_found(store: ImageStore):
    first, second = store.save([b"one", b"two"], "jpeg")
    assert first != second
    assert len(first) >= 32, "too long to guess"
    found = store.find(first)
    assert found
    assert (found.path.read_bytes(), found.format, found.size) == (b"one", "jpeg", 3)
    assert {one.image_id for one in store.all()} == {first, second}


def test_another_life_finds_it_too(store: ImageStore, tmp_path: Path):
    [image_id] = store.save([b"one"], "png")
    again = ImageStore(tmp_path / "images", 1000)
    again.clean(unfinished=True)
    assert again.find(image_id)


@pytest.mark.parametrize("name", ["", "..", "../x", "img-", "*", "x.png", "\0", "a" * 5000])
def test_names_that_are_none(store: ImageStore, name: str, tmp_path: Path):
    store.save([b"one"], "png")
    (tmp_path / "x.png").write_bytes(b"not of the store")
    assert store.find(name) is None


def test_they_expire(store: ImageStore, clock: Clock, tmp_path: Path):
    [image_id] = store.save([b"one"], "png")
    left = store.clean()
    assert left is not None
    assert LIFETIME - 60 < left <= LIFETIME
    clock.ahead = LIFETIME + 1
    assert store.find(image_id) is None
    assert store.all() == []
    assert store.clean() is None
    assert list((tmp_path / "images").iterdir()) == []


def test_the_oldest_make_room(store: ImageStore):
    [old] = store.save([b"x" * 400], "png")
    [older] = store.save([b"x" * 400], "png")
    age(store, old, 50)
    age(store, older, 100)
    [new] = store.save([b"x" * 500], "png")
    assert [one.image_id for one in store.all()] == [old, new]


def test_what_is_larger_than_the_bound_is_refused(store: ImageStore):
    [kept] = store.save([b"x"], "png")
    with pytest.raises(StorageFull, match="images_mb"):
        store.save([b"x" * 501] * 2, "png")
    assert store.find(kept), "nothing made room for it in vain"


def test_what_was_not_finished_goes_at_the_next_start(store: ImageStore, tmp_path: Path):
    store.save([b"x"], "png")
    left_over = tmp_path / "images" / "img-1.part"
    left_over.write_bytes(b"ha")
    store.clean()
    assert left_over.exists(), "another thread may be writing it"
    store.clean(unfinished=True)
    assert not left_over.exists()
    assert len(store.all()) == 1


def test_a_disk_that_takes_no_more(store: ImageStore, tmp_path: Path):
    (tmp_path / "images").write_text("a file where the folder would be")
    with pytest.raises(StorageFull, match="cannot be kept on disk") as caught:
        store.save([b"x"], "png")
    assert str(tmp_path) in str(caught.value), "it says which disk"


def test_an_empty_store(store: ImageStore):
    assert store.all() == []
    assert store.clean(unfinished=True) is None


# Over HTTP.


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_addresses(paint: Studio, form: str):
    answer = await paint.generate(response_format="url", n=2, output_format=form)
    addresses = [picture["url"] for picture in answer["data"]]
    assert [picture["b64_json"] for picture in answer["data"]] == [None, None]
    assert len(set(addresses)) == 2
    for address in addresses:
        assert address.startswith(paint.url), "the address that the client itself used"
        data, content_type = await paint.get(address.removeprefix(paint.url.rstrip("/")))
        assert content_type == f"image/{form}"
        assert opened(data).format == form.upper()


async def test_the_list(paint: Studio):
    assert (await listed(paint)) == []
    answer = await paint.generate(response_format="url")
    [shown] = await listed(paint)
    assert shown["url"] == answer["data"][0]["url"]
    assert shown["content_type"] == "image/png"
    assert shown["expires_at"] - shown["created_at"] == LIFETIME
    data, _ = await paint.get(f"/images/{shown['image_id']}")
    assert len(data) == shown["size"]


async def listed(paint: Studio) -> list[Any]:
    async with paint.client.get("/images") as response:
        answer = await response.json()
    assert answer["object"] == "list"
    return answer["data"]


async def test_pictures_that_are_not_there(paint: Studio):
    for name in ("nothing", "..%2F..%2Fx", "%2e%2e", "img-" + "0" * 32):
        async with paint.client.get(f"/images/{name}") as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (404, "not_found")


async def test_no_room_for_addresses(tmp_path: Path):
    async with studio(tmp_path / "images", max_bytes=0) as paint:
        answer = await paint.generate(507, response_format="url")
        assert answer["error"]["code"] == "storage_full"
        await paint.generate(response_format="b64_json")


async def test_what_an_earlier_life_left_is_cleaned_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "images"
    loop, cleaned, clean = asyncio.get_running_loop(), asyncio.Event(), ImageStore.clean

    def told(store: ImageStore, **given: bool) -> float | None:
        left = clean(store, **given)
        loop.call_soon_threadsafe(cleaned.set)
        return left

    monkeypatch.setattr(ImageStore, "clean", told)
    [expired] = ImageStore(folder, 1000).save([b"x"], "png")
    path = folder / f"{expired}.png"
    os.utime(path, (0, 0))
    async with studio(folder):
        await cleaned.wait()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, as root")
def test_a_full_disk(tmp_path: Path):
    """What does not fit leaves nothing behind, and what was there stays."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    try:
        store = ImageStore(folder, 2**20)
        [kept] = store.save([b"x" * 100_000], "png")
        with pytest.raises(StorageFull, match="No space left") as caught:
            store.save([b"x" * 200_000], "png")
        assert caught.value.status == 507
        assert [one.image_id for one in store.all()] == [kept]
        assert len(list(folder.iterdir())) == 1
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_daemon_starts_without_what_decodes_pictures():
    code = "import sys, exo.daemon; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
