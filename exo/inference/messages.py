"""The messages between the daemon and a runner, and their frames on the unix socket.

A frame is a 4-byte big-endian length and one msgpack map with a `type`. The daemon sends `Load`
once, then `Generate` and `Cancel`; the runner answers `Hello`, `Progress`…, `Ready` or `Failed`,
then `Tokens` and one `Finished` or `RequestFailed` for each request. `Heartbeat` comes twice a
second; its `steps` moves on whenever the MLX thread finishes a piece of work.

A runner that is one rank of several answers `Load` with `Listening`, and waits for `Connect`, which
says who is next to it in the ring; then it loads. `RingLost` says that the ring broke: it is formed
again by itself, and `Ready` comes again.
"""

import struct
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgpack
from pydantic import Field, TypeAdapter, ValidationError

from exo.errors import EngineError, ExoError, error_class
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, Preview
from exo.inference.ring.events import RingSpec
from exo.inference.types import Delta, EmbedRequest, GenerateRequest, Stats, Wire

# What all ranks must have in common of links that are not encrypted.
UNENCRYPTED = "unencrypted"
MAX_FRAME = 64 * 1024 * 1024
HEADER = struct.Struct(">I")
T = TypeVar("T")


class Load(Wire):
    """Load layers [start_layer, end_layer) of the model in `path`, as `rank` of `size`.

    `kv_tokens` is how many tokens of keys and values the shard has memory for, over all sequences,
    and `kv_bytes_per_token` what one of them takes in the shard's layers; with `kv_bits` they are
    quantised, and with `kv_dtype` held in that type, though the rest is computed in float32. A
    shard of several listens on `ring_host`, and its links are encrypted if `ring_encrypted`; `plan`
    says which rank computes which layers. Rank 0 makes drafts as `draft` says: by `ngram`, or with
    the model of that name in `draft_path`. With a `group` (the name of a backend of
    `mx.distributed`) activations go over that; with `tensor`, which needs one, all ranks have the
    same layers and an equal part of each. Of an image model, `variant` is which one it is (its
    card's architecture), and its layers are the transformer's blocks; of one for text it is empty.
    An `encoder` makes vectors only, and needs memory for what it computes of `kv_tokens` tokens at
    once. With `guidance`, both ranks of an image model have all of its blocks, and each computes
    one of the two passes that a step is.
    """

    type: Literal["load"] = "load"
    path: Path
    start_layer: int
    end_layer: int
    context_length: int
    max_concurrency: int
    max_queue: int
    kv_tokens: int
    kv_bytes_per_token: int = Field(ge=1)
    prefix_cache_bytes: int
    cast_float32: bool
    rank: int = 0
    size: int = 1
    ring_host: str = ""
    ring_encrypted: bool = True
    plan: str = ""
    kv_bits: int | None = None
    kv_dtype: Literal["", "float16", "bfloat16"] = ""
    draft: str | None = None
    draft_path: Path | None = None
    group: Literal["", "ring", "jaccl", "nccl"] = ""
    tensor: bool = False
    variant: str = ""
    encoder: bool = False
    guidance: bool = False


class Connect(Wire):
    """Form this ring."""

    type: Literal["connect"] = "connect"
    ring: RingSpec


class Generate(Wire):
    type: Literal["generate"] = "generate"
    request: GenerateRequest


class Draw(Wire):
    """To a runner with an image model, which answers `Accepted`, then `Drawing`, `Preview` and
    `Drawn` for its pictures, and one `DrawFinished` or `RequestFailed`."""

    type: Literal["draw"] = "draw"
    request: DrawRequest


class Embed(Wire):
    """To a runner with a model of text, which answers `Accepted`, then `Embedded` for each input,
    and one `Finished` or `RequestFailed`."""

    type: Literal["embed"] = "embed"
    request: EmbedRequest


class Cancel(Wire):
    type: Literal["cancel"] = "cancel"
    request_id: str


class Hello(Wire):
    """The runner has imported its engine and waits for `Load`."""

    type: Literal["hello"] = "hello"
    pid: int
    engine: str


class Progress(Wire):
    type: Literal["progress"] = "progress"
    phase: Literal["loading", "warming"]
    done: int
    total: int


class Listening(Wire):
    """Where the rank before is to connect to, the certificate (PEM) that this runner will show,
    and what all ranks must have in common."""

    type: Literal["listening"] = "listening"
    port: int
    certificate: str
    facts: dict[str, str]


class RingLost(Wire):
    """The ring broke, or cannot be formed yet."""

    type: Literal["ring_lost"] = "ring_lost"
    reason: str


