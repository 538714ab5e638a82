"""RAM rebuilt: pages in any form, differences, files that stay sparse."""

import hashlib
import json
import lzma
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmig._wire import Raw, Record
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy import ramimage, xbzrle
from qmig.legacy.commands import PostcopyRamDiscard
from qmig.legacy.mappedram import MappedRamBitmap, MappedRamHeader, MappedRamPages
from qmig.legacy.pageset import Budget, PageSet
from qmig.legacy.ram import (
    RamBlockEntry,
    RamCompressedPage,
    RamDeltas,
    RamEos,
    RamFlag,
    RamPages,
    RamXbzrlePage,
)
from qmig.legacy.ramimage import RamImage
from qmig.legacy.receiver import LegacyReceiver
from qmig.peers.ram import RamFile, RamFolder, file_name
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors, spec_root

SIZE = 4096
PAGE = bytes(range(256)) * 16
OTHER = bytes(reversed(PAGE))
ZERO = bytes(SIZE)


class Writes:
    """A store that notes what is written to it."""

    def __init__(self, length: int) -> None:
        self.memory = bytearray(length)
        self.calls: list[tuple[int, int]] = []

    def write(self, offset: int, pieces: Sequence[Raw]) -> None:
        data = b"".join(pieces)
        assert offset + len(data) <= len(self.memory)
        self.calls.append((offset, len(data)))
        self.memory[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.memory[offset : offset + size])


def image(*lengths: int) -> tuple[RamImage, list[Writes]]:
    """Blocks "a", "b" … of these lengths."""
    stores: list[Writes] = []

    def open_block(idstr: str, length: int) -> Writes:
        stores.append(Writes(length))
        return stores[-1]

    found = RamImage(open_block)
    for name, length in zip("abcdef", lengths, strict=False):
        found.apply(RamBlockEntry(idstr=name, used_length=length))
    return found, stores


def pages(*content: tuple[int, Raw | int], block: str = "a", named: bool = True) -> RamPages:
    return RamPages.of(block, SIZE, content, named=named)


def deltas(*payloads: tuple[int, bytes], compressed: bool = False) -> RamDeltas:
    data, starts = b"", []
    for address, payload in payloads:
        starts.append(len(data))
        if compressed:
            word = address | RamFlag.COMPRESS_PAGE | RamFlag.CONTINUE
            data += RamCompressedPage(word=word, deflated=payload).encode()
        else:
            data += RamXbzrlePage(word=address | RamFlag.XBZRLE, block="a", delta=payload).encode()
    return RamDeltas(block="a", page_size=SIZE, starts=tuple(starts), data=data).place(100, len(data))


def test_last_version_wins_and_zero_pages_stay_holes() -> None:
    ram, (a,) = image(8 * SIZE)
    ram.apply(pages((0, 0), (SIZE, PAGE), (2 * SIZE, 0), (3 * SIZE, 0), (7 * SIZE, PAGE)))
    assert a.calls == [(SIZE, SIZE), (7 * SIZE, SIZE)]
    ram.apply(pages((0, OTHER), (SIZE, 0), (2 * SIZE, 0), (3 * SIZE, 7)))
    assert a.memory == OTHER + ZERO + ZERO + b"\7" * SIZE + ZERO * 3 + PAGE
    ram.apply(pages((3 * SIZE, 0), (3 * SIZE, PAGE), (3 * SIZE, 0)))
    assert bytes(a.memory[3 * SIZE : 4 * SIZE]) == ZERO
    block = ram.blocks["a"]
    assert block.counts.as_dict() == {
        "normal": 4,
        "zero": 8,
        "xbzrle": 0,
        "compressed": 0,
        "mapped": 0,
        "multifd_normal": 0,
        "multifd_zero": 0,
    }
    assert (block.counts.filled, block.counts.total, block.pages, block.never_sent) == (1, 12, 8, 3)
    assert {turn: (c.normal, c.zero) for turn, c in block.rounds.items()} == {
        1: (2, 3), 2: (1, 3), 3: (0, 1), 4: (1, 0), 5: (0, 1),
    }  # fmt: skip


