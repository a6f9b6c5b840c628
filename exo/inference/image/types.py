"""The one request type of image generation and editing, and what comes back for it.

Both cross the process border to the runner and the links between nodes. Pictures travel as PNG, 8
bits RGB (a mask: 8 bits grey), upright, without metadata.
"""

from typing import Literal

from pydantic import Field

from exo.inference.types import Asked, Wire


class DrawRequest(Asked):
    """Draw `n` pictures of `width` by `height` pixels; picture i uses `seed` + i.

    With `images` they are edits of these, where white (255) in `mask`, as large as the first of
    them, may change. `strength` says how much of the first image must stay, 0 to 1. `first` is the
    number of the first picture wanted, where other nodes draw the rest. `guidance` and
    `negative_prompt` None mean the model's own. With `patches`, ranks that share a model compute so
    many parts of a picture at once, after `sync_steps` whole steps (None: the engine's own number);
    what comes of it is approximate. `partial_images` is how many previews of each picture are
    wanted on the way. `trace_id` is the id of the HTTP request, for logs.
    """

    prompt: str
    width: int = Field(ge=16)
    height: int = Field(ge=16)
    steps: int = Field(ge=1)
    seed: int = Field(ge=0)
    n: int = Field(default=1, ge=1)
    first: int = Field(default=0, ge=0)
    guidance: float | None = None
    negative_prompt: str | None = None
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    strength: float | None = Field(default=None, ge=0, le=1)
    patches: int | None = Field(default=None, ge=1)
    sync_steps: int | None = Field(default=None, ge=1)
    partial_images: int = Field(default=0, ge=0)
    trace_id: str = ""


class Drawing(Wire):
    """Picture `index` has gone through `step` of `steps`."""

    type: Literal["drawing"] = "drawing"
    request_id: str
    index: int
    step: int
    steps: int


class Preview(Wire):
    """Picture `index` as it would be by now; `number` counts its previews from 0."""

    type: Literal["preview"] = "preview"
    request_id: str
    index: int
    number: int
    png: bytes


class Drawn(Wire):
    """Picture `index` is done."""

    type: Literal["drawn"] = "drawn"
    request_id: str
    index: int
    png: bytes


class DrawStats(Wire):
    """Of one finished request. Times in seconds since it reached the runner, memory in bytes;
    `steps` are those that were computed for one picture. Where several runners drew, the time in
    all is that since it was asked for, and the memory that of the one that needed most.
    `approximate` says that there were steps of patches: the pictures are near to those of one node,
    not the same."""

    images: int
    steps: int
    width: int
    height: int
    queue_time: float
    seconds_per_step: float
    total_time: float
    peak_memory_usage: int
    approximate: bool = False


class DrawFinished(Wire):
    """All pictures of a request are done."""

    type: Literal["draw_finished"] = "draw_finished"
    request_id: str
    stats: DrawStats
