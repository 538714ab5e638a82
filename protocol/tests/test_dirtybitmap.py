"""`dirty-bitmap`: chunks by their flags, names kept, forms that nobody can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._feed import Feed, Steps
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from qmig.legacy.dirtybitmap import (
    DirtyBitmapBits,
    DirtyBitmapChunk,
    DirtyBitmapComplete,
    DirtyBitmapFlag,
    DirtyBitmapReader,
    DirtyBitmapStart,
)
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState
from qmig.testing.parsers import explore, parse

F = DirtyBitmapFlag
BOTH = int(F.DEVICE_NAME | F.BITMAP_NAME)


def section(feed: Feed) -> Steps[None]:
    return DirtyBitmapReader(feed, StreamState()).section(SectionType.SECTION_END)


def sections(feed: Feed) -> Steps[None]:
    """Three sections of one handler."""
    reader = DirtyBitmapReader(feed, StreamState())
    for kind in (SectionType.SECTION_START, SectionType.SECTION_PART, SectionType.SECTION_END):
        yield from reader.section(kind)


START = DirtyBitmapStart(
    flags=F.START | BOTH, node_alias="d0", bitmap_alias="b0", granularity=65536, start_flags=3
)
BITS = DirtyBitmapBits(flags=int(F.BITS), start_sector=0, nr_sectors=8192, bits=bytes(31) + b"\1")
ZEROES = DirtyBitmapBits(flags=F.BITS | F.ZEROES, start_sector=8192, nr_sectors=16)
OTHER = DirtyBitmapComplete(flags=F.COMPLETE | F.BITMAP_NAME, bitmap_alias="b1")
EOS = DirtyBitmapChunk(flags=int(F.EOS))


def test_sections_of_all_chunks() -> None:
    chunks = [START, EOS, BITS, ZEROES, EOS, OTHER, EOS]
    found = explore(sections, b"".join(chunk.encode() for chunk in chunks))
    assert [type(event) for event in found] == [type(chunk) for chunk in chunks]
    names = [(event.node, event.bitmap) for event in found if isinstance(event, DirtyBitmapChunk)]
    assert names == [("d0", "b0")] * 5 + [("d0", "b1")] * 2


def test_bytes_of_a_start() -> None:
    assert START.encode() == bytes.fromhex("1c 02 6430 02 6230 00010000 03")
    assert BITS.encode()[:21] == bytes.fromhex("40 0000000000000000 00002000 0000000000000020")


def test_eos_may_stand_on_any_chunk() -> None:
    last = DirtyBitmapBits(flags=F.BITS | F.EOS, start_sector=1, nr_sectors=1, bits=b"\xff" * 32)
    (found,) = explore(section, last.encode())
    assert found == last


def test_the_loader_s_order_decides_what_a_chunk_is() -> None:
    """START before COMPLETE before BITS; ZEROES means something for BITS only."""
    start = bytes([F.START | F.COMPLETE | F.BITS | F.EOS | F.ZEROES]) + bytes(5)
    complete = bytes([F.COMPLETE | F.BITS | F.EOS])
    assert isinstance(explore(section, start)[0], DirtyBitmapStart)
    assert isinstance(explore(section, complete)[0], DirtyBitmapComplete)


def test_a_chunk_before_any_name_is_delivered() -> None:
    event = explore(section, DirtyBitmapComplete(flags=F.COMPLETE | F.EOS).encode())[0]
    assert isinstance(event, DirtyBitmapComplete)
    assert (event.node, event.bitmap) == (None, None)


@pytest.mark.parametrize("first", [0x80, 0xFF])
def test_flags_of_more_bytes_are_refused_with_the_reason(first: int) -> None:
    error = parse(section, START.encode() + bytes([first, 0x01])).error
    assert isinstance(error, RemoteProtocolError)
    assert "2 or 4 bytes" in error.message
    assert (error.requirement, error.offset) == ("LEG-DBM-003", len(START.encode()))


@pytest.mark.parametrize("flags", [0x08, 0x80])
def test_reserved_start_flags(flags: int) -> None:
    error = parse(section, START.encode()[:-1] + bytes([flags])).error
    assert isinstance(error, RemoteProtocolError)
    assert error.requirement == "LEG-DBM-011"


@pytest.mark.parametrize("size", [limits.BITMAP_BITS + 1, 1 << 40, (1 << 64) - 1])
def test_a_huge_length_costs_nothing(size: int) -> None:
    outcome = parse(section, BITS.encode()[:13] + size.to_bytes(8, "big"))
    assert isinstance(outcome.error, LimitExceeded)
    assert outcome.error.requirement == "LEG-DBM-013"


def test_values_that_contradict_the_flags_cannot_be_built() -> None:
    with pytest.raises(LocalProtocolError, match="aliases"):
        DirtyBitmapChunk(flags=int(F.EOS), node_alias="d0")
    with pytest.raises(LocalProtocolError, match="aliases"):
        DirtyBitmapComplete(flags=F.COMPLETE | F.BITMAP_NAME)
    with pytest.raises(LocalProtocolError, match="presence of bits"):
        DirtyBitmapBits(flags=F.BITS | F.ZEROES, start_sector=0, nr_sectors=1, bits=b"")
    with pytest.raises(LocalProtocolError, match="presence of bits"):
        DirtyBitmapBits(flags=int(F.BITS), start_sector=0, nr_sectors=1)


NAMES = st.none() | st.text(max_size=20).filter(lambda text: len(text.encode()) < 256)


@given(
    node=NAMES, bitmap=NAMES, sector=st.integers(0, (1 << 64) - 1), count=st.integers(0, (1 << 32) - 1),
    bits=st.none() | st.binary(max_size=200), eos=st.booleans(),
)  # fmt: skip
def test_bits_round_trip(
    node: str | None, bitmap: str | None, sector: int, count: int, bits: bytes | None, eos: bool
) -> None:
    flags = F.BITS | (F.ZEROES if bits is None else 0) | (F.EOS if eos else 0)
    flags |= (F.DEVICE_NAME if node is not None else 0) | (F.BITMAP_NAME if bitmap is not None else 0)
    chunk = DirtyBitmapBits(
        flags=int(flags),
        node_alias=node,
        bitmap_alias=bitmap,
        start_sector=sector,
        nr_sectors=count,
        bits=bits,
    )
    data = chunk.encode() + b"\x01"
    outcome = parse(section, data)
    assert outcome.error is None
    assert b"".join(event.encode() for event in outcome.events) == data[: len(data) - outcome.left]
    assert outcome.events[0].encode() == chunk.encode()


@given(st.binary(max_size=400), st.integers(1, 9))
def test_any_bytes_end_in_our_errors_however_cut(data: bytes, step: int) -> None:
    whole = parse(sections, data)
    cut = parse(sections, data, cuts=range(step, len(data), step))
    assert cut.events == whole.events
    assert str(cut.error) == str(whole.error)
