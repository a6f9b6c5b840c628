"""The time constants of membership and election, for a LAN. All are in seconds, or say so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CoreOptions:
    # Membership.

    period: float = 0.35
    """Between two heartbeats. Less notices a death sooner and sends more."""

    timeout_min: float = 0.8
    """A peer is suspected no sooner than after this silence. Less takes a short stall of a busy
    machine for a death; more leaves a dead master in office for longer."""

    timeout_max: float = 3.0
    """And no later than after this, however irregular its heartbeats were: the bound of how long a
    cut cable goes unnoticed."""

    suspicion: float = 1.2
    """From suspicion to death: the time for the peer to be heard again, or for others to say that
    they hear it, which takes two periods, and a third if a message is lost."""

    fresh: float = 1.0
    """Who heard a peer itself no longer ago than this does not believe that it is dead."""

    late: float = 0.5
    """If this node wakes so much later than it asked for, it was itself suspended and has no right
    to suspect others for a silence. Less forgives others too often on a busy machine, and takes
    longer to notice real deaths there; more accuses the whole cluster after a nap."""

    mesh: int = 24
    """Nodes (a number) up to which everyone exchanges heartbeats with everyone. Beyond, each node
    does so with its neighbours, the master and the standbys: fewer messages, and what changes
    needs a few periods more to reach everyone."""

    neighbours: int = 8
    """How many neighbours those are. As many may die at once unnoticed for a while."""

    standbys: int = 2
    """How many nodes, those that would be elected next, are linked with everyone besides the
    master. With none, the new master could only be heard of by hearsay."""

    # Dialling.

    pause_min: float = 0.2
    """Before a peer is dialled for the second time; the pauses double from there."""

    pause_recent: float = 1.0
    """The longest pause for a peer that was a member within `recent`: a healed network or a daemon
    that was started again is back in about this time."""

    pause_static: float = 5.0
    """The longest pause for an address that the user gave and where nobody was reached yet."""

    pause_max: float = 30.0
    """The longest pause for all others."""

    recent: float = 600.0

    remember: float = 3600.0
    """How long the dead are remembered, dialled, and known to be dead to whoever comes back with
    an old list; and how long a peer that was found but never reached is dialled."""

    flight: float = 15.0
    """A dial that was not answered for so long is not waited for any more."""

    dials: int = 32
    """How many dials (a number) may be under way at once."""

    # Election.

    grace: float = 0.6
    """A node that starts lets discovery find a master for so long before it elects one."""

    slot: float = 0.15
    """How long the second candidate waits for the first to act; the nth waits 1 + log2(n - 1) of
    these. Less sends more messages when all notice at once; more delays the election when the
    first candidates died with the master."""

    answer: float = 0.2
    """How long a candidate that was asked has for its answer. It is asked twice."""

    asked: int = 3
    """How many candidates (a number) are asked at once, first the first."""

    promise: float = 0.8
    """How long a candidate that answered has to become master, or name one."""

    patience: float = 1.0
    """A reign that others speak of, but whose master is not known here to live, is waited for."""

    patience_max: float = 3.0
    """All waiting for evidence of a master ends this long after the last one was lost."""

    retry: float = 0.25
    """A new master tells those again who did not acknowledge it."""

    retries: int = 4
    """How many times (a number); heartbeats say it too."""
