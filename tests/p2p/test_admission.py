"""Two sides of a handshake, joined by nothing but frames."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import ConfigError, PeerRefused, ProtocolError
from exo.p2p.admission import (
    NONCE_BYTES,
    Action,
    Admission,
    Admitted,
    Handshake,
    Hello,
    Judge,
    Refused,
    Send,
)
from exo.p2p.frames import FrameType, decode, encode, pack, unpack
from exo.p2p.identity import Identity
from exo.p2p.refusals import Reason
from tests.p2p.people import ANN, BOB, EVE

GOLDEN = Path(__file__).parents[1] / "transcripts" / "admission.txt"
BINDING = b"b" * 32


def hello(who: Identity, cluster: str = "exo", boot: str = "boot") -> Hello:
    return Hello(
        peer_id=who.peer_id,
        name="name",
        cluster=cluster,
        version="1.2.3",
        addresses=("/ip4/10.0.0.2/tcp/52416",),
        boot=boot,
    )


@dataclass
class Side:
    """One node in a handshake, and what came of it."""

    who: Identity
    admission: Admission
    outgoing: bool
    other: Identity
    boot: str = "boot"
    binding: bytes = BINDING
    nonce: bytes = b"n" * NONCE_BYTES
    verdict: Reason | None = None
    sent: list[bytes] = field(default_factory=list)
    result: Admitted | Refused | None = None

    def __post_init__(self) -> None:
        self.handshake = Handshake(
            self.admission,
            hello(self.who, self.admission.cluster, self.boot),
            peer_id=self.other.peer_id,
            binding=self.binding,
            outgoing=self.outgoing,
            nonce=self.nonce,
        )
        self.do(self.handshake.start())

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame=frame):
                    self.sent.append(frame)
                case Judge():
                    self.do(self.handshake.decide(self.verdict))
                case Admitted() | Refused():
                    self.result = action

    def hear(self, frame: bytes) -> None:
        if self.result is None:
            self.do(self.handshake.receive(frame))


def meet(dialer: Side, acceptor: Side) -> list[tuple[str, bytes]]:
    """Let two sides talk until neither has more to say: what was said, and by whom."""
    said: list[tuple[str, bytes]] = []
    told = {"dialer": 0, "acceptor": 0}
    sides = {"dialer": (dialer, acceptor), "acceptor": (acceptor, dialer)}
    quiet = False
    while not quiet:
        quiet = True
        for name, (speaker, listener) in sides.items():
            while told[name] < len(speaker.sent):
                frame = speaker.sent[told[name]]
                told[name] += 1
                said.append((name, frame))
                listener.hear(frame)
                quiet = False
    return said


def pair(
    dialer: Admission | None = None,
    acceptor: Admission | None = None,
    *,
    turned: bool = False,
    **options: str,
) -> tuple[Side, Side]:
    who, other = (BOB, ANN) if turned else (ANN, BOB)
    return (
        Side(who, dialer or Admission("exo"), True, other, nonce=b"d" * NONCE_BYTES, **options),
        Side(other, acceptor or Admission("exo"), False, who, nonce=b"a" * NONCE_BYTES),
    )


def types(frames: list[bytes]) -> list[FrameType]:
    return [FrameType(decode(frame).type) for frame in frames]


SECRET = b"s" * 32
LOCKED = Admission("exo", SECRET)


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("turned", [False, True])
def test_members_are_admitted_and_know_each_other(secret: bytes | None, turned: bool):
    dialer, acceptor = pair(Admission("exo", secret), Admission("exo", secret), turned=turned)
    meet(dialer, acceptor)
    assert dialer.result == Admitted(hello(acceptor.who), 1)
    assert acceptor.result == Admitted(hello(dialer.who), 1)


def test_the_wire_format_has_not_changed():
    """See the test of the same name for frames."""
    lines = ""
    for admission in (Admission("exo"), LOCKED):
        for name, frame in meet(*pair(admission, admission)):
            lines += f"{name:8}  {frame.hex()}\n"
        lines += "\n"
    assert lines == GOLDEN.read_text("utf-8")


@pytest.mark.parametrize("turned", [False, True])
def test_the_side_with_the_smaller_id_decides(turned: bool):
    dialer, acceptor = pair(turned=turned)
    meet(dialer, acceptor)
    ann, bob = (acceptor, dialer) if turned else (dialer, acceptor)
    assert FrameType.ACCEPT in types(ann.sent)
    assert FrameType.READY in types(bob.sent)


REFUSALS: dict[str, tuple[Admission, Admission, Reason, Reason, str]] = {
    "another cluster": (
        Admission("exo"), Admission("lab"), "other_cluster", "other_cluster", "--cluster-name"),
    "a newer protocol only": (
        Admission("exo"), Admission("exo", protocols=(2, 3)), "older_than_peer",
        "newer_than_peer", "Upgrade exo on this device"),
    "an older protocol only": (
        Admission("exo", protocols=(2,)), Admission("exo"), "newer_than_peer",
        "older_than_peer", "Upgrade exo on the other device"),
    "no secret": (
        Admission("exo"), LOCKED, "peer_locked", "peer_open", "exo start --join TOKEN"),
    "a secret where there is none": (
        LOCKED, Admission("exo"), "peer_open", "peer_locked", "exo cluster token"),
    "another secret": (
        Admission("exo", b"wrong"), LOCKED, "wrong_secret", "wrong_secret", "exo cluster token"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_stranger_is_refused_and_both_sides_know_why(name: str):
    one, other, reason, reason_there, hint = REFUSALS[name]
    dialer, acceptor = pair(one, other)
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Refused)
    assert isinstance(acceptor.result, Refused)
    assert (dialer.result.reason, acceptor.result.reason) == (reason, reason_there)
    assert isinstance(dialer.result.error, PeerRefused)
    assert hint in (dialer.result.error.hint or "")


@pytest.mark.parametrize("name", REFUSALS)
def test_a_stranger_learns_nothing_but_what_everybody_sees(name: str):
    one, other, *_ = REFUSALS[name]
    dialer, acceptor = pair(one, other)
    said = meet(dialer, acceptor)
    assert FrameType.HELLO not in types([frame for _, frame in said])
    assert FrameType.PROOF not in types(acceptor.sent), "who accepts proves last"
    for _, frame in said:
        assert b"10.0.0.2" not in frame
        assert b"1.2.3" not in frame


def test_the_highest_common_protocol_is_spoken():
    dialer, acceptor = pair(
        Admission("exo", protocols=(1, 2, 3)), Admission("exo", protocols=(2, 3, 4))
    )
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Admitted)
    assert isinstance(acceptor.result, Admitted)
    assert dialer.result.protocol == acceptor.result.protocol == 3


def proof_of(frames: list[bytes]) -> bytes:
    return next(frame for frame in frames if decode(frame).type == FrameType.PROOF)


def test_a_proof_is_worth_nothing_elsewhere():
    """Eve has recorded Ann's proof to Bob, and plays it to Bob, in sessions that differ in one
    thing each."""
    ann, bob = pair(LOCKED, LOCKED)
    meet(ann, bob)
    proof = proof_of(ann.sent)
    changes = {
        "binding": {"binding": b"x" * 32},
        "nonce": {"nonce": b"x" * NONCE_BYTES},
        "peer": {"other": EVE},
        "itself": {"who": EVE},
    }
    for what, change in changes.items():
        fields = {"who": BOB, "other": ANN, "nonce": b"a" * NONCE_BYTES, **change}
        there = Side(admission=LOCKED, outgoing=False, **fields)
        there.hear(ann.sent[0])
        there.hear(proof)
        assert isinstance(there.result, Refused), what
        assert there.result.reason == "wrong_secret"


def test_a_proof_cannot_be_reflected():
    """Eve knows no secret and gives the other side's own proof back."""
    ann = Side(ANN, LOCKED, True, EVE)
    ann.hear(encode(FrameType.GREETING, 0, pack(["exo", [1], True, b"n" * NONCE_BYTES])))
    ann.hear(proof_of(ann.sent))
    assert isinstance(ann.result, Refused)
    assert ann.result.reason == "wrong_secret"


