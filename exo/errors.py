"""Every error that exo raises on purpose.

    ExoError
    ├── ConfigError                 a setting is wrong
    ├── HomeError                   exo's folders cannot be used
    │   └── AlreadyRunning          another daemon holds this home
    ├── PortInUse                   the API's address is taken
    ├── DaemonError                 the daemon cannot be reached or did not start
    │   └── DaemonNotRunning
    ├── RequestError                the client asked for something that cannot be (400)
    │   ├── UnsupportedField        a field exo does not honour yet
    │   ├── ContextLengthExceeded
    │   ├── PreviousResponseNotFound
    │   ├── ModelInvalid            a model folder is damaged or of no known architecture
    │   ├── PlacementImpossible
    │   ├── BodyTooLarge            (413)
    │   ├── RequestCancelled        by its id (499)
    │   ├── Unauthorized            no API key, or none that is known (401)
    │   ├── Forbidden               (403)
    │   │   └── ModelForbidden      the API key is not for this model
    │   └── NotFound                (404)
    │       ├── ModelNotFound
    │       ├── InstanceNotFound
    │       ├── NodeNotFound
    │       ├── KeyNotFound
    │       └── RequestNotFound
    ├── Unavailable                 not now, try again (503)
    │   ├── QueueFull               (429)
    │   ├── RequestTimedOut         it took longer than it may (504)
    │   ├── RateLimited             the API key has used up its rate (429)
    │   ├── StorageFull             (507)
    │   ├── NotMaster               asked a node that is not, or no longer, the master
    │   ├── MasterUnknown           an election is under way
    │   └── PeerError               another node cannot be spoken to
    │       ├── PeerUnreachable
    │       ├── PeerTimeout
    │       ├── LinkClosed
    │       ├── ProtocolError       a frame that is none, or not now
    │       └── HandshakeError      who answers is not who was meant, or proves nothing
    │           └── PeerRefused     another cluster, another secret, another protocol
    ├── NotImplementedYet           (501)
    └── EngineError                 the runner failed (500)
        ├── RunnerDied
        ├── KernelsUnavailable      the CPU kernels cannot be built or used here
        └── RingError               a neighbour in the ring is lost or sends nonsense (503)

Each class says once what it means outside of Python: the HTTP `status`, OpenAI's error `type` and
`code`, and the `exit_code` of the command line. The message says what happened; `hint` says what
to do next.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ExoError(Exception):
    """The root. `message` is a full sentence for a person; `hint` is the next thing to do."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def to_json(self) -> dict[str, Any]:
        """The one error shape of the API, which is OpenAI's."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class ConfigError(ExoError):
    code = "config_invalid"
    exit_code = 2


class HomeError(ExoError):
    code = "home_unusable"
    exit_code = 4


class AlreadyRunning(HomeError):
    code = "already_running"
    exit_code = 3


class PortInUse(ExoError):
    code = "port_in_use"
    exit_code = 5


class DaemonError(ExoError):
    code = "daemon_error"
    exit_code = 6


class DaemonNotRunning(DaemonError):
    code = "daemon_not_running"
    exit_code = 7


class RequestError(ExoError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class UnsupportedField(RequestError):
    code = "unsupported_parameter"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class PreviousResponseNotFound(RequestError):
    """The response to go on from is not stored here, or not any more."""

    code = "previous_response_not_found"


class ModelInvalid(RequestError):
    code = "model_invalid"


class PlacementImpossible(RequestError):
    code = "placement_impossible"


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"


class RequestCancelled(RequestError):
    status = 499
    code = "request_cancelled"


class Unauthorized(RequestError):
    status = 401
    code = "invalid_api_key"


class Forbidden(RequestError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class ModelForbidden(Forbidden):
    code = "model_not_allowed"


class NotFound(RequestError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class InstanceNotFound(NotFound):
    code = "instance_not_found"


class NodeNotFound(NotFound):
    code = "node_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class RequestNotFound(NotFound):
    code = "request_not_found"


class Unavailable(ExoError):
    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class QueueFull(Unavailable):
    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class RateLimited(Unavailable):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class RequestTimedOut(Unavailable):
    status = 504
    type = "timeout_error"
    code = "request_timed_out"


class StorageFull(Unavailable):
    status = 507
    code = "storage_full"


class NotMaster(Unavailable):
    code = "not_master"


class MasterUnknown(Unavailable):
    code = "master_unknown"


class PeerError(Unavailable):
    code = "peer_error"


class PeerUnreachable(PeerError):
    """`refused`: something answered and nobody listens there, so the daemon is gone."""

    code = "peer_unreachable"

    def __init__(self, message: str, *, refused: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.refused = refused


class PeerTimeout(PeerError):
    code = "peer_timeout"


class LinkClosed(PeerError):
    """`clean`: the other side said goodbye."""

    code = "link_closed"

    def __init__(self, message: str, *, clean: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.clean = clean


class ProtocolError(PeerError):
    code = "protocol_error"


class HandshakeError(PeerError):
    code = "handshake_failed"


class PeerRefused(HandshakeError):
    code = "peer_refused"


class NotImplementedYet(ExoError):
    status = 501
    code = "not_implemented"


class EngineError(ExoError):
    code = "engine_error"


class RunnerDied(EngineError):
    code = "runner_died"


class KernelsUnavailable(EngineError):
    """The CPU kernels cannot be built or used here; MLX's own take their place."""

    code = "kernels_unavailable"


class RingError(EngineError):
    status = 503
    type = "service_unavailable_error"
    code = "ring_broken"


def to_wire(error: ExoError) -> dict[str, Any]:
    """An error as it crosses a process or the network."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "param": error.param,
        "retry_after": error.retry_after,
    }


def from_wire(data: Mapping[str, Any]) -> ExoError:
    """The error of `to_wire`, of the same class where this version knows it."""
    return error_class(str(data.get("code", "")))(
        str(data.get("message", "The other side failed.")),
        hint=data.get("hint"),
        param=data.get("param"),
        retry_after=data.get("retry_after"),
    )


def renamed(error: ExoError, param: str) -> ExoError:
    """The same error about a field that has another name where it came from."""
    return from_wire({**to_wire(error), "param": param})


def error_class(code: str) -> type[ExoError]:
    """The class that carries `code`, for an error that crossed a process or the network."""
    found: list[type[ExoError]] = [ExoError]
    for cls in found:
        if cls.code == code:
            return cls
        found.extend(cls.__subclasses__())
    return EngineError
