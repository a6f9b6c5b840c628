"""What `/metrics` tells, as data: for the instruments, for what is read at a scrape, and for
docs/metrics.md alike. Names follow Prometheus: base units, and `_total` for what only grows."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One of them. `read` says that it is looked up when somebody asks, not counted on the way.
    Histograms have `buckets`, in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    read: bool = False


_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 120.0)
_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.5, 10.0)
_STEP = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

_INSTANCE = ("instance_id", "model")
_PEER = ("peer_id", "peer")


# All of them, in the order in which they are told.
METRICS: list[Metric] = []


def _listed(one: Metric) -> Metric:
    METRICS.append(one)
    return one


def _counted(name: str, text: str, *labels: str) -> Metric:
    return _listed(Metric(name, "counter", text, labels))


def _timed(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return _listed(Metric(name, "histogram", text, labels, buckets))


def _read(name: str, text: str, *labels: str) -> Metric:
    kind = "counter" if name.endswith("_total") else "gauge"
    return _listed(Metric(name, kind, text, labels, read=True))


# Counted where a request came in, so that the sum over all nodes is that of the cluster.
HTTP_REQUESTS = _counted(
    "exo_http_requests_total",
    "Requests that were answered, by route and status (499: the client left before).",
    "method", "route", "status",
)  # fmt: skip
HTTP_OPEN = _listed(
    Metric(
        "exo_http_requests_in_progress",
        "gauge",
        "Requests that are being answered, streams included.",
    )
)
HTTP_SECONDS = _timed(
    "exo_http_request_duration_seconds",
    "From a request's arrival to the end of its answer; for a stream, to its last event.",
    _REQUEST, "method", "route",
)  # fmt: skip
GENERATIONS = _counted(
    "exo_generations_total",
    "Answers and pictures that ended: finished, failed, or cancelled by the client.",
    "model", "outcome",
)  # fmt: skip
PROMPT_TOKENS = _counted(
    "exo_prompt_tokens_total", "Tokens of prompts that were taken, cached ones included.", "model"
)
CACHED_TOKENS = _counted(
    "exo_cached_prompt_tokens_total",
    "Tokens of prompts that were in the prefix cache, of answers that finished.", "model",
)  # fmt: skip
GENERATED_TOKENS = _counted(
    "exo_generated_tokens_total", "Tokens of answers, as they come.", "model"
)
FIRST_TOKEN = _timed(
    "exo_time_to_first_token_seconds",
    "From a request's arrival to its first token (a picture's first step); loading counts.",
    _FIRST, "model",
)  # fmt: skip
INTER_TOKEN = _timed(
    "exo_inter_token_seconds",
    "Between two tokens of one answer, where the request came in.", _TOKEN, "model",
)  # fmt: skip
QUEUE = _timed(
    "exo_queue_seconds", "How long answers that finished waited for a slot.", _FIRST, "model"
)
PREFILL = _timed(
    "exo_prefill_seconds", "From a slot to the first token, of answers that finished.", _FIRST,
    "model",
)  # fmt: skip
IMAGES = _counted("exo_images_total", "Pictures that were drawn.", "model")
IMAGE_STEPS = _counted("exo_image_steps_total", "Steps of pictures.", "model")
IMAGE_STEP = _timed("exo_image_step_seconds", "Between two steps of one picture.", _STEP, "model")

# Told by the node that has rank 0 of the instance.
RUNNING = _read("exo_sequences_running", "Answers (pictures) that are being computed.", *_INSTANCE)
WAITING = _read("exo_sequences_waiting", "Answers (pictures) that wait for a slot.", *_INSTANCE)
KV_RESERVED = _read(
    "exo_kv_cache_reserved_bytes",
    "KV memory that the running answers may come to need, in the shard of rank 0.", *_INSTANCE,
)  # fmt: skip
KV_CAPACITY = _read(
    "exo_kv_cache_capacity_bytes", "KV memory there is, in the shard of rank 0.", *_INSTANCE
)
RING_HOP = _read(
    "exo_ring_hop_seconds", "What a hop from one stage to the next takes, smoothed.", *_INSTANCE
)
STAGE_SECONDS = _read(
    "exo_ring_stage_seconds", "What a stage computes in a decode step, smoothed.", *_INSTANCE,
    "rank",
)  # fmt: skip
STAGE_BUSY = _read(
    "exo_ring_stage_busy_ratio", "The share of the time that a stage computed, 0 to 1.",
    *_INSTANCE, "rank",
)  # fmt: skip
DRAFTED = _read(
    "exo_draft_tokens_total", "Tokens that were guessed since the runner began.", *_INSTANCE
)
DRAFTS_RIGHT = _read(
    "exo_draft_tokens_accepted_total", "Those of them that were right.", *_INSTANCE
)

# As this node sees them.
INSTANCES = _read(
    "exo_instances", "Instances of the cluster by status; every node tells the same.", "status"
)
NODES = _read(
    "exo_nodes", "Nodes of the cluster, online or not; every node tells the same.", "online"
)
LINK_UP = _read("exo_link_up", "Whether this node is linked with another one, 1 or 0.", *_PEER)
LINK_LATENCY = _read("exo_link_round_trip_seconds", "Of a link's round trip, smoothed.", *_PEER)
LINK_BANDWIDTH = _read(
    "exo_link_bandwidth_bytes_per_second", "What came over a link when it was measured.", *_PEER
)
REFUSED = _read("exo_links_refused_total", "Links that this node refused, by reason.", "reason")
MEMORY_TOTAL = _read("exo_memory_total_bytes", "Memory of the device that computes.")
MEMORY_AVAILABLE = _read("exo_memory_available_bytes", "What of it is free.")
INFO = _read("exo_node_info", "Always 1: which node this is.", "node_id", "node", "version")
