"""What nodes ask of one another, as it is written on a link."""

from typing import Any

import msgpack
import pytest

from exo.cluster.remote import (
    Generation,
    pack_generation,
    pack_output,
    unpack_generation,
    unpack_output,
)
from exo.errors import ProtocolError
from exo.inference.messages import Embedded
from exo.inference.types import EmbedRequest


def sent(body: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(body))


def test_a_request_for_vectors_and_what_comes_of_it():
    request = EmbedRequest(request_id="r", inputs=["a", [1, 2]], dimensions=8)
    asked = Generation(instance_id="i", request=request)
    assert unpack_generation(sent(pack_generation(asked))) == asked
    vector = Embedded(request_id="r", index=1, vector=b"\x00\xff\x80\x3f")
    assert unpack_output(sent(pack_output(vector))) == vector


def test_what_cannot_be_read():
    with pytest.raises(ProtocolError):
        unpack_generation({"instance_id": "i", "request": {"request_id": "r", "inputs": []}})
    with pytest.raises(ProtocolError):
        unpack_output({"type": "heartbeat", "steps": 1, "busy": True})
