"""What a trace tells of a request, and which are kept."""

from dataclasses import dataclass, field

import pytest

from exo.cluster.state import Shard
from exo.cluster.trace import Generation, GenerationTrace, Outcome, Recording, Recordings
from exo.errors import QueueFull
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, DrawStats
from exo.inference.messages import Accepted, Finished
from exo.inference.types import Delta, GenerateRequest, Stats
from tests.cluster.factory import instance

STATS = Stats(
    prompt_tokens=10,
    generation_tokens=3,
    cached_tokens=4,
    reasoning_tokens=1,
    queue_time=0.5,
    ttft=2.0,
    total_time=5.0,
    prompt_tps=1,
    generation_tps=1,
    peak_memory_usage=1,
    prefill_stages=(1.0, 0.25),
    decode_stages=(2.0, 0.75),
)


@dataclass
class Ears:
    """Keeps what a watcher is told."""

    heard: list[tuple[object, ...]] = field(default_factory=list)
    traces: list[GenerationTrace] = field(default_factory=list)

    def accepted(self, model_id: str, prompt_tokens: int) -> None:
        self.heard.append(("accepted", model_id, prompt_tokens))

    def first_token(self, model_id: str, seconds: float) -> None:
        self.heard.append(("first", model_id, seconds))

    def token(self, model_id: str, gap: float | None) -> None:
        self.heard.append(("token", model_id, gap))

    def image_step(self, model_id: str, gap: float | None) -> None:
        self.heard.append(("step", model_id, gap))

    def ended(self, trace: GenerationTrace) -> None:
        self.traces.append(trace)


def recorded(name: str = "req_1", ears: Ears | None = None) -> Recording:
    return Recording(name, "POST", "/v1/chat/completions", "then", "a", 100.0, ears or Ears())


def begun(ears: Ears, now: float = 101.0) -> Generation:
    return recorded(ears=ears).begin(instance(), GenerateRequest(request_id="chatcmpl-1"), now)


def over_two_nodes():
    one = instance()
    shards = (
        Shard(rank=0, node_id="a", start_layer=0, end_layer=3, memory=1),
        Shard(rank=1, node_id="b", start_layer=3, end_layer=4, memory=1),
    )
    placement = one.placement.model_copy(update={"shards": shards})
    return one.model_copy(update={"placement": placement})


def test_a_trace_has_the_times_and_the_counts_of_an_answer():
    ears = Ears()
    one = recorded(ears=ears)
    generation = one.begin(over_two_nodes(), GenerateRequest(request_id="chatcmpl-1"), 101.0)
    generation.saw(Accepted(request_id="r", prompt_tokens=10), 101.5)
    for now in (103.0, 104.0, 106.5):
        generation.saw(Delta(request_id="r", text="Hi"), now)
    generation.saw(Finished(request_id="r", stats=STATS), 106.5)
    generation.close(107.0)
    one.end(200, 108.0)
    trace = one.trace()
    assert (trace.id, trace.status, trace.seconds, trace.node_id) == ("req_1", 200, 8.0, "a")
    (found,) = trace.generations
    assert (found.generation_id, found.instance_id, found.model_id) == ("chatcmpl-1", "i", "m")
    assert (found.node_id, found.outcome, found.error) == ("a", "finished", None)
    assert (found.sent, found.accepted, found.first_token, found.ended) == (1.0, 1.5, 3.0, 7.0)
    assert (found.queue, found.prefill, found.decode) == (0.5, 1.5, 3.0)
    assert (found.prompt_tokens, found.cached_tokens) == (10, 4)
    assert (found.generated_tokens, found.reasoning_tokens) == (3, 1)
    assert [(s.node_id, s.end_layer, s.prefill, s.decode) for s in found.stages] == [
        ("a", 3, 1.0, 2.0),
        ("b", 4, 0.25, 0.75),
    ]
    assert ears.heard == [
        ("accepted", "m", 10),
        ("first", "m", 3.0),
        ("token", "m", None),
        ("token", "m", 1.0),
        ("token", "m", 2.5),
    ]
    assert ears.traces == [found]


def test_where_all_ranks_compute_every_step_each_took_what_all_took():
    stats = STATS.model_copy(update={"prefill_stages": (1.0,), "decode_stages": ()})
    generation = recorded().begin(over_two_nodes(), GenerateRequest(request_id="c"), 101.0)
    assert [s.prefill for s in generation.trace().stages] == [None] * 2, "not known before its end"
    generation.saw(Finished(request_id="r", stats=stats), 102.0)
    assert [(s.prefill, s.decode) for s in generation.trace().stages] == [(1.0, 0.0)] * 2


def test_gaps_are_within_one_answer():
    ears = Ears()
    generation = begun(ears)
    for index, now in ((0, 102.0), (1, 103.0), (0, 104.0), (1, 105.0)):
        generation.saw(Delta(request_id="r", index=index), now)
    assert [told[2] for told in ears.heard if told[0] == "token"] == [None, None, 2.0, 2.0]


def test_a_trace_of_pictures():
    ears = Ears()
    asked = DrawRequest(request_id="img-1", prompt="p", width=64, height=64, steps=2, seed=0)
    generation = recorded(ears=ears).begin(instance(), asked, 101.0)
    for step, now in ((1, 102.0), (2, 104.0)):
        generation.saw(Drawing(request_id="r", index=0, step=step, steps=2), now)
    generation.saw(Drawn(request_id="r", index=0, png=b""), 104.0)
    stats = DrawStats(images=1, steps=2, width=64, height=64, queue_time=1, seconds_per_step=1,
                      total_time=4, peak_memory_usage=1)  # fmt: skip
    generation.saw(DrawFinished(request_id="r", stats=stats), 105.0)
    generation.close(105.0)
    (found,) = ears.traces
    assert (found.images, found.image_steps, found.generated_tokens) == (1, 2, 0)
    assert (found.queue, found.decode, found.outcome) == (1, 3, "finished")
    assert [told for told in ears.heard if told[0] == "step"] == [
        ("step", "m", None),
        ("step", "m", 2.0),
    ]


@pytest.mark.parametrize(("fails", "outcome"), [(True, "failed"), (False, "cancelled")])
def test_how_it_ended_is_told(fails: bool, outcome: Outcome):
    ears = Ears()
    generation = begun(ears)
    assert generation.trace().outcome == "open"
    if fails:
        generation.fail(QueueFull("What it says may quote the prompt."))
    generation.close(102.0)
    (found,) = ears.traces
    assert (found.outcome, found.error) == (outcome, "queue_full" if fails else None)
    assert "quote" not in found.model_dump_json()


def test_only_the_last_ones_are_kept():
    kept = Recordings(limit=2)
    for name in ("one", "two", "three"):
        kept.add(recorded(name))
    assert len(kept) == 2
    assert kept.find("one") is None
    assert kept.find("three")


def test_a_name_that_is_used_again_is_that_of_the_last_one():
    kept = Recordings()
    first, second = recorded("one"), recorded("one")
    kept.add(first)
    kept.add(second)
    assert len(kept) == 1
    assert kept.find("one") is second


def test_a_request_is_found_by_the_id_of_its_answer():
    kept = Recordings()
    one = recorded("one")
    kept.add(one)
    one.begin(instance(), GenerateRequest(request_id="chatcmpl-7"), 1.0)
    assert kept.find("chatcmpl-7") is one
    assert kept.find("chatcmpl-8") is None
