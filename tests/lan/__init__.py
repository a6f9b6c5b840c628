"""Real hosts on a real network: Linux network namespaces, joined by a bridge in one of their own.

Each test says how many hosts it wants, and gets them with nothing running on them:

    def test_a_partition(make_lan):
        lan = make_lan(4)
        for host in lan.hosts:
            host.start()                        # the real daemon, when it is ready
        lan.partition([0, 1], [2, 3])           # nothing is said; the frames just end
        lan.hosts[0].wait(lambda state: ...)    # woken by the events of that node
        lan.heal()

It needs root, iproute2 and some parts of the kernel; where they are missing the tests are skipped
and say why. Nothing of it touches the machine's own network, and nothing is left behind.
"""
