"""How many strangers may be there, and how often they may fail."""

from exo.p2p import limiter
from exo.p2p.limiter import FREE_FAILURES, MAX_HOSTS, PAUSE, FailureLimiter
from exo.p2p.strangers import StrangerLimits, Strangers


def test_a_few_failures_are_free_and_then_one_each_pause():
    limiter = FailureLimiter()
    for _ in range(FREE_FAILURES):
        assert limiter.allows("a", 100.0)
        limiter.failed("a", 100.0)
    assert not limiter.allows("a", 100.0)
    assert not limiter.allows("a", 100.0 + PAUSE - 0.1)
    assert limiter.allows("b", 100.0)
    assert limiter.allows("a", 100.0 + PAUSE)
    limiter.failed("a", 100.0 + PAUSE)
    assert not limiter.allows("a", 100.0 + PAUSE)


def test_failures_are_forgiven_with_time():
    limiter = FailureLimiter()
    for _ in range(100):
        limiter.failed("a", 0.0)
    assert limiter.allows("a", 100 * PAUSE)


def test_only_so_many_hosts_are_remembered():
    found = FailureLimiter()
    for number in range(MAX_HOSTS + 100):
        found.failed(str(number), 0.0)
    assert len(found._forgiven) == limiter.MAX_HOSTS


def test_strangers_are_counted_in_all_and_by_host():
    strangers = Strangers(StrangerLimits(total=3, per_host=2))
    assert [strangers.enter(host) for host in "aaab"] == [None, None, "too_many_of_host", None]
    assert strangers.enter("c") == "too_many"
    strangers.leave("a")
    assert strangers.enter("c") is None


def test_hosts_without_strangers_are_forgotten():
    strangers = Strangers(StrangerLimits())
    for number in range(100):
        assert strangers.enter(str(number)) is None
        strangers.leave(str(number))
    assert len(strangers._hosts) == 0
