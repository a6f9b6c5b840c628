"""Requests for vectors in the runner's service, over the fake engine."""

from typing import Any

from exo.errors import EngineError, RequestError
from exo.inference.messages import (
    Accepted,
    Cancel,
    Embed,
    Embedded,
    Finished,
    RequestFailed,
    Tokens,
)
from exo.inference.types import EmbedRequest

from .test_service import LOAD, Bench


def embed(bench: Bench, *inputs: str, name: str = "e", **fields: Any) -> None:
    request = EmbedRequest(request_id=name, inputs=list(inputs), **fields)
    bench.said += bench.service.handle(Embed(request=request), bench.engine.prepare_texts(request))


def refusal(bench: Bench, name: str = "e") -> RequestFailed:
    [failed] = [each for each in bench.of(RequestFailed) if each.request_id == name]
    return failed


def test_every_input_has_its_vector():
    bench = Bench()
    embed(bench, "a b", "c")
    assert bench.said == [Accepted(request_id="e", prompt_tokens=3)]
    bench.run()
    found = bench.of(Embedded)
    assert [each.index for each in found] == [0, 1]
    assert found[0].vector != found[1].vector
    [finished] = bench.of(Finished)
    assert bench.said.index(finished) > bench.said.index(found[-1])
    assert (finished.stats.prompt_tokens, finished.stats.generation_tokens) == (3, 0)
    assert bench.service.waiting == 0


def test_answers_go_on_beside_it():
    bench = Bench()
    bench.ask("x y z", max_tokens=4)
    embed(bench, "a", "b", "c")
    bench.step(2)
    assert len(bench.of(Tokens)) == 2
    assert len(bench.of(Embedded)) == 2
    bench.run()
    assert len(bench.of(Finished)) == 2


def test_it_waits_for_its_turn():
    bench = Bench()
    for name in ("one", "two", "three"):
        embed(bench, "a", "b", name=name)
    embed(bench, "a", name="four")
    assert bench.service.waiting == 4
    embed(bench, "a", name="five")
    assert refusal(bench, "five").error.code == "queue_full"
    bench.run()
    assert [each.request_id for each in bench.of(Finished)] == ["one", "two", "three", "four"]


def test_what_is_cancelled_frees_its_place():
    bench = Bench()
    embed(bench, "a", "b", "c")
    bench.step()
    bench.said += bench.service.handle(Cancel(request_id="e"))
    assert not bench.service.busy
    bench.step()
    assert len(bench.of(Embedded)) == 1
    embed(bench, "a", name="next")
    bench.run()
    assert bench.of(Finished)[0].request_id == "next"


def test_what_is_refused():
    bench = Bench()
    embed(bench, "a", "")
    assert refusal(bench).error.param == "input"
    embed(bench, "a " * (LOAD.context_length + 1), name="long")
    assert refusal(bench, "long").error.code == "context_length_exceeded"
    assert bench.engine.embedder is not None
    bench.engine.embedder.refusal = RequestError("No states.", param="model")
    embed(bench, "a", name="later")
    bench.step()
    assert refusal(bench, "later").error.param == "model"
    bench.engine.embedder = None
    embed(bench, "a", name="ring")
    assert refusal(bench, "ring").error.param == "model"
    assert not bench.service.busy


def test_all_are_given_up_together():
    bench = Bench()
    embed(bench, "a", "b")
    bench.step()
    failed, _ = bench.service.fail_all(EngineError("It broke."))
    assert isinstance(failed, RequestFailed)
    assert failed.request_id == "e"
    assert not bench.service.busy
