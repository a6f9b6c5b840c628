"""What a port of the switch lets through to its host, as a classic BPF program (`tc`, cls_bpf).

Hosts are told apart by the last byte of their MAC addresses, which the lab gives them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

# Opcodes (linux/filter.h), and verdicts of tc (linux/pkt_cls.h).
_LOAD_BYTE, _LOAD_HALF, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x30, 0x28, 0x05, 0x15, 0x35, 0x06
_PASS, _DROP = 0, 2
# Bytes from the start of a frame.
_LAST_OF_SOURCE_MAC, _TYPE = 11, 12
_IP4_PROTOCOL, _IP4_DESTINATION = 23, 30
_IP6_PROTOCOL, _IP6_DESTINATION = 20, 38
_IP4, _IP6, _UDP = 0x0800, 0x86DD, 17

# Opcode, where to if true, where to if false ("" is the next one), operand; or a label.
_Step = tuple[int, str, str, int] | str


@dataclass
class Faults:
    """Of the whole network, by the numbers of hosts. `blocked` has (from, to); `no_multicast` are
    those that neither send nor hear multicast (but for what IPv6 needs to find neighbours)."""

    blocked: set[tuple[int, int]] = field(default_factory=set)
    no_multicast: set[int] = field(default_factory=set)

    def partition(self, groups: Collection[Collection[int]], everyone: Collection[int]) -> None:
        """Hosts hear those of their own group only; who is in no group is alone."""
        group = {host: number for number, hosts in enumerate(groups) for host in hosts}
        self.blocked |= {
            (source, target)
            for source in everyone
            for target in everyone
            if source != target and group.get(source, -1) != group.get(target, -2)
        }

    def program(self, target: int, everyone: Collection[int]) -> str:
        """What the port of that host is to run, as `tc` reads it."""
        blocked = {source for source, to in self.blocked if to == target}
        silent = set(everyone) if target in self.no_multicast else self.no_multicast
        return bytecode(blocked, silent)


def bytecode(blocked: Collection[int], no_multicast: Collection[int]) -> str:
    """Drop all frames of `blocked` hosts and the UDP multicast of `no_multicast` ones."""
    return _assemble(
        [
            (_LOAD_BYTE, "", "", _LAST_OF_SOURCE_MAC),
            *((_IF_EQUAL, "drop", "", mac_byte(host)) for host in sorted(blocked)),
            *((_IF_EQUAL, "multicast", "", mac_byte(host)) for host in sorted(no_multicast)),
            (_JUMP, "pass", "", 0),
            "multicast",
            (_LOAD_HALF, "", "", _TYPE),
            (_IF_EQUAL, "ip4", "", _IP4),
            (_IF_EQUAL, "ip6", "pass", _IP6),
            "ip4",
            (_LOAD_BYTE, "", "", _IP4_PROTOCOL),
            (_IF_EQUAL, "", "pass", _UDP),
            (_LOAD_BYTE, "", "", _IP4_DESTINATION),
            (_IF_AT_LEAST, "drop", "pass", 224),
            "ip6",
            (_LOAD_BYTE, "", "", _IP6_PROTOCOL),
            (_IF_EQUAL, "", "pass", _UDP),
            (_LOAD_BYTE, "", "", _IP6_DESTINATION),
            (_IF_EQUAL, "drop", "pass", 255),
            "pass",
            (_RETURN, "", "", _PASS),
            "drop",
            (_RETURN, "", "", _DROP),
        ]
    )


def mac_byte(host: int) -> int:
    """The last byte of a host's MAC addresses."""
    return host + 1


def _assemble(steps: list[_Step]) -> str:
    labels: dict[str, int] = {}
    at = 0
    for step in steps:
        if isinstance(step, str):
            labels[step] = at
        else:
            at += 1
    words = list(_words((step for step in steps if not isinstance(step, str)), labels))
    return ",".join([str(len(words)), *words])


def _words(steps: Iterator[tuple[int, str, str, int]], labels: dict[str, int]) -> Iterator[str]:
    for at, (code, yes, no, value) in enumerate(steps):
        true, false = (labels[to] - at - 1 if to else 0 for to in (yes, no))
        yield f"{code} 0 0 {true}" if code == _JUMP else f"{code} {true} {false} {value}"
