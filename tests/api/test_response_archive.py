"""Responses that are stored: on disk, found from every node, computed in the background."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from exo.api.response_archive import ResponseArchive
from exo.api.response_events import Answering, Event
from exo.api.response_ids import new_response_id
from exo.api.response_items import AskedView, InputTextView
from exo.api.response_runs import Run
from exo.api.response_store import ResponseStore
from exo.api.response_views import Kept
from exo.cluster.requests import Output
from exo.errors import EngineError, NotFound, RequestError, RunnerDied, StorageFull, Unavailable
from exo.inference.messages import Finished
from exo.inference.types import FinishReason
from tests.cluster.lab import Lab, Member

from .said import delta
from .test_response_events import STATS, answering

QUESTION = AskedView(id="msg_mine", role="user", content=[InputTextView(text="hi")])


# The store.


def name() -> str:
    return new_response_id("a")


def test_what_is_stored_is_found_after_a_restart(tmp_path: Path):
    one = name()
    ResponseStore(tmp_path / "r", 100).save(one, b"data")
    again = ResponseStore(tmp_path / "r", 100)
    assert again.load(one) == b"data"
    assert (tmp_path / "r" / f"{one}.json").stat().st_mode & 0o777 == 0o600
    assert again.delete(one)
    assert not again.delete(one)
    assert again.load(one) is None


def test_the_oldest_make_room(tmp_path: Path):
    store = ResponseStore(tmp_path, 100, max_count=3)
    names = [name() for _ in range(4)]
    for one in names:
        store.save(one, b"x")
    assert [store.load(one) for one in names] == [None, b"x", b"x", b"x"]
    store.save(names[1], b"y" * 99)
    assert [store.load(one) and 1 for one in names] == [None, 1, None, 1]
    with pytest.raises(StorageFull):
        store.save(names[0], b"z" * 101)
    assert store.load(names[3]) == b"x"


def test_a_name_is_no_way_out_of_the_folder(tmp_path: Path):
    (tmp_path / "secret.json").write_bytes(b"secret")
    store = ResponseStore(tmp_path / "r", 100)
    assert store.load("../secret") is None
    assert not store.delete("../secret")


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "r").write_bytes(b"")
    with pytest.raises(StorageFull, match="disk"):
        ResponseStore(tmp_path / "r", 100).save(name(), b"x")


# The archive, over two nodes.


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[list[Member]]:
    lab = Lab(tmp_path)
    yield await lab.start("a", "b")
    await lab.close()


class Speaker:
    """Says one word, then waits until it may go on; knows whether it was left."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.left = False
        self.error: EngineError | None = None

    async def outputs(self) -> AsyncGenerator[Output]:
        try:
            yield delta(text="Well")
            await self.goes_on.wait()
            if self.error:
                raise self.error
            yield delta(text=", hi", finish_reason=FinishReason.STOP)
            yield Finished(request_id="r", stats=STATS)
        finally:
            self.left = True


def archive(member: Member, folder: Path) -> ResponseArchive:
    return ResponseArchive(member.node, ResponseStore(folder / f"responses-{member.name}", 2**20))


def asked(made: ResponseArchive, **fields: Any) -> Answering:
    found = answering()
    found.view = found.view.model_copy(update={"id": made.new_id(), **fields})
    return found


async def background(made: ResponseArchive, speaker: Speaker, *, streams: bool = True) -> str:
    """A response that is computed until its speaker waits."""
    run = Run(asked(made, background=True), speaker.outputs(), [QUESTION])
    begun = await made.begin(run, streams=streams)
    async with aclosing(begun.follow(3)) as events:
        assert (await anext(events))["delta"] == "Well"
    return run.view.id


async def followed(made: ResponseArchive, response_id: str, after: int = -1) -> list[Event]:
    return [event async for event in made.follow(response_id, after)]


