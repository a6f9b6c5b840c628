"""A network without IPv4, where hosts have nothing but their link-local addresses."""

import pytest

from .cluster import Cluster
from .conftest import MakeLan

pytestmark = pytest.mark.e2e


def test_ipv6_alone_is_enough(make_lan: MakeLan) -> None:
    cluster = Cluster(make_lan(2))
    for host in cluster.lan.hosts:
        host.namespace.ip("addr flush dev eth0 scope global")
    cluster.start()
    cluster.agree()
    for host in cluster.hosts:
        (link,) = host.daemon.get("/network")["links"]
        assert "/ip6/fe80::" in link["address"]
    cluster.check_logs()
