"""`/metrics`: what it says, how it is called, and that its labels stay few."""

import re
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exo.api.gauges import readings
from exo.api.meters import Meters
from exo.api.metric import METRICS
from exo.cluster.trace import Recording
from exo.inference.messages import Accepted, DraftStats, Finished, LoadStats, RingStats
from exo.inference.types import Delta, GenerateRequest
from exo.p2p.measure import LinkMeasure
from tests.cluster.factory import instance, runner
from tests.cluster.test_trace import STATS

from .conftest import Served
from .stub import make_state, peer_link

Samples = dict[tuple[str, tuple[str, ...]], float]


async def scraped(served: Served) -> Samples:
    """Each sample by its name and the values of its labels, in the order of their names."""
    async with served.client.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def generation(meters: Meters, name: str = "req") -> Any:
    one = Recording(name, "POST", "/r", "then", "a", 0.0, meters)
    return one.begin(instance(), GenerateRequest(request_id=name), 0.0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric):
    assert re.fullmatch(r"exo_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
        assert list(metric.buckets) == sorted(metric.buckets)
    assert not {"prompt", "key", "request_id", "path"} & set(metric.labels)


async def test_everything_in_the_table_is_told(served: Served):
    """A ring of two with drafts, a link, a refusal, requests and pictures."""
    one = instance()
    state = make_state(served.node.state, instances={"i": one}, runners={"i/0": runner()})
    served.node.state = state
    served.node.loads["i"] = LoadStats(running=2, waiting=1, kv_reserved=30, kv_capacity=100)
    served.node.rings["i"] = RingStats(
        seconds=(0.1, 0.2), busy=(0.5, 1), hop=0.01, rows=1, groups=1
    )
    served.node.drafts["i"] = DraftStats(guessed=8, accepted=6)
    served.node.network.up = [peer_link("b")]
    served.node.network.measures["b"] = LinkMeasure("b", 0.002, 1e9)
    served.node.network.refused = {"wrong_secret": 3}
    await served.get("/state")
    found = await scraped(served)
    for key, value in {
        ("exo_instances", ("ready",)): 1,
        ("exo_instances", ("failed",)): 0,
        ("exo_nodes", ("true",)): 2,
        ("exo_sequences_running", ("i", "m")): 2,
        ("exo_sequences_waiting", ("i", "m")): 1,
        ("exo_kv_cache_reserved_bytes", ("i", "m")): 30,
        ("exo_kv_cache_capacity_bytes", ("i", "m")): 100,
        ("exo_ring_hop_seconds", ("i", "m")): 0.01,
        ("exo_ring_stage_seconds", ("i", "m", "1")): 0.2,
        ("exo_ring_stage_busy_ratio", ("i", "m", "0")): 0.5,
        ("exo_draft_tokens_total", ("i", "m")): 8,
        ("exo_draft_tokens_accepted_total", ("i", "m")): 6,
        ("exo_link_up", ("node-b", "b")): 1,
        ("exo_link_round_trip_seconds", ("node-b", "b")): 0.002,
        ("exo_link_bandwidth_bytes_per_second", ("node-b", "b")): 1e9,
        ("exo_links_refused_total", ("wrong_secret",)): 3,
        ("exo_memory_total_bytes", ()): 100,
        ("exo_memory_available_bytes", ()): 40,
        ("exo_http_requests_total", ("GET", "/state", "200")): 1,
        ("exo_http_requests_in_progress", ()): 1,
    }.items():
        assert found[key] == value, key
    read = {reading.metric.name for reading in readings(served.node)}
    assert read == {metric.name for metric in METRICS if metric.read}


async def test_what_is_computed_elsewhere_is_told_there(served: Served):
    served.node.state = make_state(served.node.state, instances={"i": instance(node_id="b")})
    served.node.loads["i"] = LoadStats(running=2, waiting=1)
    assert not any(name.startswith("exo_sequences") for name, _ in await scraped(served))


async def test_a_link_that_is_down_has_no_latency(served: Served):
    served.node.network.measures["b"] = LinkMeasure("b", 0.002, 1e9)
    found = await scraped(served)
    assert found["exo_link_up", ("node-b", "b")] == 0
    assert not any(name == "exo_link_round_trip_seconds" for name, _ in found)


def test_an_answer_is_counted_as_it_comes():
    meters = Meters()
    one = generation(meters)
    one.saw(Accepted(request_id="r", prompt_tokens=10), 0.25)
    one.saw(Delta(request_id="r"), 1.0)
    assert sample(meters, "exo_generated_tokens_total", "m") == 1
    one.saw(Delta(request_id="r"), 3.0)
    one.saw(Finished(request_id="r", stats=STATS), 3.0)
    one.close(3.0)
    assert sample(meters, "exo_prompt_tokens_total", "m") == 10
    assert sample(meters, "exo_cached_prompt_tokens_total", "m") == 4
    assert sample(meters, "exo_generated_tokens_total", "m") == 2
    assert sample(meters, "exo_time_to_first_token_seconds_sum", "m") == 1.0
    assert sample(meters, "exo_inter_token_seconds_sum", "m") == 2.0
    assert sample(meters, "exo_inter_token_seconds_count", "m") == 1
    assert sample(meters, "exo_queue_seconds_sum", "m") == 0.5
    assert sample(meters, "exo_prefill_seconds_sum", "m") == 1.5
    assert sample(meters, "exo_generations_total", "m", "finished") == 1
    assert sample(meters, "exo_image_steps_total", "m") is None


def test_pictures_are_counted_by_step():
    meters = Meters()
    meters.image_step("m", None)
    meters.image_step("m", 2.0)
    assert sample(meters, "exo_image_steps_total", "m") == 2
    assert sample(meters, "exo_image_step_seconds_sum", "m") == 2.0


async def test_labels_are_of_the_api_not_of_its_clients(served: Served):
    for path in ("/v1/requests/one/trace", "/v1/requests/two/trace", "/x/y", "/z"):
        async with served.client.get(path) as response:
            assert response.status == 404
    async with served.client.request("PROPFIND", "/z") as response:
        assert response.status in {404, 405}
    found = {key for key in await scraped(served) if key[0] == "exo_http_requests_total"}
    assert {labels for _, labels in found} == {
        ("GET", "/v1/requests/{request_id}/trace", "404"),
        ("GET", "none", "404"),
        ("none", "none", "404"),
    }


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain"),
        ("text/html, */*;q=0.5", "text/plain"),
        ("text/plain;version=abc", "text/plain"),
        ("application/openmetrics-text;version=1.0.0,text/plain", "application/openmetrics-text"),
        ("application/openmetrics-text;version=x", "application/openmetrics-text"),
    ],
)
async def test_it_speaks_what_prometheus_accepts(served: Served, accept: str, content_type: str):
    async with served.client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.content_type == content_type
        assert "exo_node_info" in await response.text()


def sample(meters: Meters, name: str, *labels: str) -> float | None:
    body, _ = meters.render("", lambda: ())
    for family in text_string_to_metric_families(body.decode()):
        for each in family.samples:
            if each.name == name and tuple(each.labels.values()) == labels:
                return each.value
    return None


def test_a_start_does_not_wait_for_the_library():
    code = "import sys, exo.daemon; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