def test_small_holes_between_data_are_filled_and_large_ones_are_not() -> None:
    ram, (a,) = image(64 * SIZE)
    data: list[tuple[int, Raw | int]] = [
        (n * SIZE, 0 if n in (3, 7) or 8 < n < 40 else PAGE) for n in range(64)
    ]
    ram.apply(pages(*data))
    assert a.calls == [(0, 9 * SIZE), (40 * SIZE, 24 * SIZE)]
    # One page of data does not carry two of nothing, and nothing is filled over a jump.
    ram, (a,) = image(64 * SIZE)
    ram.apply(pages((0, PAGE), (SIZE, 0), (2 * SIZE, 0), (3 * SIZE, PAGE), (5 * SIZE, 0), (6 * SIZE, PAGE)))
    assert a.calls == [(0, SIZE), (3 * SIZE, SIZE), (6 * SIZE, SIZE)]


def test_writes_are_bounded() -> None:
    ram, (a,) = image(3000 * SIZE)
    ram.apply(pages(*((n * SIZE, PAGE) for n in range(3000))))
    assert max(size for _, size in a.calls) <= 1024 * SIZE
    assert sum(size for _, size in a.calls) == 3000 * SIZE
    assert a.memory == PAGE * 3000


def test_block_that_is_no_multiple_of_the_page_size() -> None:
    ram, (a,) = image(SIZE + 100)
    ram.apply(pages((0, PAGE), (SIZE, OTHER)))
    assert a.memory == PAGE + OTHER[:100]
    ram.apply(pages((SIZE, 0)))
    assert a.memory == PAGE + bytes(100)
    ram.apply(pages((SIZE, 9)))
    ram.apply(deltas((SIZE, b"\0\1x")))
    assert a.memory == PAGE + b"x" + b"\t" * 99
    ram.apply_pages("a", [SIZE], PAGE)
    assert a.memory == PAGE + PAGE[:100]
    assert ram.blocks["a"].pages == 2


def test_rounds_over_blocks_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    ram, _ = image(8 * SIZE, 8 * SIZE)
    ram.apply(pages((SIZE, 0)))
    ram.apply(pages((0, 0), block="b"))
    ram.apply(pages((2 * SIZE, 0)))
    ram.apply(pages((SIZE, 0)), "preempt")
    ram.apply(pages((SIZE, 0), block="b"))
    assert list(ram.blocks["a"].rounds) == [1, 2]
    assert list(ram.blocks["b"].rounds) == [1, 2]
    assert ram.blocks["a"].rounds[1].zero == 2
    monkeypatch.setattr(ramimage, "MAX_ROUNDS", 3)
    for _ in range(5):
        ram.apply(pages((0, 0)))
    assert [c.zero for c in ram.blocks["a"].rounds.values()] == [2, 1, 5]


def test_differences_and_compressed_pages() -> None:
    ram, (a,) = image(4 * SIZE)
    ram.apply(pages((0, PAGE), (SIZE, PAGE)))
    delta = xbzrle.encode(PAGE, b"xyz" + PAGE[3:])
    assert delta is not None
    ram.apply(deltas((0, delta), (2 * SIZE, b"\5\1!")))
    ram.apply(deltas((SIZE, zlib.compress(OTHER)), compressed=True))
    assert a.memory == b"xyz" + PAGE[3:] + OTHER + bytes(5) + b"!" + bytes(2 * SIZE - 6)
    counts = ram.blocks["a"].counts
    assert (counts.normal, counts.xbzrle, counts.compressed) == (2, 2, 1)


@pytest.mark.parametrize(
    ("event", "offset", "requirement", "record"),
    [
        (deltas((0, b"\0\1x"), (SIZE, b"\0")), 114 - 1 + 0, "LEG-RAM-036", "RamXbzrlePage"),
        (deltas((0, b"rubbish"), compressed=True), 100, "LEG-RAM-037", "RamCompressedPage"),
        (deltas((0, zlib.compress(PAGE[:-1])), compressed=True), 100, "LEG-RAM-037", "RamCompressedPage"),
        (
            deltas((0, zlib.compress(bytes(1 << 20))), compressed=True),
            100,
            "LEG-RAM-037",
            "RamCompressedPage",
        ),
        (deltas((0, zlib.compress(PAGE)[:-1]), compressed=True), 100, "LEG-RAM-037", "RamCompressedPage"),
    ],
)
def test_pages_that_do_not_decode(event: RamDeltas, offset: int, requirement: str, record: str) -> None:
    ram, _ = image(4 * SIZE)
    with pytest.raises(RemoteProtocolError) as caught:
        ram.apply(event)
    assert (caught.value.requirement, caught.value.record) == (requirement, record)
    assert caught.value.offset == 100 + event.starts[-1]
    assert offset <= caught.value.offset + 1


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_mapped_pages_by_their_bitmap(byteorder: str) -> None:
    memory = bytearray(5 * SIZE)
    ram = RamImage(lambda _name, _length: memory, byteorder=byteorder)
    ram.apply(RamBlockEntry(idstr="a", used_length=5 * SIZE))
    ram.apply(MappedRamHeader(version=1, page_size=SIZE, bitmap_offset=64, pages_offset=1 << 20))
    bits = (0b10110).to_bytes(8, byteorder)  # type: ignore[arg-type]
    ram.apply(MappedRamBitmap(block="a", pages=5, data=bits))
    region = b"stale".ljust(SIZE, b"!") + PAGE + OTHER + b"old".ljust(SIZE, b"?") + PAGE
    for start in range(0, len(region), 1000):
        ram.apply(MappedRamPages(block="a", page_size=SIZE, start=start, data=region[start : start + 1000]))
    assert memory == ZERO + PAGE + OTHER + ZERO + PAGE
    assert (ram.blocks["a"].counts.mapped, ram.blocks["a"].never_sent) == (3, 0)


