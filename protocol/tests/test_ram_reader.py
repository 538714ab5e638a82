"""RAM records of a channel: block list, pages, differences, marks, page size, mapped-ram."""

import zlib
from collections.abc import Callable, Iterator

import pytest

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream
from qmig.legacy import ramwalk
from qmig.legacy.mappedram import (
    MappedRamBitmap,
    MappedRamGap,
    MappedRamHeader,
    MappedRamPages,
    bit_runs,
    in_order,
)
from qmig.legacy.pages import Ascent
from qmig.legacy.ram import (
    RamBlockEntry,
    RamCompressedPage,
    RamDeltas,
    RamEos,
    RamFlag,
    RamHook,
    RamMemSize,
    RamMultifdFlush,
    RamPage,
    RamPages,
    RamXbzrlePage,
    RamZeroPage,
    compress_bound,
)
from qmig.legacy.ramwalk import RamReader
from qmig.legacy.sections import SectionType
from qmig.legacy.state import RamBlock, StreamState
from qmig.testing.parsers import Outcome, Parser, explore, parse

EOS = RamEos().encode()
FOOTER = b"\x7e\0\0\0\1"
States = Callable[[], StreamState]


def reading(page_size: int | None = 4096, **blocks: int) -> Parser:
    """A reader of one section, for which these blocks are listed already."""

    def parser(feed: Feed) -> Steps[None]:
        state = StreamState(page_size=page_size)
        for name, length in (blocks or {"a": 1 << 20, "b": 1 << 16}).items():
            state.blocks[name] = RamBlock(name, length, None, None)
        return RamReader(feed, state).section(SectionType.SECTION_PART)

    return parser


def listing(
    *capabilities: str, advised: bool = False, configured: bool = True, size: int | None = 4096
) -> Parser:
    """A reader that has seen no list yet."""

    def parser(feed: Feed) -> Steps[None]:
        state = StreamState(page_size=size)
        state.capabilities = frozenset(capabilities)
        state.configured = configured
        state.postcopy_advised = advised
        return RamReader(feed, state).records()

    return parser


def page(address: int, block: str | None = None, size: int = 4096, fill: int = 0xA5) -> bytes:
    word = address | RamFlag.PAGE | (RamFlag.CONTINUE if block is None else 0)
    return RamPage(word=word, block=block, data=bytes([fill]) * size).encode()


def zero(address: int, block: str | None = None, fill: int = 0) -> bytes:
    word = address | RamFlag.ZERO | (RamFlag.CONTINUE if block is None else 0)
    return RamZeroPage(word=word, block=block, fill=fill).encode()


def xbzrle(address: int, delta: bytes, block: str | None = None) -> bytes:
    word = address | RamFlag.XBZRLE | (RamFlag.CONTINUE if block is None else 0)
    return RamXbzrlePage(word=word, block=block, delta=delta).encode()


def compressed(address: int, block: str | None = None, data: bytes = bytes(4096)) -> bytes:
    word = address | RamFlag.COMPRESS_PAGE | (RamFlag.CONTINUE if block is None else 0)
    return RamCompressedPage(word=word, block=block, deflated=zlib.compress(data)).encode()


def flat(events: list[Record]) -> Iterator[tuple[object, ...]]:
    """Events with batches taken apart, so that chunks make no difference."""
    for event in events:
        if isinstance(event, RamPages):
            for run in event.runs():
                for index in range(run.pages):
                    yield event.block, run.kind & 1, run.address + index * event.page_size
        elif isinstance(event, RamDeltas):
            for delta in event.records():
                yield event.block, delta.kind, delta.address, bytes(delta.payload)
        elif isinstance(event, MappedRamPages | MappedRamGap):
            yield type(event), bytes(event.data)
        else:
            yield (event,)


def joined(events: list[Record]) -> list[tuple[object, ...]]:
    """As `flat`, with pieces of one region joined."""
    found: list[tuple[object, ...]] = []
    for item in flat(events):
        if found and len(item) == 2 and found[-1][0] is item[0]:
            found[-1] = (item[0], found[-1][1] + item[1])  # type: ignore[operator]
        else:
            found.append(item)
    return found