def test_an_empty_proof_is_none_in_a_locked_cluster():
    bob = Side(BOB, LOCKED, False, EVE)
    bob.hear(encode(FrameType.GREETING, 0, pack(["exo", [1], True, b"n" * NONCE_BYTES])))
    bob.hear(encode(FrameType.PROOF))
    assert isinstance(bob.result, Refused)


def test_a_cluster_locked_meanwhile_is_locked():
    admission = Admission("exo")
    bob = Side(BOB, admission, False, EVE)
    bob.hear(encode(FrameType.GREETING, 0, pack(["exo", [1], False, b"n" * NONCE_BYTES])))
    admission.secret = SECRET
    bob.hear(encode(FrameType.PROOF))
    assert isinstance(bob.result, Refused)


def test_a_rotated_secret_counts_from_the_next_handshake():
    admission = Admission("exo", b"old")
    meet(*pair(admission, Admission("exo", b"old")))
    admission.secret = SECRET
    dialer, acceptor = pair(admission, LOCKED)
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Admitted)


def test_an_empty_secret_is_none():
    with pytest.raises(ConfigError, match="empty"):
        Admission("exo", b"")


def test_a_node_that_dials_itself_is_told_so():
    dialer = Side(ANN, Admission("exo"), True, ANN)
    acceptor = Side(ANN, Admission("exo"), False, ANN)
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Refused)
    assert dialer.result.reason == "self"


