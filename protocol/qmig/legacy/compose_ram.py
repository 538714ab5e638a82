"""RAM the other way: content of pages to the records and packets that carry it.

Rule 1: what is composed at one time is a batch of pages of one block: one event for main, packets of up to
128 pages for multifd channels. The pages' bytes are joined once; there is no object that outlives a batch.
Rule 2: the first record of a channel, and of each block on it, names the block; the others say CONTINUE.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from qmig._wire import Raw, Record
from qmig.legacy import xbzrle
from qmig.legacy.deflate import open_packer
from qmig.legacy.machine_image import ImageBlock, MachineImage
from qmig.legacy.multifd import PACKET_PAGES_SIZE, MultifdFlag, MultifdHello, MultifdPacket
from qmig.legacy.pageplan import older
from qmig.legacy.pages import Ascent
from qmig.legacy.ram import RamDeltas, RamFlag, RamPages, raw_name
from qmig.legacy.source_settings import COMPRESSIONS, SourceSettings, ZeroPages

#: (channel, event)
Event = tuple[str, Record]
#: a page's bytes; None: it is zero
Content = bytes | None

_PAGE = int(RamFlag.PAGE | RamFlag.CONTINUE)
_ZERO = int(RamFlag.ZERO | RamFlag.CONTINUE)


def contents(block: ImageBlock, numbers: Sequence[int], page_size: int) -> list[Content]:
    """What is in these pages."""
    zero = bytes(page_size)
    low, high = min(numbers), max(numbers) + 1
    if high - low <= 2 * len(numbers):  # one read for all
        data = block.read(low * page_size, (high - low) * page_size)
        pages = [data[(n - low) * page_size : (n - low + 1) * page_size] for n in numbers]
    else:
        pages = [block.read(n * page_size, page_size) for n in numbers]
    return [None if page == zero else page for page in pages]


def page_records(
    idstr: str, page_size: int, numbers: Sequence[int], pages: Sequence[Content], *, named: bool
) -> RamPages:
    """PAGE and ZERO records for these pages, at least one; with `named` the first names the block."""
    pieces: list[Raw] = []
    for number, page in zip(numbers, pages, strict=True):
        word = number * page_size | (_ZERO if page is None else _PAGE)
        pieces.append(word.to_bytes(8, "big"))
        pieces.append(b"\0" if page is None else page)
    if named:
        name = raw_name(idstr)
        word = int.from_bytes(pieces[0], "big") & ~int(RamFlag.CONTINUE)
        pieces[0] = word.to_bytes(8, "big") + bytes([len(name)]) + name
    ascents = tuple(_ascents(page_size, numbers, pages))
    return RamPages(block=idstr, page_size=page_size, ascents=ascents, data=b"".join(pieces))


def _ascents(page_size: int, numbers: Sequence[int], pages: Sequence[Content]) -> Iterator[Ascent]:
    start = 0
    turns = [i for i in range(1, len(numbers)) if numbers[i] <= numbers[i - 1]]
    if isinstance(numbers, range) and numbers.step > 0:
        turns = []
    for stop in (*turns, len(numbers)):
        zero = pages[start:stop].count(None)
        yield Ascent(numbers[start] * page_size, numbers[stop - 1] * page_size, stop - start - zero, zero)
        start = stop


def _delta(delta: bytes) -> bytes:
    return b"\x01" + len(delta).to_bytes(2, "big") + delta


def _deflated(page: bytes) -> bytes:
    stream = zlib.compress(page, 1)
    return len(stream).to_bytes(4, "big") + stream


class PageWriter:
    """Page records of one channel, which remembers the block that was named last."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._last: str | None = None

    def pages(
        self, block: ImageBlock, numbers: Sequence[int], pages: Sequence[Content]
    ) -> Iterator[RamPages]:
        """One event, or none for no pages."""
        if numbers:
            yield page_records(block.idstr, self._page_size, numbers, pages, named=self._named(block))

    def compressed(
        self, block: ImageBlock, numbers: Sequence[int], pages: Sequence[Content]
    ) -> Iterator[RamDeltas]:
        """COMPRESS_PAGE records, one event, for pages that are not zero."""
        records = [
            (number, RamFlag.COMPRESS_PAGE, _deflated(page))
            for number, page in zip(numbers, pages, strict=True)
            if page is not None
        ]
        yield from self._encoded(block, records)

    def deltas(self, block: ImageBlock, deltas: Iterable[tuple[int, bytes]]) -> Iterator[RamDeltas]:
        """XBZRLE records for (page number, difference): one event, or none."""
        yield from self._encoded(block, [(n, RamFlag.XBZRLE, _delta(delta)) for n, delta in deltas])

    def _encoded(
        self, block: ImageBlock, records: Iterable[tuple[int, RamFlag, bytes]]
    ) -> Iterator[RamDeltas]:
        pieces: list[bytes] = []
        starts: list[int] = []
        at = 0
        for number, flag, tail in records:
            named = self._named(block)
            word = number * self._page_size | flag | (0 if named else RamFlag.CONTINUE)
            name = raw_name(block.idstr)
            head = word.to_bytes(8, "big") + (bytes([len(name)]) + name if named else b"")
            starts.append(at)
            pieces += (head, tail)
            at += len(head) + len(tail)
        if pieces:
            yield RamDeltas(
                block=block.idstr, page_size=self._page_size, starts=tuple(starts), data=b"".join(pieces)
            )

    def _named(self, block: ImageBlock) -> bool:
        before, self._last = self._last, block.idstr
        return before != block.idstr


