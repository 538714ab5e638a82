"""`block` and `spapr/htab`: records by their first word, bounded whatever it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._feed import Feed, Steps
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.block import BLOCK_SIZE, BlockDeviceData, BlockEos, BlockFlag, BlockProgress, BlockReader
from qmig.legacy.htab import NO_TABLE, HtabChunk, HtabEnd, HtabHeader, HtabReader
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState
from qmig.testing.parsers import explore, parse

PART = SectionType.SECTION_PART


def block(feed: Feed) -> Steps[None]:
    return BlockReader(feed, StreamState()).section(PART)


def htab(feed: Feed) -> Steps[None]:
    return HtabReader(feed, StreamState()).section(SectionType.SECTION_START)


def htab_sections(feed: Feed) -> Steps[None]:
    reader = HtabReader(feed, StreamState())
    for kind in (SectionType.SECTION_START, PART, PART, SectionType.SECTION_END):
        yield from reader.section(kind)


ZERO = BlockDeviceData(word=2048 << 9 | BlockFlag.DEVICE_BLOCK | BlockFlag.ZERO_BLOCK, device="drive0")
DATA = BlockDeviceData(word=4096 << 9 | BlockFlag.DEVICE_BLOCK, device="", data=bytes(range(256)) * 4096)
PROGRESS = BlockProgress(word=37 << 9 | BlockFlag.PROGRESS)
EOS = BlockEos(word=int(BlockFlag.EOS))


def test_block_records() -> None:
    found = explore(block, ZERO.encode() + PROGRESS.encode() + EOS.encode())
    assert found == [ZERO, PROGRESS, EOS]
    assert (ZERO.sector, PROGRESS.percent) == (2048, 37)
    assert ZERO.encode() == bytes.fromhex("0000000000100009 06 647269766530")


def test_a_data_block_is_1_mib_in_any_chunks() -> None:
    data = DATA.encode() + EOS.encode()
    assert len(data) == 9 + BLOCK_SIZE + 8
    for cuts in ([], [4, 9, 100, BLOCK_SIZE], range(4096, len(data), 4096)):
        outcome = parse(block, data, cuts=cuts)
        assert outcome.events == [DATA, EOS]
    short = parse(block, data[: BLOCK_SIZE + 8])
    assert isinstance(short.error, RemoteProtocolError)
    assert (short.error.requirement, short.error.offset) == ("LEG-BLK-010", 0)


def test_the_loader_s_order_of_block_flags() -> None:
    """Flags that the first of them does not use are ignored; EOS ends the section from anywhere."""
    both = BlockProgress(word=int(BlockFlag.PROGRESS | BlockFlag.EOS | BlockFlag.ZERO_BLOCK) | 0x100)
    assert explore(block, both.encode()) == [both]


@pytest.mark.parametrize("word", [0, int(BlockFlag.ZERO_BLOCK), 0x10, 1 << 63])
def test_unknown_block_flags(word: int) -> None:
    error = parse(block, ZERO.encode() + word.to_bytes(8, "big")).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == ("LEG-BLK-002", len(ZERO.encode()))


def test_block_data_that_cannot_be() -> None:
    for word, data in [
        (int(BlockFlag.EOS), None),
        (int(BlockFlag.DEVICE_BLOCK), None),
        (BlockFlag.DEVICE_BLOCK | BlockFlag.ZERO_BLOCK, bytes(BLOCK_SIZE)),
        (int(BlockFlag.DEVICE_BLOCK), bytes(512)),
    ]:
        with pytest.raises(LocalProtocolError):
            BlockDeviceData(word=int(word), device="d", data=data)


SIZE = HtabHeader(word=24)
MORE = HtabHeader(word=0)
CHUNK = HtabChunk(index=0x100, n_valid=2, n_invalid=3, data=bytes(range(32)))


def test_htab_sections() -> None:
    nothing = HtabHeader(word=NO_TABLE)
    records = [SIZE, MORE, CHUNK, CHUNK, HtabEnd(), nothing, MORE, HtabEnd()]
    assert explore(htab_sections, b"".join(record.encode() for record in records)) == records
    assert CHUNK.encode()[:8] == bytes.fromhex("00000100 0002 0003")


def test_entries_before_the_size_or_beyond_it() -> None:
    error = parse(htab, MORE.encode() + CHUNK.encode()).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == ("LEG-HTB-014", 4)
    small = HtabHeader(word=18).encode()  # 16384 entries
    last = HtabChunk(index=16384 - 5, n_valid=2, n_invalid=3, data=bytes(32)).encode()
    good = parse(htab_sections, small + MORE.encode() + last + HtabEnd().encode() + small * 2)
    assert good.error is None
    beyond = HtabChunk(index=16384 - 4, n_valid=2, n_invalid=3, data=bytes(32)).encode()
    error = parse(htab_sections, small + MORE.encode() + beyond).error
    assert isinstance(error, RemoteProtocolError)
    assert error.requirement == "LEG-HTB-014"


@pytest.mark.parametrize("shift", [1, 17, 47, 63, 1 << 31])
def test_impossible_table_sizes(shift: int) -> None:
    error = parse(htab, shift.to_bytes(4, "big")).error
    assert isinstance(error, RemoteProtocolError)
    assert error.requirement == "LEG-HTB-013"


def test_htab_data_of_another_length() -> None:
    with pytest.raises(LocalProtocolError, match="31 bytes"):
        HtabChunk(index=0, n_valid=2, n_invalid=0, data=bytes(31))


@given(st.binary(max_size=300), st.integers(1, 9), st.sampled_from([block, htab_sections]))
def test_any_bytes_end_in_our_errors_however_cut(data: bytes, step: int, parser: object) -> None:
    assert callable(parser)
    whole = parse(parser, data)
    cut = parse(parser, data, cuts=range(step, len(data), step))
    assert cut.events == whole.events
    assert str(cut.error) == str(whole.error)


@given(
    index=st.integers(0, 100), chunks=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=5)
)
def test_htab_chunks_round_trip(index: int, chunks: list[tuple[int, int]]) -> None:
    records = [SIZE, MORE]
    data = b"".join(record.encode() for record in records)
    for valid, invalid in chunks:
        data += HtabChunk(index=index, n_valid=valid, n_invalid=invalid, data=bytes(16 * valid)).encode()
    data += HtabEnd().encode()
    outcome = parse(htab_sections, data)
    assert b"".join(event.encode() for event in outcome.events) == data
