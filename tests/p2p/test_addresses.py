from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import ConfigError
from exo.p2p.addresses import Address, of_ip, origin, parse
from tests.p2p.people import ANN

PEER = ANN.peer_id


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/10.0.0.2/tcp/52416", Address("ip4", "10.0.0.2", 52416)),
        (f"/ip4/10.0.0.2/tcp/1/p2p/{PEER}", Address("ip4", "10.0.0.2", 1, PEER)),
        ("/ip6/fd00::2/tcp/0", Address("ip6", "fd00::2", 0)),
        ("/ip6zone/en0/ip6/fe80::2/tcp/7", Address("ip6", "fe80::2", 7, zone="en0")),
        ("/dns/studio.local/tcp/7", Address("dns", "studio.local", 7)),
        ("/dns6/a/tcp/65535", Address("dns6", "a", 65535)),
        ("/memory/3", Address("memory", "3")),
        (f"/memory/3/p2p/{PEER}", Address("memory", "3", peer_id=PEER)),
    ],
)
def test_multiaddrs_are_read_and_written(text: str, address: Address):
    assert parse(text) == address
    assert str(address) == text


def test_an_ip_is_written_in_one_way():
    assert str(parse("/ip6/FD00:0::0002/tcp/7")) == "/ip6/fd00::2/tcp/7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "10.0.0.2:52416",
        "ip4/10.0.0.2/tcp/1",
        "/ip4/10.0.0.2",
        "/ip4/10.0.0.256/tcp/1",
        "/ip4/fd00::2/tcp/1",
        "/ip6/fe80::2%en0/tcp/1",
        "/ip4/10.0.0.2/tcp/65536",
        "/ip4/10.0.0.2/tcp/-1",
        "/ip4/10.0.0.2/tcp/²",
        "/ip4/10.0.0.2/udp/1",
        "/ip4/10.0.0.2/tcp/1/p2p/nobody",
        "/ip4/10.0.0.2/tcp/1/p2p/",
        "/ip4/10.0.0.2/tcp/1/",
        "/dns//tcp/1",
        "/dns/-a/tcp/1",
        "/memory/x",
        "/dns/" + "a" * 600 + "/tcp/1",
    ],
)
def test_what_is_no_address_says_what_one_looks_like(text: str):
    with pytest.raises(ConfigError, match="no address") as caught:
        parse(text)
    assert "/ip4/10.0.0.2/tcp/52416" in str(caught.value)


@given(st.text(max_size=60))
def test_nothing_but_a_clear_error_comes_of_any_text(text: str):
    with suppress(ConfigError):
        assert parse(str(parse("/" + text))) == parse("/" + text)


def test_addresses_of_sockets():
    assert str(of_ip("10.0.0.2", 7)) == "/ip4/10.0.0.2/tcp/7"
    assert str(of_ip("::ffff:10.0.0.2", 7)) == "/ip4/10.0.0.2/tcp/7"
    assert str(of_ip("fe80::2%en0", 7)) == "/ip6zone/en0/ip6/fe80::2/tcp/7"
    assert str(of_ip("::", 7)) == "/ip6/::/tcp/7"
    with pytest.raises(ConfigError):
        of_ip("localhost", 7)


def test_a_host_is_counted_as_one_whatever_its_port_and_its_ipv6_addresses():
    assert origin("/ip4/10.0.0.2/tcp/1") == origin("/ip4/10.0.0.2/tcp/2") == "10.0.0.2"
    assert origin("/ip6/fd00::1:2/tcp/1") == origin("/ip6/fd00::ffff/tcp/2")
    assert origin("/ip6/fd00::1/tcp/1") != origin("/ip6/fd00:0:0:1::1/tcp/1")
    assert origin("nonsense") == "nonsense"
