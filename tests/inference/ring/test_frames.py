from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import RingError
from exo.inference.ring.frames import HEADER, MAX_BODY, MAX_TENSORS, Frame, Kind, read_header
from exo.inference.steps import (
    Chosen,
    Decode,
    Open,
    Result,
    Step,
    pack,
    unpack_result,
    unpack_step,
)
from exo.inference.types import Sampling


def test_the_bytes_of_a_frame_are_these():
    frame = Frame(Kind.STEP, b"body", [memoryview(b"\x01\x02")])
    assert b"".join(frame.parts()) == bytes.fromhex(
        "65786f52 01 04 0000 00000004 0000000000000002 626f6479 0102"
    )


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size))
def test_any_header_is_read_within_bounds_or_refused(header: bytes):
    try:
        _, body, tensors = read_header(header)
    except RingError:
        return
    assert body <= MAX_BODY
    assert tensors <= MAX_TENSORS


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (HEADER.pack(b"HTTP", 1, 4, 0, 0, 0), "no frame"),
        (HEADER.pack(b"exoR", 2, 4, 0, 0, 0), "speaks version 2"),
        (HEADER.pack(b"exoR", 1, 9, 0, 0, 0), "unknown kind 9"),
        (HEADER.pack(b"exoR", 1, 4, 0, MAX_BODY + 1, 0), "was announced"),
        (HEADER.pack(b"exoR", 1, 4, 0, 0, MAX_TENSORS + 1), "was announced"),
    ],
)
def test_what_is_no_frame_is_said(header: bytes, match: str):
    with pytest.raises(RingError, match=match):
        read_header(header)


STEP = Step(
    number=7,
    ops=(Open(sequence=1, sampling=Sampling(logit_bias={5: 1.0}), prompt_tokens=3),),
    work=Decode(group=0, positions=(2, 3), tokens=(4, -1)),
)
RESULT = Result(number=1, tokens=(3,), logprobs=(None,), seconds=(0.5, 0.25))


def test_steps_and_results_cross_whole():
    assert unpack_step(pack(STEP)) == STEP
    chosen = Chosen(logprob=-0.5, top=((3, -0.5), (9, -1.5)))
    for logprobs in ((None, None), (chosen, None)):
        result = Result(
            1, tokens=(3, 4), logprobs=logprobs, seconds=(0.5, 0.25), failed=((4, "no"),)
        )
        found = unpack_result(pack(result))
        assert found == result
        assert [type(each) for each in found.logprobs] == [type(each) for each in logprobs]


@pytest.mark.parametrize(("message", "unpack"), [(STEP, unpack_step), (RESULT, unpack_result)])
@given(st.data())
def test_any_bytes_are_a_message_or_refused(
    message: Step | Result, unpack: Callable[[bytes], Step | Result], data: st.DataObject
):
    whole = pack(message)
    cut = st.integers(0, len(whole)).map(lambda n: whole[:n])
    try:
        found = unpack(data.draw(st.binary(max_size=64) | cut))
    except RingError:
        return
    assert isinstance(found, type(message))
