"""What is counted on the way of requests, and how all of it is written for Prometheus.

`prometheus_client` is imported when it is first needed: a start does not wait for it.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from exo.api import metric
from exo.api.gauges import Reading
from exo.api.metric import METRICS
from exo.cluster.trace import GenerationTrace

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

Read = Callable[[], Iterable[Reading]]


def prepare() -> None:
    """Import what the first request would wait for. Any thread."""
    importlib.import_module("prometheus_client")


class Meters:
    """The instruments of one node. It watches generations as they go on."""

    def request_begins(self) -> None:
        self._made[metric.HTTP_OPEN.name].inc()

    def request_ends(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a path of the API with its parameters' names, not what a client sent."""
        self._made[metric.HTTP_OPEN.name].dec()
        self._made[metric.HTTP_REQUESTS.name].labels(method, route, str(status)).inc()
        self._made[metric.HTTP_SECONDS.name].labels(method, route).observe(seconds)

    # As a `Watcher`.

    def accepted(self, model_id: str, prompt_tokens: int) -> None:
        self._made[metric.PROMPT_TOKENS.name].labels(model_id).inc(prompt_tokens)

    def first_token(self, model_id: str, seconds: float) -> None:
        self._made[metric.FIRST_TOKEN.name].labels(model_id).observe(seconds)

    def token(self, model_id: str, gap: float | None) -> None:
        self._made[metric.GENERATED_TOKENS.name].labels(model_id).inc()
        if gap is not None:
            self._made[metric.INTER_TOKEN.name].labels(model_id).observe(gap)

    def image_step(self, model_id: str, gap: float | None) -> None:
        self._made[metric.IMAGE_STEPS.name].labels(model_id).inc()
        if gap is not None:
            self._made[metric.IMAGE_STEP.name].labels(model_id).observe(gap)

    def ended(self, trace: GenerationTrace) -> None:
        model_id = trace.model_id
        self._made[metric.GENERATIONS.name].labels(model_id, trace.outcome).inc()
        if trace.images:
            self._made[metric.IMAGES.name].labels(model_id).inc(trace.images)
        if trace.cached_tokens:
            self._made[metric.CACHED_TOKENS.name].labels(model_id).inc(trace.cached_tokens)
        if trace.queue is not None:
            self._made[metric.QUEUE.name].labels(model_id).observe(trace.queue)
        if trace.prefill is not None:
            self._made[metric.PREFILL.name].labels(model_id).observe(trace.prefill)

    # For Prometheus.

    def render(self, accept: str, read: Read) -> tuple[bytes, str]:
        """All there is, with what `read` finds now, and its content type: Prometheus' own text, or
        OpenMetrics for those that accept it."""
        from prometheus_client import exposition  # noqa: PLC0415
        from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415

        everything = cast("CollectorRegistry", _Both(self._registry, read))
        # Not typed there.
        as_openmetrics: Callable[[CollectorRegistry], bytes] = cast(
            "Any", openmetrics
        ).generate_latest
        # The library's own choice fails on versions that are no numbers.
        if "application/openmetrics-text" in accept:
            return as_openmetrics(everything), openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(everything), exposition.CONTENT_TYPE_PLAIN_0_0_4

    @cached_property
    def _registry(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        return registry

    @cached_property
    def _made(self) -> dict[str, Any]:
        import prometheus_client as client  # noqa: PLC0415

        client.disable_created_metrics()
        made: dict[str, Any] = {}
        for each in METRICS:
            if each.read:
                continue
            given: dict[str, Any] = {"registry": self._registry}
            if each.kind == "histogram":
                given["buckets"] = each.buckets
            kinds: dict[str, Any] = {
                "counter": client.Counter,
                "gauge": client.Gauge,
                "histogram": client.Histogram,
            }
            made[each.name] = kinds[each.kind](each.name, each.help, each.labels, **given)
        return made


class _Both:
    """What was counted, then what is read now."""

    def __init__(self, counted: "CollectorRegistry", read: Read) -> None:
        self._counted = counted
        self._read = read

    def collect(self) -> "Iterator[Family]":
        from prometheus_client import core  # noqa: PLC0415

        yield from self._counted.collect()
        found: dict[str, core.CounterMetricFamily | core.GaugeMetricFamily] = {}
        for each in self._read():
            known = each.metric
            if known.name not in found:
                counts = known.kind == "counter"
                kind = core.CounterMetricFamily if counts else core.GaugeMetricFamily
                found[known.name] = kind(known.name, known.help, labels=known.labels)
            found[known.name].add_metric(each.labels, each.value)
        yield from found.values()