def test_a_copied_data_folder_is_told_so():
    dialer = Side(ANN, Admission("exo"), True, ANN, boot="one")
    acceptor = Side(ANN, Admission("exo"), False, ANN, boot="other")
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Refused)
    assert dialer.result.reason == "copied_identity"
    assert "identity.key" in (dialer.result.error.hint or "")


@pytest.mark.parametrize(
    ("verdict", "there"),
    [("linked", "linked"), ("duplicate_id", "duplicate_id_of_mine")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_either_side_can_refuse_a_second_link(verdict: Reason, there: Reason, turned: bool):
    dialer, acceptor = pair(turned=turned)
    acceptor.verdict = verdict
    meet(dialer, acceptor)
    assert isinstance(dialer.result, Refused)
    assert isinstance(acceptor.result, Refused)
    assert (acceptor.result.reason, acceptor.result.by_them) == (verdict, False)
    assert (dialer.result.reason, dialer.result.by_them) == (there, True)


def test_a_reason_of_a_newer_version_is_a_refusal():
    ann = Side(ANN, Admission("exo"), True, BOB)
    ann.hear(encode(FrameType.REFUSE, 0, pack("full moon")))
    assert isinstance(ann.result, Refused)
    assert ann.result.reason == "refused"


GREETING = encode(FrameType.GREETING, 0, pack(["exo", [1], False, b"n" * NONCE_BYTES]))
PROOF = encode(FrameType.PROOF)


def hello_frame(**changes: object) -> bytes:
    fields = {**hello(BOB).model_dump(mode="json"), **changes}
    return encode(FrameType.HELLO, 0, pack(fields))


WRONG = {
    "no frame": [b"x"],
    "a request first": [encode(FrameType.REQUEST, 1, pack(["m", 1, True, b"\xc0"]))],
    "a greeting twice": [GREETING, GREETING],
    "no nonce": [encode(FrameType.GREETING, 0, pack(["exo", [1], False, b""]))],
    "many protocols": [
        encode(FrameType.GREETING, 0, pack(["exo", list(range(99)), False, b"n" * NONCE_BYTES]))
    ],
    "a hello before the proof": [GREETING, hello_frame()],
    "another's hello": [GREETING, PROOF, hello_frame(peer_id=EVE.peer_id)],
    "another cluster's hello": [GREETING, PROOF, hello_frame(cluster="lab")],
    "a hello without a name": [GREETING, PROOF, hello_frame(name=None)],
    "a hello too long": [GREETING, PROOF, hello_frame(name="x" * 300)],
    "a hello of too many addresses": [GREETING, PROOF, hello_frame(addresses=["x"] * 100)],
    "a hello that is a word": [GREETING, PROOF, encode(FrameType.HELLO, 0, pack("hello"))],
    "accepted before asked": [GREETING, PROOF, encode(FrameType.ACCEPT)],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("outgoing", [False, True])
def test_who_does_not_introduce_itself_properly_is_cut(name: str, outgoing: bool):
    ann = Side(ANN, Admission("exo"), outgoing, BOB)
    *before, last = WRONG[name]
    for frame in before:
        ann.hear(frame)
    with pytest.raises(ProtocolError):
        ann.hear(last)
    assert ann.result is None


def test_what_a_newer_version_adds_to_its_hello_is_ignored():
    ann = Side(ANN, Admission("exo"), True, BOB)
    for frame in (GREETING, PROOF, hello_frame(mood="fine"), encode(FrameType.READY)):
        ann.hear(frame)
    assert isinstance(ann.result, Admitted)


@given(
    st.lists(
        st.one_of(
            st.sampled_from([GREETING, PROOF, hello_frame(), encode(FrameType.READY)]),
            st.binary(max_size=60),
            st.builds(
                lambda kind, body: bytes([kind]) + bytes(8) + pack(body),
                st.integers(0, 8),
                st.lists(st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), max_size=5),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_comes_there_is_no_other_error(frames: list[bytes]):
    ann = Side(ANN, LOCKED, False, BOB)
    with suppress(ProtocolError):
        for frame in frames:
            ann.hear(frame)
    assert not isinstance(ann.result, Admitted)


def test_hellos_are_packed_as_maps():
    dialer, acceptor = pair()
    meet(dialer, acceptor)
    sent = next(frame for frame in dialer.sent if decode(frame).type == FrameType.HELLO)
    assert unpack(decode(sent).payload)["version"] == "1.2.3"
