import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exo.errors import EngineError, QueueFull
from exo.inference import messages
from exo.inference.messages import HEADER, Finished, Generate, Hello, Tokens, WireError
from exo.inference.types import Delta, FinishReason, GenerateRequest, Sampling, Stats, TokenLogprob

REQUEST = GenerateRequest(
    request_id="r1",
    messages=[{"role": "user", "content": "hi ☃"}],
    sampling=Sampling(temperature=0.5, seed=2**63, logit_bias={3: -1.5}),
    stop=["\n"],
    logprobs=2,
)
DELTA = Delta(
    request_id="r1",
    text="☃",
    token_ids=[7],
    logprobs=[TokenLogprob(token="�", raw=b"\xe2\x98", logprob=-0.1)],
    finish_reason=FinishReason.STOP,
)
STATS = Stats(
    prompt_tokens=1,
    generation_tokens=2,
    queue_time=0,
    ttft=0.1,
    total_time=0.2,
    prompt_tps=1,
    generation_tps=2,
    peak_memory_usage=3,
)


def body_of(frame: bytes) -> bytes:
    length = messages.frame_length(frame[: HEADER.size])
    assert length == len(frame) - HEADER.size
    return frame[HEADER.size :]


def test_messages_come_out_as_they_went_in():
    generate = Generate(request=REQUEST)
    assert messages.decode(messages.to_runner, body_of(messages.encode(generate))) == generate
    for message in (Hello(pid=1, engine="mlx"), Tokens(deltas=[DELTA]),
                    Finished(request_id="r1", stats=STATS)):  # fmt: skip
        assert messages.decode(messages.from_runner, body_of(messages.encode(message))) == message


def test_an_error_is_the_same_class_on_the_other_side():
    error = WireError.of(QueueFull("Full.", hint="Wait.", retry_after=2)).to_error()
    assert isinstance(error, QueueFull)
    assert (error.message, error.hint, error.retry_after) == ("Full.", "Wait.", 2)


@given(st.binary(max_size=200))
@example(b"\x81\x90\x90")  # An array is the key of a map.
def test_a_damaged_body_is_a_clear_error(body: bytes):
    try:
        messages.decode(messages.from_runner, body)
    except EngineError:
        return
    raise AssertionError("random bytes were taken for a message")


def test_an_announced_frame_that_is_too_long_is_refused():
    with pytest.raises(EngineError, match="announced"):
        messages.frame_length(HEADER.pack(messages.MAX_FRAME + 1))