def test_multifd_pages() -> None:
    ram, (a,) = image(8 * SIZE)
    ram.apply_pages("a", [0, SIZE, 4 * SIZE], PAGE + OTHER + PAGE, turn=1)
    assert a.calls == [(0, 2 * SIZE), (4 * SIZE, SIZE)]
    ram.apply_zero("a", [SIZE, 5 * SIZE], SIZE, turn=2)
    assert a.memory == PAGE + ZERO * 3 + PAGE + ZERO * 3
    ram.apply_pages("a", [], b"")
    block = ram.blocks["a"]
    assert (block.rounds[1].multifd_normal, block.rounds[2].multifd_zero, block.never_sent) == (3, 2, 4)
    for offsets, data in (
        ([0], b""),
        ([0, SIZE], PAGE + b"x"),
        ([8 * SIZE], PAGE),
        ([-SIZE], PAGE),
        ([], b"x"),
    ):
        with pytest.raises(LocalProtocolError):
            ram.apply_pages("a", offsets, data)
    with pytest.raises(LocalProtocolError):
        ram.apply_zero("a", [8 * SIZE], SIZE)
    with pytest.raises(LocalProtocolError, match="not listed"):
        ram.apply_zero("z", [0], SIZE)


def test_discard_erases_nothing() -> None:
    ram, (a,) = image(4 * SIZE)
    ranges = ((0, 3 * SIZE), (1 << 63, SIZE))
    ram.apply(PostcopyRamDiscard(length=0, block="a", ranges=ranges))
    ram.apply(pages((0, PAGE), (SIZE, PAGE)))
    ram.apply(PostcopyRamDiscard(length=0, block="a", ranges=ranges))
    assert a.memory == PAGE * 2 + ZERO * 2
    block = ram.blocks["a"]
    assert (block.discarded, block.stale.count()) == (2, 2)
    ram.apply(pages((SIZE, OTHER)))
    assert (block.discarded, block.stale.count()) == (2, 1)


def test_blocks_that_are_not_wanted_are_counted() -> None:
    ram = RamImage(lambda _name, _length: None)
    entry = RamBlockEntry(idstr="a", used_length=4 * SIZE)
    ram.apply(entry)
    ram.apply(entry)
    assert ram.blocks["a"].never_sent is None
    ram.apply(pages((0, PAGE), (SIZE, 0), (2 * SIZE, 5)))
    ram.apply(deltas((0, b"\0\1x")))
    ram.apply(MappedRamHeader(version=1, page_size=SIZE, bitmap_offset=64, pages_offset=1 << 20))
    ram.apply(MappedRamBitmap(block="a", pages=0, data=b""))
    ram.apply(MappedRamPages(block="a", page_size=SIZE, start=0, data=PAGE))
    ram.apply(RamEos())
    assert ram.blocks["a"].counts.total == 4
    assert ram.blocks["a"].never_sent == 1


def test_memory_too_short() -> None:
    ram = RamImage(lambda _name, length: bytearray(length - 1))
    with pytest.raises(LocalProtocolError, match="4095 bytes of memory"):
        ram.apply(RamBlockEntry(idstr="a", used_length=4096))


def test_too_many_scattered_pages_to_tell() -> None:
    ram, _ = image(1 << 30)
    ram.apply(pages((0, 0)))
    ram.blocks["a"].sent = PageSet(Budget(0))
    ram.apply(pages((0, 0)))
    assert ram.blocks["a"].never_sent is None