def every_way(parser: Parser, data: bytes, behind: bytes = FOOTER) -> list[Record]:
    """The same story in any chunks, every byte accounted for, and cut anywhere."""
    whole = parse(parser, data + behind, offset=0x1000)
    assert whole.error is None, whole.error
    assert whole.left == len(behind)
    assert b"".join(event.encode() for event in whole.events) == data
    for step in (1 if len(data) < 20000 else 997, 13 if len(data) < 100000 else 2003, 4099):
        cut = parse(parser, data + behind, cuts=range(step, len(data), step), offset=0x1000)
        assert cut.error is None
        assert joined(cut.events) == joined(whole.events)
        assert b"".join(event.encode() for event in cut.events) == data
        assert [e.offset for e in cut.events][1:] == [e.offset + e.size for e in cut.events][:-1]
    for end in range(0, len(data), max(1, len(data) // 97)):
        short = parse(parser, data[:end], offset=0x1000)
        assert isinstance(short.error, TruncatedStream), end
        told = b"".join(event.encode() for event in short.events)
        assert data.startswith(told)
    return whole.events


def fails(
    parser: Parser,
    data: bytes,
    requirement: str,
    at: int,
    kind: type[RemoteProtocolError] = RemoteProtocolError,
) -> Outcome:
    for cuts in ((), range(1, len(data))):
        found = parse(parser, data + bytes(16), cuts=cuts)
        assert type(found.error) is kind, found.error
        assert (found.error.requirement, found.error.offset) == (requirement, at), found.error
        assert b"".join(event.encode() for event in found.events) == data[:at]
    return found


def test_marks() -> None:
    data = RamMultifdFlush().encode() + RamHook().encode() + EOS
    assert explore(reading(), data) == [RamMultifdFlush(), RamHook(), RamEos()]
    # Receivers look at neither the address nor CONTINUE.
    data = b"".join((word | 0x7020).to_bytes(8, "big") for word in (0x200, 0x80, 0x10))
    assert explore(reading(), data) == [
        RamMultifdFlush(word=0x7220),
        RamHook(word=0x70A0),
        RamEos(word=0x7030),
    ]


@pytest.mark.parametrize("flags", [0, 0x01, 0x09, 0x0A, 0x48, 0x108, 0x18, 0x14, 0x3FF])
@pytest.mark.parametrize("size", [4096, None])
def test_flags_exclude_one_another(flags: int, size: int | None) -> None:
    found = fails(reading(size), zero(0, "a") + flags.to_bytes(8, "big"), "LEG-RAM-002", 11)
    assert str(found.error).startswith("offset 0xb, RAM record: unknown combination of RAM flags")


def test_flag_bits_above_the_known_ones_are_unknown_flags() -> None:
    fails(reading(4096), (0x828).to_bytes(8, "big"), "LEG-RAM-002", 0)
    # With pages of 256 bytes the two highest flags are address bits.
    assert [
        e.block for e in explore(reading(256), zero(0x300, "a") + EOS)[:1] if isinstance(e, RamPages)
    ] == ["a"]
    fails(reading(256), (0x200).to_bytes(8, "big"), "LEG-RAM-002", 0)


def test_pages_of_two_blocks() -> None:
    data = page(0, "a") + page(0x1000) + zero(0x2000) + zero(0, "b") + page(0x1000) + page(0, "a") + EOS
    events = every_way(reading(), data)
    assert [(e.block, *e.ascents) for e in events if isinstance(e, RamPages)] == [
        ("a", Ascent(0, 0x2000, 2, 1)),
        ("b", Ascent(0, 0x1000, 1, 1)),
        ("a", Ascent(0, 0, 1, 0)),
    ]


def test_block_is_remembered_over_sections() -> None:
    def two(feed: Feed) -> Steps[None]:
        state = StreamState(page_size=4096)
        state.blocks["a"] = RamBlock("a", 1 << 20, None, None)
        reader = RamReader(feed, state)
        yield from reader.section(SectionType.SECTION_PART)
        yield from reader.section(SectionType.SECTION_END)

    assert [type(e) for e in every_way(two, zero(0, "a") + EOS + zero(0x1000) + EOS)] == [
        RamPages,
        RamEos,
        RamPages,
        RamEos,
    ]


def test_wrong_pages() -> None:
    fails(reading(), page(0), "LEG-RAM-041", 0)
    fails(reading(), zero(0), "LEG-RAM-041", 0)
    fails(reading(), page(0, "c"), "LEG-RAM-040", 0)
    fails(reading(), page(0, ""), "LEG-RAM-040", 0)
    good = page(0xFF000, "a") + zero(0)
    fails(reading(), good + page(1 << 20), "LEG-RAM-042", len(good))
    fails(reading(), good + zero(1 << 63), "LEG-RAM-042", len(good))
    fails(reading(), good + zero(0x10000, "b"), "LEG-RAM-042", len(good))
    fails(reading(), good + xbzrle(1 << 20, b"\0\1x"), "LEG-RAM-042", len(good))
    # Pages of 8 KiB that lie at odd multiples of 4 KiB.
    fails(reading(8192), zero(0x1000, "a"), "LEG-RAM-002", 0)


def test_wrong_page_behind_many_good_ones() -> None:
    good = zero(0, "a") + b"".join(zero(4096 * n) for n in range(1, 16))
    fails(reading(a=65536), good + zero(65536) + zero(0), "LEG-RAM-042", len(good))


def test_length_that_is_no_multiple_of_the_page_size() -> None:
    data = page(0, "a") + page(0x1000) + EOS
    assert len(every_way(reading(a=0x1001), data)) == 2
    fails(reading(a=0x1000), data, "LEG-RAM-042", len(page(0, "a")))


def test_differences() -> None:
    data = (
        page(0, "a")
        + xbzrle(0x1000, b"\0\1x")
        + xbzrle(0x3000, b"")
        + compressed(0x3000)
        + zero(0x4000)
        + compressed(0x5000, "b")
        + xbzrle(0x5000, bytes(4096), "b")
        + xbzrle(0x5000, b"\0\1y", "a")
        + EOS
    )
    events = every_way(reading(), data)
    found = [(e.block, list(e.ascents())) for e in events if isinstance(e, RamDeltas)]
    assert found == [
        ("a", [Ascent(0x1000, 0x3000, 2, 0), Ascent(0x3000, 0x3000, 0, 1)]),
        ("b", [Ascent(0x5000, 0x5000, 0, 1)]),
        ("b", [Ascent(0x5000, 0x5000, 1, 0)]),
        ("a", [Ascent(0x5000, 0x5000, 1, 0)]),
    ]


def test_wrong_differences() -> None:
    good = xbzrle(0, b"\0\1x", "a")
    wrong = bytearray(xbzrle(0x1000, b"\0\1x"))
    wrong[8] = 2
    fails(reading(), good + wrong, "LEG-RAM-032", len(good))
    fails(reading(), good + xbzrle(0x1000, bytes(4097)), "LEG-RAM-034", len(good))
    fails(reading(), good + xbzrle(1 << 20, b"\0\1x"), "LEG-RAM-042", len(good))
    most = compress_bound(4096)
    long = (0x1120).to_bytes(8, "big") + (most + 1).to_bytes(4, "big")
    fails(reading(), good + long, "LEG-RAM-035", len(good))
    fails(reading(), good + (0x1160).to_bytes(8, "big") + bytes(20), "LEG-RAM-002", len(good))


def test_differences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ramwalk, "_MOST_DELTAS", 3)
    data = xbzrle(0, b"\0\1x", "a") + b"".join(xbzrle(4096 * n, b"\0\1x") for n in range(1, 7)) + EOS
    events = every_way(reading(), data)
    assert [len(e.starts) for e in events if isinstance(e, RamDeltas)] == [3, 3, 1]


def entries(*lengths: tuple[str, int], extra: bytes = b"", total: int | None = None) -> bytes:
    """A block list with the same extra bytes in each entry."""
    whole = sum(length for _, length in lengths) if total is None else total
    return RamMemSize(word=whole | RamFlag.MEM_SIZE).encode() + b"".join(
        RamBlockEntry(idstr=name, used_length=length).encode() + extra for name, length in lengths
    )


def test_block_list() -> None:
    data = entries(("pc.ram", 0x100000), ("pc.rom", 0x20000)) + zero(0, "pc.rom") + EOS
    events = explore(listing(), data)
    assert isinstance(events[0], RamMemSize)
    assert events[0].total == 0x120000
    assert events[1:3] == [
        RamBlockEntry(idstr="pc.ram", used_length=0x100000),
        RamBlockEntry(idstr="pc.rom", used_length=0x20000),
    ]
    assert explore(listing(), entries() + EOS) == [RamMemSize(word=4), RamEos()]
    # The whole list again, as loadvm of an old file may bring it.
    again = entries(("a", 0x1000))
    assert len(explore(listing(), again + again + EOS)) == 5


def test_wrong_block_lists() -> None:
    head = entries(("a", 0x2000), total=0x3000)
    fails(listing(), head + RamBlockEntry(idstr="b", used_length=0x2000).encode(), "LEG-RAM-012", len(head))
    fails(listing(), head + RamBlockEntry(idstr="a", used_length=0x1000).encode(), "LEG-RAM-013", len(head))
    head = entries(("a", 0x2000))
    again = RamMemSize(word=0x1004).encode()
    fails(
        listing(),
        head + again + RamBlockEntry(idstr="a", used_length=0x1000).encode(),
        "LEG-RAM-013",
        len(head + again),
    )


def test_hostile_block_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    head = RamMemSize(word=1 << 63 | 4).encode()
    huge = RamBlockEntry(idstr="a", used_length=limits.RAM_BLOCK + 4096).encode()
    found = parse(listing(), head + huge)
    assert isinstance(found.error, LimitExceeded)
    monkeypatch.setattr(limits, "RAM_BLOCKS", 2)
    names = [(f"{n}", 0) for n in range(5)]
    found = parse(listing(), entries(*names, total=4096))
    assert isinstance(found.error, LimitExceeded)
    assert found.error.offset == 8 + 2 * 10


HUGE = (1 << 21).to_bytes(8, "big")
ADDRESS = (0x100000000).to_bytes(8, "big")


def test_page_size_of_the_backing_is_seen_in_the_bytes() -> None:
    mixed = (
        RamMemSize(word=0x602000 | 4).encode()
        + RamBlockEntry(idstr="m0", used_length=0x400000, page_size=1 << 21).encode()
        + RamBlockEntry(idstr="r", used_length=0x2000).encode()
        + RamBlockEntry(idstr="m1", used_length=0x200000, page_size=1 << 21).encode()
    )
    for behind in (EOS, RamMultifdFlush().encode() + EOS, zero(0, "r") + EOS):
        events = explore(listing(advised=True), mixed + behind)
        assert [e.page_size for e in events if isinstance(e, RamBlockEntry)] == [1 << 21, None, 1 << 21]
    plain = entries(("m0", 0x1000), ("m1", 0x1000)) + EOS
    assert [e.page_size for e in explore(listing(advised=True), plain) if isinstance(e, RamBlockEntry)] == [
        None,
        None,
    ]


def test_guest_physical_address() -> None:
    for extra in (bytes(8), ADDRESS):
        data = entries(("a", 0x1000), ("b", 0x1000), extra=extra) + EOS
        for parser in (listing("x-ignore-shared"), listing(configured=False)):
            events = explore(parser, data)
            assert [e.gpa for e in events if isinstance(e, RamBlockEntry)] == [
                int.from_bytes(extra, "big")
            ] * 2
    # Both fields, which no source sends.
    data = entries(("a", 0x200000), ("b", 0x200000), extra=HUGE + ADDRESS) + EOS
    events = explore(listing("x-ignore-shared", advised=True), data)
    assert [(e.page_size, e.gpa) for e in events if isinstance(e, RamBlockEntry)] == [(1 << 21, 1 << 32)] * 2
    plain = entries(("a", 0x1000)) + EOS
    assert len(explore(listing(configured=False), plain)) == 3


SIZES = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "records",
    [
        lambda size: page(0, "a", size) + page(size, None, size) + EOS,
        lambda size: zero(0, "a") + zero(size) + page(2 * size, None, size) + zero(0, "b") + EOS,
        lambda size: page(0, "b", size) + EOS,
        lambda size: page(0, "b", size) + RamMultifdFlush().encode() + EOS,
        lambda size: page(0, "b", size) + page(size, "a", size) + EOS,
        lambda size: page(0, "a", size) + xbzrle(size, b"\0\1x") + EOS,
    ],
)
def test_page_size_is_found(size: int, records: Callable[[int], bytes]) -> None:
    events = every_way(reading(None), records(size))
    assert {e.page_size for e in events if isinstance(e, RamPages) and e.normal} == {size}


