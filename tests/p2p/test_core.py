from exo.p2p.core import (
    Core,
    CoreOptions,
    Leave,
    LinkUp,
    MasterChanged,
    SaveTerm,
    Send,
    Tick,
    WakeAt,
)
from exo.p2p.messages import Goodbye
from tests.p2p.facts import Driver, claim, peer, term, those


def test_the_first_event_asks_to_be_woken():
    actions = Core(peer("A"), None).handle(Tick(), 100.0)
    (wake,) = those(actions, WakeAt)
    assert 100 < wake.time < 101


def test_every_tick_asks_for_the_next_and_other_events_only_if_it_has_changed():
    core = Core(peer("A"), None)
    (wake,) = those(core.handle(Tick(), 0.0), WakeAt)
    assert those(core.handle(Tick(), wake.time / 2), WakeAt) == [wake]
    core.handle(LinkUp(peer("B")), wake.time / 2)
    assert those(core.handle(LinkUp(peer("B")), wake.time / 2), WakeAt) == []


def test_it_never_asks_to_be_woken_in_the_past():
    driver = Driver(Core(peer("A"), None))
    driver.meet("B")
    for _ in range(200):
        for wake in those(driver.wait(0.05), WakeAt):
            assert wake.time > driver.now


def test_the_same_seed_and_events_give_the_same_actions():
    def run(seed: int) -> list:
        driver = Driver(Core(peer("A"), term(3, "B"), CoreOptions(), seed))
        return driver.meet("B", says=claim(3, "B")) + driver.wait(5) + driver.wait(5)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_what_it_knows_can_be_read():
    driver = Driver(Core(peer("A"), term(3, "B")))
    assert driver.core.me == peer("A")
    assert (driver.core.term, driver.core.master_id) == (term(3, "B"), None)
    driver.wait(1)
    assert (driver.core.term, driver.core.master_id) == (term(4, "A"), "A")
    assert driver.core.is_master


def test_after_leaving_it_is_silent():
    driver = Driver(Core(peer("A"), None))
    driver.meet("B", says=claim(1, "B"))
    driver.handle(Leave())
    assert driver.handle(Tick(), driver.now + 1) == []
    assert driver.beat("B") == []


def test_a_master_that_leaves_saves_the_next_term_before_it_tells():
    driver = Driver(Core(peer("B"), None))
    driver.meet("A")
    driver.wait(0.7)
    driver.beat("A")
    actions = driver.handle(Leave())
    heir = term(2, "A")
    assert actions == [SaveTerm(heir), MasterChanged(heir), Send("A", Goodbye(0, heir))]
