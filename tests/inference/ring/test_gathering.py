"""How ranks get to know each other's addresses: two trips round the ring."""

import pytest

from exo.errors import RingError
from exo.inference.ring.frames import Frame, Kind
from exo.inference.ring.gathering import Address, Told, first, told


def own(rank: int) -> Address:
    return Address(f"10.0.0.{rank}", 5000 + rank)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_ranks_know_all_addresses_and_rank_0_the_first(size: int):
    knew: list[int] = []
    frame: Frame | None = first(own(0))
    at = 1
    while frame is not None:
        result = told(frame, at, size, own(at))
        if result.addresses is not None:
            assert list(result.addresses) == [own(rank) for rank in range(size)]
            knew.append(at)
        frame, at = result.send, (at + 1) % size
    assert knew == list(range(size))


@pytest.mark.parametrize(
    ("frame", "rank"),
    [
        (first(own(0)), 2),  # A rank between was left out.
        (first(own(0)), 0),
        (Frame(Kind.ADDRESSES, b"\xc1"), 1),
        (Frame(Kind.ADDRESSES, b"\x91\x91\xa1a"), 1),
        (Frame(Kind.ADDRESSES, b"\x91\x92\xa1a\xa1b"), 1),
        (Frame(Kind.ADDRESSES, b"\x05"), 1),
    ],
)
def test_what_makes_no_sense_breaks_the_ring(frame: Frame, rank: int):
    with pytest.raises(RingError):
        told(frame, rank, 3, own(rank))


def test_an_address_is_written_as_mlx_reads_it():
    assert str(own(1)) == "10.0.0.1:5001"
    assert isinstance(told(first(own(0)), 1, 2, own(1)), Told)