def test_page_size_stays_unknown_without_a_full_page() -> None:
    data = zero(0, "a") + zero(0x2000) + zero(0x4400) + zero(0, "b") + xbzrle(0x2000, b"\0\1x") + EOS
    events = every_way(reading(None), data)
    assert [e.page_size for e in events if isinstance(e, RamPages)] == [4096, 1024, 4096]
    # Far more of them than are looked at in advance.
    data = zero(0, "a") + b"".join(zero(n % 128 << 13) for n in range(1, 3000)) + page(0, None, 8192) + EOS
    events = every_way(reading(None), data)
    assert sum(e.zero for e in events if isinstance(e, RamPages)) == 3000
    assert [e.page_size for e in events if isinstance(e, RamPages)][-1] == 8192


def test_page_size_is_the_usual_one_in_doubt() -> None:
    # Nothing plausible behind a page of any size: the error is that of 4 KiB pages.
    fails(reading(None), page(0, "a") + b"\xff" * 70000, "LEG-RAM-002", len(page(0, "a")))
    # Both 1 KiB and 2 KiB would do.
    data = bytearray(b"\xff" * 5000)
    for at in (1024, 2048):
        data[at : at + 11] = zero(0, "a")
    start = (8).to_bytes(8, "big") + b"\1a"
    found = parse(reading(None), start + bytes(data))
    assert [e.page_size for e in found.events if isinstance(e, RamPages)] == [4096]
    # An offset that 4 KiB pages cannot have.
    found = parse(reading(None), page(0x400, "a", 1024) + page(0x800, None, 1024) + EOS + FOOTER)
    assert found.error is None
    # Words in guest memory that look like marks, but are not followed as those are.
    tricky = bytearray(page(0, "a", 8192))
    tricky[10 + 4096 : 10 + 4104] = EOS
    events = every_way(reading(None), bytes(tricky) + page(8192, None, 8192) + EOS)
    assert {e.page_size for e in events if isinstance(e, RamPages)} == {8192}
    tricky[10 + 4096 : 10 + 4104] = (0x1010).to_bytes(8, "big")
    events = every_way(reading(None), bytes(tricky) + page(8192, None, 8192) + EOS)
    assert {e.page_size for e in events if isinstance(e, RamPages)} == {8192}