async def test_any_node_finds_a_response(pair: list[Member], tmp_path: Path):
    here, there = (archive(member, tmp_path) for member in pair)
    view = asked(here).view.model_copy(update={"status": "completed"})
    kept = Kept(response=view, items=[QUESTION])
    await here.save(kept)
    assert await here.load(view.id) == await there.load(view.id) == kept
    assert await there.find_item("msg_mine", [QUESTION]) == QUESTION
    with pytest.raises(RequestError, match="msg_mine") as caught:
        await there.find_item("msg_mine", [])
    assert caught.value.param == "input"
    with pytest.raises(RequestError, match="background"):
        await there.cancel(view.id)
    with pytest.raises(RequestError, match="streamed"):
        await followed(there, view.id)
    await there.delete(view.id)
    for made in (here, there):
        with pytest.raises(NotFound):
            await made.load(view.id)
        with pytest.raises(NotFound):
            await made.delete(view.id)
    with pytest.raises(NotFound):
        await here.load(new_response_id("another cluster"))


async def test_the_node_that_keeps_it_is_gone(pair: list[Member], tmp_path: Path):
    here, there = (archive(member, tmp_path) for member in pair)
    name = here.new_id()
    await pair[0].kill()
    with pytest.raises(Unavailable, match="a, which keeps this response") as caught:
        await there.load(name)
    # And when it is not in the cluster's state any more.
    await pair[1].node.wait_for(lambda state: pair[0].peer_id not in state.nodes)
    with pytest.raises(Unavailable, match="a, which keeps this response") as caught:
        await there.load(name)
    assert caught.value.retry_after
    with pytest.raises(Unavailable):
        await followed(there, name)


async def test_a_response_in_the_background(pair: list[Member], tmp_path: Path):
    here, there = (archive(member, tmp_path) for member in pair)
    speaker = Speaker()
    name = await background(here, speaker)
    assert (await there.load(name)).response.status == "in_progress"
    following = asyncio.create_task(followed(there, name))
    speaker.goes_on.set()
    events = await following
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert (await there.load(name)).response == (await here.load(name)).response
    assert (await here.load(name)).response.status == "completed"
    # And again from the disk, or in part.
    assert await followed(there, name, 4) == events[5:]
    assert await followed(archive(pair[0], tmp_path), name) == events
    assert (await there.cancel(name)).status == "completed"


async def test_a_response_in_the_background_is_cancelled(pair: list[Member], tmp_path: Path):
    here, there = (archive(member, tmp_path) for member in pair)
    speaker = Speaker()
    name = await background(here, speaker)
    view = await there.cancel(name)
    assert (view.status, speaker.left) == ("cancelled", True)
    assert (await followed(there, name))[-1]["type"] == "error"
    assert (await here.load(name)).response == view
    other = await background(here, Speaker())
    await there.delete(other)
    with pytest.raises(NotFound):
        await here.load(other)


async def test_a_response_in_the_background_fails(pair: list[Member], tmp_path: Path):
    here = archive(pair[0], tmp_path)
    speaker = Speaker()
    speaker.error = RunnerDied("It died.")
    name = await background(here, speaker)
    speaker.goes_on.set()
    assert (await followed(here, name))[-1]["type"] == "response.failed"
    found = (await here.load(name)).response
    assert found.error is not None
    assert (found.status, found.error.message) == ("failed", "It died.")


async def test_a_node_that_stops_or_is_killed(pair: list[Member], tmp_path: Path):
    here = archive(pair[0], tmp_path)
    killed = await background(here, Speaker(), streams=False)
    again = archive(pair[0], tmp_path)
    assert (await again.load(killed)).response.status == "failed"
    await here.close()
    found = (await again.load(killed)).response
    assert found.error is not None
    assert (found.status, found.error.code) == ("failed", "server_error")
    assert found.output


async def test_what_was_computed_is_written_down_though_the_node_stops(
    pair: list[Member], tmp_path: Path
):
    here = archive(pair[0], tmp_path)
    speaker = Speaker()
    name = await background(here, speaker)
    speaker.goes_on.set()
    async with aclosing(here.follow(name, 4)) as events:
        async for event in events:
            if event["type"] == "response.completed":
                break
    await here.close()
    assert (await archive(pair[0], tmp_path).load(name)).response.status == "completed"