@given(
    st.lists(st.tuples(st.integers(0, 30000), st.integers(1, 9000)), max_size=6),
    st.integers(0, 40000),
    st.integers(1, 1 << 30),
)
def test_copying_pages_of_a_set(ranges: list[tuple[int, int]], first: int, count: int) -> None:
    model: set[int] = set()
    pages_, other = PageSet(Budget()), PageSet(Budget())
    for start, length in ranges:
        pages_.add(start, length)
        model |= set(range(start, start + length))
    wanted = {page for page in model if first <= page < first + count}
    assert pages_.copy_to(other, first, count) == len(wanted) == other.count()
    assert {page for start, length in other.ranges() for page in range(start, start + length)} == wanted
    assert pages_.copy_to(other, first, count) == len(wanted) == other.count()
    small = PageSet(Budget(-1))
    pages_.copy_to(small, first, count)
    assert small.count() == 0
    assert pages_.touches(first, min(count, 100000)) == any(p < first + 100000 for p in wanted)


# XBZRLE


@given(st.binary(min_size=64, max_size=300), st.data())
def test_difference_there_and_back(old: bytes, data: st.DataObject) -> None:
    new = bytearray(old)
    for start, piece in data.draw(st.lists(st.tuples(st.integers(0, len(old) - 1), st.binary(max_size=20)))):
        new[start : start + len(piece)] = piece[: len(old) - start]
    delta = xbzrle.encode(old, bytes(new))
    if delta is not None:
        assert len(delta) < len(old)
        assert xbzrle.decode(old, delta) == new
        assert (delta == b"") == (old == new)


def test_differences_spelled_out() -> None:
    old = bytes(4096)
    assert xbzrle.decode(old, b"\x02\x01\xff") == b"\0\0\xff" + bytes(4093)
    assert xbzrle.decode(old, b"\x80\x10\x01\xff\x01\x02ab") == bytes(2048) + b"\xff\0ab" + bytes(2044)
    assert xbzrle.encode(old, bytes(2048) + b"\xff\0ab" + bytes(2044)) == b"\x80\x10\x01\xff\x01\x02ab"
    assert xbzrle.encode(old, PAGE) is None
    big = bytes(65536)
    assert xbzrle.encode(big, big[:-1] + b"x") is None
    assert xbzrle.encode(big, b"y" * 20000 + big[20000:]) is None


@pytest.mark.parametrize(
    "delta",
    [
        b"\0",
        b"\0\0",
        b"\0\0\0",
        b"\0\1",
        b"\0\2x",
        b"\x80\x80\1x",
        b"\0\1x\0\1y",
        b"\0\1x\1",
        b"\xff\x1f\2xy",
        b"\xff\x7f\1x",
        b"\0\x80\x80x",
    ],
)
def test_malformed_differences(delta: bytes) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        xbzrle.decode(bytes(4096), delta)
    assert caught.value.requirement == "LEG-RAM-036"


# Files


def test_files(tmp_path: Path) -> None:
    with RamFolder(tmp_path / "ram") as folder:
        ram = RamImage(folder.open_block)
        ram.apply(RamBlockEntry(idstr="a/../b", used_length=1 << 30))
        ram.apply(pages((SIZE, PAGE), (1 << 29, OTHER), block="a/../b"))
        ram.apply(pages((SIZE, 0), block="a/../b"))
        (file,) = folder.files.values()
        assert file.read(1 << 29, SIZE) == OTHER
        assert file.read(SIZE, SIZE) == ZERO
    assert file.path.parent == tmp_path / "ram"
    found = file.path.stat()
    assert found.st_size == 1 << 30
    assert found.st_blocks * 512 < 1 << 20
    assert found.st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        RamFolder(tmp_path / "ram").open_block("a/../b", 1)