def test_page_size_search_names_no_block() -> None:
    fails(reading(None), page(0), "LEG-RAM-041", 0)
    fails(reading(None), page(0, "zz"), "LEG-RAM-040", 0)


def region(
    *,
    at: int,
    length: int,
    shift: int = 0,
    gap: int = 0,
    bits: bytes = b"\x05",
    wrong: dict[str, int] | None = None,
) -> bytes:
    """Header, bitmap, hole and pages of a block, for a header at offset `at` of the channel."""
    bitmap = at + 28 + gap
    size = (length // 4096 + 63) // 64 * 8
    pages = -(-(bitmap + shift + size) // 0x100000) * 0x100000
    values = {
        "version": 1,
        "page_size": 4096,
        "bitmap_offset": bitmap + shift,
        "pages_offset": pages,
    }
    header = MappedRamHeader(**values | (wrong or {})).encode()
    hole = bytes(pages - shift - bitmap - size)
    content = b"".join(bytes([n + 1]) * 4096 for n in range(length // 4096))
    return header + b"\xee" * gap + bits.ljust(size, b"\0") + hole + content


def mapped(*, base: int = 0, shift: int = 0, gap: int = 0, wrong: dict[str, int] | None = None) -> bytes:
    """A channel with two mapped blocks and one that is not sent; it begins at `base`."""
    data = RamMemSize(word=0x7000 | 4).encode() + RamBlockEntry(idstr="a", used_length=0x3000).encode()
    data += region(at=base + len(data), length=0x3000, shift=shift, wrong=wrong)
    data += RamBlockEntry(idstr="s", used_length=0x2000).encode()
    data += MappedRamHeader(version=1, page_size=4096, bitmap_offset=0, pages_offset=0).encode()
    data += RamBlockEntry(idstr="b", used_length=0x2000).encode()
    data += region(at=base + len(data), length=0x2000, shift=shift, gap=gap, bits=b"\x02")
    return data + EOS


@pytest.mark.parametrize("shift", [0, 0x100000, -0x1000, 77])
@pytest.mark.parametrize("gap", [0, 40])
def test_mapped_ram(shift: int, gap: int) -> None:
    base = 0x1000
    data = mapped(base=base, shift=shift, gap=gap)
    events = parse(listing("mapped-ram", size=None), data + FOOTER, offset=base)
    assert events.error is None
    assert events.left == len(FOOTER)
    assert b"".join(event.encode() for event in events.events) == data
    cut = parse(
        listing("mapped-ram", size=None), data + FOOTER, cuts=range(5000, len(data), 5000), offset=base
    )
    assert joined(cut.events) == joined(events.events)
    for found in (events, cut):
        content = {"a": b"", "b": b""}
        for event in found.events:
            if isinstance(event, MappedRamPages):
                assert event.start == len(content[event.block])
                content[event.block] += event.data
        assert content["a"] == b"".join(bytes([n + 1]) * 4096 for n in range(3))
        assert len(content["b"]) == 0x2000
    bitmaps = [e for e in events.events if isinstance(e, MappedRamBitmap)]
    assert [(e.block, e.pages, list(e.runs()), e.surplus) for e in bitmaps] == [
        ("a", 3, [(0, 1), (2, 3)], False),
        ("b", 2, [(1, 2)], False),
    ]
    for end in (20, 40, 60, 80, 0x1000, len(data) - 0x2000, len(data) - 1):
        short = parse(listing("mapped-ram"), data[:end], offset=base)
        assert isinstance(short.error, TruncatedStream)
        told = b"".join(event.encode() for event in short.events)
        assert data.startswith(told)


@pytest.mark.parametrize(
    ("wrong", "requirement"),
    [
        ({"version": 2}, "LEG-MAP-011"),
        ({"page_size": 8192}, "LEG-MAP-012"),
        ({"page_size": 0}, "LEG-MAP-012"),
        ({"page_size": 4097}, "LEG-MAP-012"),
        ({"bitmap_offset": 0x180000}, "LEG-MAP-013"),
        ({"bitmap_offset": 1 << 63}, "LEG-MAP-013"),
        ({"pages_offset": 0x20}, "LEG-MAP-014"),
        ({"pages_offset": 0x100800}, "LEG-MAP-015"),
    ],
)
def test_wrong_mapped_header(wrong: dict[str, int], requirement: str) -> None:
    data = mapped(wrong=wrong)
    found = parse(listing("mapped-ram"), data)
    assert type(found.error) is RemoteProtocolError
    assert (found.error.requirement, found.error.record) == (requirement, "MappedRamHeader")
    assert data[found.error.offset :].startswith(MappedRamHeader.encode(_header(data)))


def _header(data: bytes) -> MappedRamHeader:
    return MappedRamHeader.decode(memoryview(data)[8 + 10 :])[0]


def test_second_region_may_not_reach_back() -> None:
    head = RamMemSize(word=0x4000 | 4).encode() + RamBlockEntry(idstr="a", used_length=0x2000).encode()
    head += region(at=len(head), length=0x2000)
    head += RamBlockEntry(idstr="b", used_length=0x2000).encode()
    data = head + region(at=len(head), length=0x2000, wrong={"bitmap_offset": len(head)})
    found = parse(listing("mapped-ram"), data)
    assert found.error is not None
    assert (found.error.requirement, found.error.offset) == ("LEG-MAP-013", len(head))


def test_hostile_mapped_length() -> None:
    length = limits.RAM_BLOCK
    head = RamMemSize(word=length | 4).encode() + RamBlockEntry(idstr="a", used_length=length).encode()
    header = MappedRamHeader(version=1, page_size=4096, bitmap_offset=len(head) + 28, pages_offset=1 << 40)
    found = parse(listing("mapped-ram"), head + header.encode() + bytes(100))
    assert isinstance(found.error, LimitExceeded)


def test_bits() -> None:
    assert list(bit_runs(b"\x05\x80\xff", 0, 24)) == [(0, 1), (2, 3), (15, 24)]
    assert list(bit_runs(b"\x05\x80\xff", 1, 17)) == [(2, 3), (15, 17)]
    assert list(bit_runs(b"\xff" * (1 << 17), 3, 1 << 20)) == [(3, 1 << 19), (1 << 19, 1 << 20)]
    assert in_order(bytes(range(16)), "little") == bytes(range(16))
    assert in_order(bytes(range(16)), "big") == bytes([*range(7, -1, -1), *range(15, 7, -1)])
    surplus = [
        MappedRamBitmap(block="a", pages=3, data=bytes([bits]) + bytes(7)).surplus
        for bits in (0b111, 0b1000, 0b1100, 0b100000, 0)
    ]
    assert surplus == [False, True, True, True, False]
    assert list(MappedRamBitmap(block="a", pages=3, data=bytes(7) + b"\5").runs("big")) == [(0, 1), (2, 3)]