class Ready(Wire):
    type: Literal["ready"] = "ready"
    memory: int


class WireError(Wire):
    """An `ExoError` in transit."""

    code: str
    message: str
    hint: str | None = None
    param: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: ExoError) -> "WireError":
        return cls(
            code=error.code,
            message=error.message,
            hint=error.hint,
            param=error.param,
            retry_after=error.retry_after,
        )

    def to_error(self) -> ExoError:
        return error_class(self.code)(
            self.message, hint=self.hint, param=self.param, retry_after=self.retry_after
        )


class Failed(Wire):
    """Loading failed; the runner exits. Trying again with the same files would fail again."""

    type: Literal["failed"] = "failed"
    error: WireError


class Accepted(Wire):
    """The prompt is tokenised and fits; the request waits for a slot. `prompt` and `text` are told
    of a dry one only, which is finished with that."""

    type: Literal["accepted"] = "accepted"
    request_id: str
    prompt_tokens: int
    prompt: list[int] = Field(default_factory=list[int])
    text: str = ""


class Tokens(Wire):
    """What one step gave, for all requests."""

    type: Literal["tokens"] = "tokens"
    deltas: list[Delta]


class Finished(Wire):
    type: Literal["finished"] = "finished"
    request_id: str
    stats: Stats


class Embedded(Wire):
    """The vector of input `index`: numbers of 32 bits, the lowest byte first."""

    type: Literal["embedded"] = "embedded"
    request_id: str
    index: int
    vector: bytes


class RingStats(Wire):
    """How a ring works, from rank 0, every second in which it does: by rank, the seconds of a
    decode step (smoothed) and the share of the time that it computed, the rest being bubbles; the
    seconds of a hop; sequences that decode, in how many groups, and those that wait."""

    type: Literal["ring_stats"] = "ring_stats"
    seconds: tuple[float, ...]
    busy: tuple[float, ...]
    hop: float
    rows: int
    groups: int
    waiting: int = 0


class DraftStats(Wire):
    """Tokens guessed since the runner began, and how many of them were right, from rank 0. `off`
    says why there are no drafts, where this model cannot have any."""

    type: Literal["draft_stats"] = "draft_stats"
    guessed: int = 0
    accepted: int = 0
    off: str | None = None


class LoadStats(Wire):
    """What rank 0 has to do: sequences (of an image model: requests) that are computed and that
    wait, and bytes of KV memory of its shard that those computed may come to need, of how many."""

    type: Literal["load_stats"] = "load_stats"
    running: int
    waiting: int
    kv_reserved: int = 0
    kv_capacity: int = 0


class RequestFailed(Wire):
    type: Literal["request_failed"] = "request_failed"
    request_id: str
    error: WireError


class Heartbeat(Wire):
    type: Literal["heartbeat"] = "heartbeat"
    steps: int
    busy: bool


ToRunner = Annotated[Load | Connect | Generate | Embed | Draw | Cancel, Field(discriminator="type")]
FromRunner = Annotated[
    Hello
    | Listening
    | Progress
    | Ready
    | RingLost
    | RingStats
    | DraftStats
    | LoadStats
    | Failed
    | Accepted
    | Tokens
    | Embedded
    | Finished
    | Drawing
    | Preview
    | Drawn
    | DrawFinished
    | RequestFailed
    | Heartbeat,
    Field(discriminator="type"),
]
to_runner: TypeAdapter[ToRunner] = TypeAdapter(ToRunner)
from_runner: TypeAdapter[FromRunner] = TypeAdapter(FromRunner)


def encode(message: Wire) -> bytes:
    """One frame.

    Raises:
        EngineError: the message is larger than a frame may be.
    """
    body: bytes = msgpack.packb(message.model_dump(mode="python"), default=str)
    if len(body) > MAX_FRAME:
        raise EngineError(f"A message to or from the runner has {len(body)} bytes, too many.")
    return HEADER.pack(len(body)) + body


def decode(adapter: TypeAdapter[T], body: bytes) -> T:
    """The message in a frame's body.

    Raises:
        EngineError: it is no message of this version.
    """
    try:
        data: Any = msgpack.unpackb(body, strict_map_key=False)
        return adapter.validate_python(data)
    except (ValueError, TypeError, msgpack.UnpackException, ValidationError) as error:
        # A TypeError: of a key that is a list.
        raise EngineError("A message to or from the runner cannot be read.") from error


def frame_length(header: bytes) -> int:
    """The body's length that a header gives.

    Raises:
        EngineError: it is longer than a frame may be, so the stream is damaged.
    """
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise EngineError(f"A frame of {length} bytes was announced on the runner's socket.")
    return length
