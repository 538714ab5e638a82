"""Batches of page records against one record at a time."""

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmig.errors import LocalProtocolError
from qmig.legacy import pages
from qmig.legacy.pages import Ascent, PageScan, Run, RunKind, big_endian
from qmig.legacy.ram import RamFlag, RamPage, RamPages, RamZeroPage

NAME = "pc.ram"
LIMIT = 1 << 24


class One(NamedTuple):
    address: int
    #: None: a full page
    fill: int | None
    named: bool


def content(address: int, size: int) -> bytes:
    """Not the same for two pages, and full of bytes that look like flags."""
    return (struct.pack(">Q", address | 0x28) * (size // 8))[:size]


def encode(one: One, size: int, name: str = NAME) -> bytes:
    word = one.address | (0 if one.named else RamFlag.CONTINUE)
    block = name if one.named else None
    if one.fill is None:
        return RamPage(word=word | RamFlag.PAGE, block=block, data=content(one.address, size)).encode()
    return RamZeroPage(word=word | RamFlag.ZERO, block=block, fill=one.fill).encode()


def ascents(records: list[One]) -> list[Ascent]:
    """The definition, spelled out."""
    found: list[list[One]] = []
    for record in records:
        if not found or record.address <= found[-1][-1].address:
            found.append([])
        found[-1].append(record)
    return [
        Ascent(
            part[0].address,
            part[-1].address,
            sum(r.fill is None for r in part),
            sum(r.fill is not None for r in part),
        )
        for part in found
    ]


@st.composite
def stretches(draw: st.DrawFn, size: int) -> list[One]:
    """Consecutive pages, jumps, repetitions; names now and then."""
    records: list[One] = []
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, 300)) if draw(st.booleans()) else draw(st.integers(0, 8)) * 65536 // size
        length = draw(st.integers(1, 2 * 65536 // size + 3))
        zeros = draw(st.sampled_from(["none", "all", "each fourth", "mixed"]))
        named = draw(st.sampled_from(["none", "first", "all"]))
        for index in range(length):
            zero = {
                "none": False,
                "all": True,
                "each fourth": index % 4 == 3,
                "mixed": index * 7 % 3 == 0,
            }[zeros]
            address = (number + index) * size
            records.append(
                One(address, 0 if zero else None, named == "all" or (named == "first" and not index))
            )
        if draw(st.booleans()):
            records.append(One(records[-1].address, draw(st.sampled_from([0, 7, None])), False))
    return records


def flat(batch: RamPages) -> Iterator[tuple[bool, int, bytes]]:
    """(is a page, offset, content) of every record, by way of the runs."""
    for kind, address, count, at in batch.runs():
        stride = batch.stride(kind)
        for index in range(count):
            stop = at + stride * (index + 1)
            size = batch.page_size if kind & 1 else 1
            yield bool(kind & 1), address + index * batch.page_size, bytes(batch.data[stop - size : stop])


@pytest.mark.parametrize("size", [256, 512, 1024, 4096, 8192, 65536])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_batch_is_its_records(size: int, data: st.DataObject) -> None:
    records = data.draw(stretches(size))
    raw = b"".join(encode(record, size) for record in records)
    batch = RamPages(block=NAME, page_size=size, data=raw)
    assert list(batch.ascents) == ascents(records)
    assert batch.addresses() == array("Q", [r.address for r in records])
    assert list(flat(batch)) == [
        (r.fill is None, r.address, content(r.address, size) if r.fill is None else bytes([r.fill]))
        for r in records
    ]
    assert batch.normal == sum(r.fill is None for r in records)
    assert batch.zero == sum(r.fill is not None for r in records)
    pieces = list(batch.pieces())
    assert b"".join(piece.encode() for piece in pieces) == raw
    assert [piece.ascents[0] for piece in pieces] == ascents(records)
    assert [list(piece.ascents) for piece in pieces] == [
        list(RamPages(block=NAME, page_size=size, data=piece.data).ascents) for piece in pieces
    ]
    assert [piece.offset for piece in pieces] == [
        sum(piece.size or len(piece.data) for piece in pieces[:index]) for index in range(len(pieces))
    ]


@pytest.mark.parametrize("size", [1024, 4096, 65536])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_scan_stops_where_a_record_is_not_whole_or_not_inside(size: int, data: st.DataObject) -> None:
    records = data.draw(stretches(size))
    raw = b"".join(encode(record, size) for record in records)
    end = data.draw(st.integers(0, len(raw)))
    limit = data.draw(st.integers(1, LIMIT))
    scan = PageScan(memoryview(raw), end, size, limit, NAME.encode())
    scan.run()
    good = at = 0
    for record in records:
        length = len(encode(record, size))
        if at + length > end or record.address >= limit:
            break
        good += 1
        at += length
    if at < end and scan.records < good:
        scan.run()
    assert (scan.at, scan.records) == (at, good)
    assert good == 0 or list(scan.ascents()) == ascents(records[:good])


def test_another_block_ends_a_batch() -> None:
    records = [One(0, 0, True), One(4096, 0, False)]
    other = encode(One(8192, 0, True), 4096, "pc.rom")
    raw = b"".join(encode(r, 4096) for r in records) + other
    scan = PageScan(memoryview(raw), len(raw), 4096, LIMIT, NAME.encode())
    scan.run()
    assert scan.at == len(raw) - len(other)
    # The name changes to another of the same length, in the middle of named records.
    raw = b"".join(encode(One(4096 * n, None, True), 4096, "abc" if n < 3 else "abd") for n in range(5))
    scan = PageScan(memoryview(raw), len(raw), 4096, LIMIT, b"abc")
    scan.run()
    assert scan.records == 3
    scan = PageScan(memoryview(raw), len(raw), 4096, LIMIT, b"abd")
    scan.run()
    assert scan.records == 0


def test_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(encode(One(4096 * (n % 2), 0, False), 4096) for n in range(4000))
    scan = PageScan(memoryview(raw), len(raw), 4096, LIMIT, b"x")
    scan.run()
    assert pages.MAX_ASCENTS <= len(scan.closed) < pages.MAX_ASCENTS + pages.BATCH
    monkeypatch.setattr(pages, "MAX_RECORDS", 64)
    raw = b"".join(encode(One(4096 * n, 0, False), 4096) for n in range(400))
    scan = PageScan(memoryview(raw), len(raw), 4096, LIMIT, b"x")
    scan.run()
    assert scan.records == 64


def test_runs_of_a_long_scan_that_names_its_block_in_the_middle() -> None:
    records = [One(4096 * n, None if n % 4 else 0, n in (0, 40)) for n in range(80)]
    batch = RamPages(block=NAME, page_size=4096, data=b"".join(encode(r, 4096) for r in records))
    assert batch.consecutive
    assert [address for _, address, _ in flat(batch)] == [r.address for r in records]
    assert next(batch.runs()) == Run(RunKind.ZERO_NAMED, 0, 1, 0)


def test_of_builds_what_readers_find() -> None:
    page = bytes(range(256)) * 16
    batch = RamPages.of(NAME, 4096, [(0, page), (4096, 0), (0x5000, 7)], named=True)
    assert batch.ascents == (Ascent(0, 0x5000, 1, 2),)
    assert not batch.consecutive
    assert list(flat(batch)) == [(True, 0, page), (False, 4096, b"\0"), (False, 0x5000, b"\7")]
    assert batch.data[:15] == b"\0\0\0\0\0\0\0\x08\x06pc.ram"
    assert RamPages.of(NAME, 4096, [(4096, 0)], named=False).encode() == b"\0\0\0\0\0\0\x10\x22\0"


@pytest.mark.parametrize(
    "pages_", [[(1, 0)], [(0, b"short")], [(-4096, 0)], [(1 << 64, 0)], [(0, bytes(8192))]]
)
def test_of_refuses_what_is_no_page(pages_: list[tuple[int, bytes | int]]) -> None:
    with pytest.raises(LocalProtocolError, match="no page of"):
        RamPages.of(NAME, 4096, pages_, named=False)


@pytest.mark.parametrize("data", [b"\0" * 9, b"\0\0\0\0\0\0\0\x22", b"\0\0\0\0\0\0\0\x02\3abc\0"])
def test_batch_of_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="no page record"):
        RamPages(block=NAME, page_size=4096, data=data)


def test_big_endian_hosts_need_no_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    little = big_endian(b"\0\0\0\0\0\0\1\2")
    assert list(little) == [0x102]
    monkeypatch.setattr("sys.byteorder", "big")
    assert list(big_endian(array("Q", [5]).tobytes())) == [5]
