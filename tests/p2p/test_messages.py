from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import ProtocolError
from exo.p2p.core import PeerInfo, Status
from exo.p2p.messages import (
    MAX_FACTS,
    Accused,
    Acknowledged,
    Alive,
    Claim,
    Coordinator,
    Election,
    Goodbye,
    Gossip,
    Heartbeat,
    Message,
    Pulse,
    Vouch,
    decode,
    encode,
)
from exo.p2p.peers import MAX_ADDRESSES, Fact
from exo.p2p.term import Term
from exo.p2p.transport import MAX_FRAME
from tests.p2p.facts import fact, heartbeat, peer

TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 2**50)
TERMS = st.builds(Term, number=COUNTS, master_id=TEXTS)
CLAIMS = st.builds(Claim, st.none() | TERMS, st.booleans(), COUNTS)
METADATA = st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(0, 2**60) | TEXTS)
ADDRESSES = st.lists(st.from_regex("/[!-~]{1,20}", fullmatch=True), max_size=3).map(tuple)
PEERS = st.builds(PeerInfo, TEXTS, TEXTS, TEXTS, TEXTS, ADDRESSES, st.booleans())
STATUSES = st.sampled_from([Status.ALIVE, Status.DEAD, Status.LEFT])
FACTS = st.builds(Fact, PEERS, STATUSES, COUNTS)
LISTS = st.lists(FACTS, max_size=3).map(tuple)
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
PULSES = st.builds(Pulse, COUNTS, COUNTS, CLAIMS, st.integers(0, 2**64 - 1), METADATA, NAMES)
GOSSIP = st.builds(Gossip, LISTS, COUNTS, COUNTS, COUNTS, COUNTS)
VOUCHES = st.lists(st.builds(Vouch, TEXTS, COUNTS, COUNTS, METADATA), max_size=2).map(tuple)
MESSAGES = st.one_of(
    st.builds(Heartbeat, PULSES, st.none() | GOSSIP, VOUCHES, st.booleans()),
    st.builds(Accused, COUNTS),
    st.builds(Goodbye, COUNTS, st.none() | TERMS),
    st.builds(Election, CLAIMS, st.none() | FACTS),
    st.builds(Alive, CLAIMS),
    st.builds(Coordinator, TERMS),
    st.builds(Acknowledged, TERMS),
)


def over_the_wire(message: Message) -> Message:
    return decode(msgpack.unpackb(msgpack.packb(encode(message))))


@given(MESSAGES)
def test_what_is_sent_arrives(message: Message):
    assert over_the_wire(message) == message


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda more: st.lists(more) | st.dictionaries(TEXTS, more),
)


@given(JSON | st.tuples(st.sampled_from(["heartbeat", "coordinator", "election"]), JSON).map(list))
def test_nonsense_is_a_protocol_error(body: object):
    with pytest.raises(ProtocolError):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        ["accused", {"incarnation": -1}],
        ["accused", {"incarnation": 2**60}],
        ["coordinator", {"term": {"number": 2**53, "master_id": "A"}}],
        ["unheard-of", {}],
        encode(heartbeat(1, metadata={"x": "y" * 3000})),
        encode(heartbeat(1, Fact(replace(peer("B"), addresses=("a b",)), Status.ALIVE, 0))),
        encode(heartbeat(1, missing=("x",) * 100)),
    ],
)
def test_numbers_and_names_out_of_bounds_are_refused(body: list[object]):
    with pytest.raises(ProtocolError):
        decode(body)


def test_nobody_is_told_of_suspicions():
    body = encode(heartbeat(1, fact("B")))
    body[1]["gossip"]["facts"][0]["status"] = "suspect"
    with pytest.raises(ProtocolError):
        decode(body)


def test_fields_of_a_later_version_are_skipped():
    body = encode(Accused(3))
    body[1]["from_the_future"] = {"x": 1}
    assert decode(body) == Accused(3)


def test_as_many_facts_as_are_allowed_fit_into_a_frame():
    long = "\U0001f600" * 256
    addresses = ("/" + "y" * 511,) * MAX_ADDRESSES
    facts = tuple(
        Fact(PeerInfo(long, long, long, long, addresses, eligible=True), Status.ALIVE, 2**53)
        for _ in range(MAX_FACTS + 1)
    )
    packed = msgpack.packb(["core", encode(heartbeat(1, *facts))])
    assert len(packed) < MAX_FRAME


def test_a_heartbeat_of_a_quiet_cluster_is_small():
    assert len(msgpack.packb(encode(heartbeat(1)))) < 200
    assert peer("B").eligible
