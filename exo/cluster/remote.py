"""What nodes ask of one another over their links, and how it is written there.

cluster.follow    stream   Offer → Snapshot or Entries, then Entries for ever   (to the master)
cluster.acked     notice   index that a follower has                            (to the master)
cluster.command   request  Command → index of the state it led to               (to the master)
cluster.report    request  Report: what a follower's node observed              (to the master)
cluster.sample    request  ModelQuery → NodeSample
cluster.generate  stream   instance id, request → what its runner says of it
cluster.keep      request  instance id, seconds → nil      (to the node of rank 0)
cluster.unload    request  instance id → whether it is gone (to the node of rank 0)
cluster.cancel    request  id of an HTTP request, API key or nil → whether there was one
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from exo.cluster.events import Entry
from exo.cluster.requests import Asked, Output
from exo.cluster.resources import ModelQuery, NodeSample
from exo.cluster.state import ClusterState, LinkInfo, Model, NodeInfo, Runner
from exo.device.profile import DeviceProfile
from exo.errors import ProtocolError
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, Preview
from exo.inference.messages import Accepted, Embedded, Finished, Tokens, from_runner
from exo.inference.types import Delta
from exo.p2p.term import Term

FOLLOW = "cluster.follow"
ACKED = "cluster.acked"
COMMAND = "cluster.command"
REPORT = "cluster.report"
SAMPLE = "cluster.sample"
GENERATE = "cluster.generate"
LEAVE = "cluster.leave"
CANCEL = "cluster.cancel"
KEEP = "cluster.keep"
UNLOAD = "cluster.unload"

T = TypeVar("T")


class Offer(Model):
    """What a node brings that begins to follow: itself, its runners as they are, and its copy of
    the state."""

    term: Term
    node: NodeInfo
    runners: tuple[Runner, ...]
    state: ClusterState


class Snapshot(Model):
    type: Literal["snapshot"] = "snapshot"
    state: ClusterState


class Entries(Model):
    type: Literal["entries"] = "entries"
    entries: tuple[Entry, ...]


class Report(Model):
    """What a node observed: a runner of its own, its device, its links, when it saw API keys."""

    node_id: str
    runner: Runner | None = None
    device: DeviceProfile | None = None
    links: tuple[LinkInfo, ...] = ()
    keys_used: dict[str, str] = Field(default_factory=dict[str, str])


class Generation(Model):
    """What an instance is asked to compute."""

    instance_id: str
    request: Asked


Replicated = Annotated[Snapshot | Entries, Field(discriminator="type")]
offer_adapter: TypeAdapter[Offer] = TypeAdapter(Offer)
report_adapter: TypeAdapter[Report] = TypeAdapter(Report)
replicated_adapter: TypeAdapter[Replicated] = TypeAdapter(Replicated)
query_adapter: TypeAdapter[ModelQuery] = TypeAdapter(ModelQuery)
sample_adapter: TypeAdapter[NodeSample] = TypeAdapter(NodeSample)


def pack(message: BaseModel) -> str:
    return message.model_dump_json()


def unpack(kind: TypeAdapter[T], body: Any) -> T:
    """The message in a body.

    Raises:
        ProtocolError: it is none of this version.
    """
    try:
        return kind.validate_json(body)
    except (ValidationError, TypeError) as error:
        raise _unreadable() from error


def pack_generation(asked: Generation) -> dict[str, Any]:
    """As JSON has it: the keys of a body are text, and those of logit_bias are numbers. Pictures
    stay the bytes that they are."""
    mode = "python" if isinstance(asked.request, DrawRequest) else "json"
    return asked.model_dump(mode=mode)


def unpack_generation(body: Any) -> Generation:
    """As `unpack`, of a message that is not in JSON."""
    try:
        return Generation.model_validate(body)
    except ValidationError as error:
        raise _unreadable() from error


def pack_output(output: Output) -> dict[str, Any]:
    """What a runner says of a request, as the runner's own messages have it: a number that JSON
    cannot write (a log probability of minus infinity) arrives as it was."""
    message = Tokens(deltas=[output]) if isinstance(output, Delta) else output
    return message.model_dump(mode="python")


def unpack_output(body: Any) -> Output:
    """As `unpack`."""
    try:
        message = from_runner.validate_python(body)
    except ValidationError as error:
        raise _unreadable() from error
    match message:
        case Tokens(deltas=[delta]):
            return delta
        case (
            Accepted() | Embedded() | Finished() | Drawing() | Preview() | Drawn() | DrawFinished()
        ):
            return message
        case _:
            raise _unreadable()


def _unreadable() -> ProtocolError:
    return ProtocolError(
        "Another node sent what this version of exo cannot read.",
        hint="Run the same version of exo on every node; `exo node list` shows them.",
    )