class MultifdWriter:
    """All multifd channels of one migration: packets in turn, and their sync points."""

    def __init__(self, image: MachineImage, settings: SourceSettings) -> None:
        self.channels = settings.multifd_channels
        self._settings = settings
        self._uuid = settings.uuid or image.uuid
        self._page_size = image.page_size
        self._room = PACKET_PAGES_SIZE // image.page_size
        self._method = int(COMPRESSIONS[settings.multifd_compression])
        self._packers = [open_packer(self._method, settings.multifd_level) for _ in range(self.channels)]
        self._stale = [0] * self.channels  # next_packet_size of the last packet with pages
        self._number = 0
        self._turn = 0

    def name(self, number: int) -> str:
        """The channel's name in a story."""
        return f"multifd-{number}"

    def hello(self, number: int) -> Event:
        """What opens a channel."""
        unused = {"unused1": bytes(7), "unused2": bytes(32)}
        return self.name(number), MultifdHello(uuid=self._uuid, id=number, **unused)

    def pages(self, block: ImageBlock, numbers: Sequence[int], pages: Sequence[Content]) -> Iterator[Event]:
        """Packets with these pages. Zero pages are left out unless packets carry them."""
        mode = self._settings.zero_page_detection
        for low in range(0, len(numbers), self._room):
            part = list(zip(numbers[low : low + self._room], pages[low : low + self._room], strict=True))
            normal = [(n, page) for n, page in part if page is not None]
            zero = [n for n, page in part if page is None]
            if mode is ZeroPages.NONE:
                filled = bytes(self._page_size)
                normal, zero = [(n, page or filled) for n, page in part], []
            elif mode is ZeroPages.LEGACY:
                zero = []
            if normal or zero:
                yield self._packet(block, normal, zero)

    def _packet(self, block: ImageBlock, normal: list[tuple[int, bytes]], zero: list[int]) -> Event:
        number, self._turn = self._turn, (self._turn + 1) % self.channels
        payload = self._packers[number].pack([page for _, page in normal]) if normal else b""
        if normal:
            self._stale[number] = len(payload)
        offsets = struct.pack(
            f">{len(normal) + len(zero)}Q",
            *[n * self._page_size for n, _ in normal],
            *[n * self._page_size for n in zero],
        )
        return self._made(
            number,
            flags=self._method,
            pages_alloc=self._room,
            normal_pages=len(normal),
            zero_pages=len(zero),
            next_packet_size=len(payload),
            ramblock=raw_name(block.idstr).ljust(256, b"\0"),
            offsets=offsets.ljust(8 * self._room, b"\0"),
            payload=payload,
        )

    def sync(self) -> Iterator[Event]:
        """One SYNC packet on every channel."""
        stale = self._settings.stale_packets
        for number in range(self.channels):
            yield self._made(
                number,
                flags=int(MultifdFlag.SYNC),
                pages_alloc=self._room if stale else 0,
                normal_pages=0,
                zero_pages=0,
                next_packet_size=self._stale[number] if stale else 0,
                ramblock=bytes(256),
                offsets=bytes(8 * self._room),
                payload=b"",
            )

    def _made(self, number: int, **values: object) -> Event:
        packet = MultifdPacket(packet_num=self._number, unused=bytes(28), page_size=self._page_size, **values)  # type: ignore[arg-type]
        self._number += 1
        return self.name(number), packet


def split_rewritten(
    numbers: Sequence[int], pages: Sequence[Content]
) -> tuple[list[tuple[int, bytes]], list[int], list[Content]]:
    """Pages that are sent again: differences to what was sent first, and the pages (numbers and contents)
    that go as a whole, because they became zero or a difference would not be shorter."""
    deltas: list[tuple[int, bytes]] = []
    rest: list[int] = []
    whole: list[Content] = []
    for number, page in zip(numbers, pages, strict=True):
        delta = None if page is None else xbzrle.encode(older(page), page)
        if delta is None:
            rest.append(number)
            whole.append(page)
        else:
            deltas.append((number, delta))
    return deltas, rest, whole