def test_write_that_the_system_takes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, one = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, offset: real(fd, [pieces[0][:3]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: one(fd, data[:2], offset))
    file = RamFile(tmp_path / "x", 20)
    file.write(2, [b"abcd", b"efgh"])
    assert file.read(0, 20) == b"\0\0abcdefgh".ljust(20, b"\0")
    file.close()


def test_file_names_stay_in_the_folder_and_differ() -> None:
    names = [
        "pc.ram",
        "/rom@etc/acpi/tables",
        "..",
        ".",
        "",
        "a\0b",
        "a%00b",
        "x" * 255,
        "x" * 254 + "y",
        "\udcff",
    ]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert found[:2] == ["pc.ram.ram", "%2From@etc%2Facpi%2Ftables.ram"]
    for name in found:
        assert "/" not in name
        assert "\0" not in name
        assert name not in {".", ".."}
        assert len(name) <= 255


# Recordings


def _facts(vector: Vector) -> dict[str, Any]:
    name = vector.expect["decoding"]["facts"]
    text = lzma.decompress((spec_root() / "vectors" / "legacy" / name).read_bytes())
    return dict(json.loads(text))


RECORDINGS = [
    pytest.param(vector, id=vector.id)
    for vector in load_vectors("legacy/recordings#")
    if set(vector.channels) <= {"main", "rp"}
    and any(word in vector.id for word in ("mapped", "xbzrle", "compress", "plain", "postcopy", "arm"))
]


@pytest.mark.parametrize("vector", RECORDINGS)
def test_recordings_give_the_memory_that_another_decoder_found(vector: Vector) -> None:
    buffers: dict[str, bytearray] = {}

    def open_block(idstr: str, length: int) -> bytearray:
        return buffers.setdefault(idstr, bytearray(length))

    ram = RamImage(open_block)
    data = vector.data()
    receiver = LegacyReceiver(offset=0)
    receiver.receive_data(data[max(data.find(b"QEVM"), 0) :])
    for _ in range(2):
        while isinstance(event := receiver.next_event(), Record):
            ram.apply(event)
        receiver.receive_data(b"")
    for fact in _facts(vector)["ram"][-1]:
        block = ram.blocks[fact["idstr"]]
        assert hashlib.sha256(buffers[fact["idstr"]]).hexdigest() == fact["sha256"]
        counts = block.counts
        assert {
            "normal": counts.normal,
            "zero": counts.zero,
            "xbzrle": counts.xbzrle,
            "compress": counts.compressed,
            "mapped_present": counts.mapped,
            "multifd_normal": 0,
            "multifd_zero": 0,
        } == fact["counts"]
        assert block.never_sent in (fact["pages_never_sent"], None)


#: lengths of runs of pages, each of one kind: data, zeros, or another byte
patterns = st.lists(st.tuples(st.sampled_from("dzf"), st.integers(1, 40)), min_size=1, max_size=14)


@given(patterns, st.booleans(), st.integers(0, 3), st.booleans())
@example([("d", 3), ("z", 1)] * 40, False, 0, False)  # as it is in a guest in use
@example([("z", 3), ("d", 1), ("z", 30), ("d", 2), ("z", 2), ("f", 1), ("d", 1)], False, 1, False)
@example([("d", 300), ("z", 16), ("d", 1)], False, 0, False)
def test_consecutive_pages_in_any_pattern(
    pattern: list[tuple[str, int]], named: bool, first: int, used: bool
) -> None:
    """What the short way through a batch leaves in memory is what its records say."""
    contents: list[bytes | int] = []
    for kind, count in pattern:
        for _ in range(count):
            page = bytes([len(contents) % 251 + 1]) * SIZE
            contents.append(page if kind == "d" else 0 if kind == "z" else 7)
    length = (first + len(contents)) * SIZE - 100
    ram, (store,) = image(length)
    if used:
        ram.apply(RamPages.of("a", SIZE, [(first * SIZE, PAGE)], named=True))
    records = [((first + number) * SIZE, content) for number, content in enumerate(contents)]
    ram.apply(RamPages.of("a", SIZE, records, named=named))
    expected = bytes(first * SIZE) + b"".join(
        bytes([content]) * SIZE if isinstance(content, int) else content for content in contents
    )
    assert store.memory == expected[:length]


@pytest.mark.parametrize("kind", ["pages", "zero"])
@pytest.mark.parametrize(
    "offsets", [[6 * SIZE, 7 * SIZE, 8 * SIZE], [8 * SIZE], [7 * SIZE, -SIZE], [-SIZE, 0]]
)
def test_multifd_pages_stay_inside_their_block(kind: str, offsets: list[int]) -> None:
    """Also where only the end of a run is outside."""
    ram, (store,) = image(8 * SIZE)

    def apply() -> None:
        if kind == "pages":
            ram.apply_pages("a", offsets, PAGE * len(offsets))
        else:
            ram.apply_zero("a", offsets, SIZE)

    with pytest.raises(LocalProtocolError, match="is outside 'a'"):
        apply()
    assert len(store.memory) == 8 * SIZE
