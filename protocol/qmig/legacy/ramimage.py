"""Rebuilds RAM from the events of one migration.

Rule 1: the last version of a page wins; the caller gives events in an order in which
that is true (a session does).
Rule 2: memory begins zeroed, so a zero page is written only where something else was:
sparse files stay sparse.
Rule 3: POSTCOPY_RAM_DISCARD erases nothing. It says that a page is out of date and will
come again; if the recording ends before, the old content is the best there is, and
`BlockImage.stale` says so.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from qmig._wire import Raw, Record
from qmig.errors import LocalProtocolError, localised
from qmig.legacy import xbzrle
from qmig.legacy.commands import PostcopyRamDiscard
from qmig.legacy.mappedram import MappedRamBitmap, MappedRamHeader, MappedRamPages, bit_runs, in_order
from qmig.legacy.pageset import Budget, PageSet
from qmig.legacy.ram import RamBlockEntry, RamDeltas, RamFlag, RamPages
from qmig.legacy.ramstore import BufferStore, Gather, RamStore

#: what memory may be: a writable buffer (of an `mmap`, its memoryview), or somebody's store
Memory: TypeAlias = "bytearray | memoryview | RamStore"
#: (idstr, length in bytes) -> zeroed memory of at least that length, None if it is not wanted
OpenBlock: TypeAlias = "Callable[[str, int], Memory | None]"

#: rounds that are told apart; further ones are counted with the last
MAX_ROUNDS: Final = 4096
#: what is counted, per block and per round
KINDS: Final = ("normal", "zero", "xbzrle", "compressed", "mapped", "multifd_normal", "multifd_zero")


class Counts:
    """Pages by the way they came. `filled` are those of `zero` whose byte was not 0."""

    __slots__ = ("filled", *KINDS)

    def __init__(self) -> None:
        self.normal = self.zero = self.xbzrle = self.compressed = self.mapped = 0
        self.multifd_normal = self.multifd_zero = self.filled = 0

    @property
    def total(self) -> int:
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        return {kind: getattr(self, kind) for kind in KINDS}


class BlockImage:
    """One RAM block: its memory, and what is known of its pages. Lengths are in bytes."""

    def __init__(self, idstr: str, length: int, index: int, store: RamStore | None) -> None:
        self.idstr = idstr
        self.length = length
        self.index = index  # in the block list
        self.store = store
        self.page_size: int | None = None
        self.counts = Counts()
        self.rounds: dict[int, Counts] = {}
        self.discarded = 0  # pages that had come when POSTCOPY_RAM_DISCARD named them
        budget = Budget()
        self.sent = PageSet(budget)
        self.stale = PageSet(budget)  # discarded and not sent again
        self.written = PageSet(Budget(1 << 40))  # may hold something else than zeros
        self.bitmap = b""

    @property
    def pages(self) -> int | None:
        """Target pages; None until the page size is known."""
        return None if self.page_size is None else -(-self.length // self.page_size)

    @property
    def never_sent(self) -> int | None:
        """Pages that never came; None if no page came at all, or too many scattered ones to tell."""
        return None if self.pages is None or self.sent.exceeded else self.pages - self.sent.count()

    def note(self, first: int, pages: int, page_size: int) -> None:
        """Pages came. Page numbers here, not bytes."""
        self.page_size = page_size
        self.sent.add(first, pages)
        if self.stale:
            self.stale.discard(first, pages)

    def count(self, kind: str, number: int, turn: int) -> None:
        """Counts pages of one kind, in all and for one round."""
        if turn not in self.rounds and len(self.rounds) >= MAX_ROUNDS:
            turn = next(reversed(self.rounds))
        for counts in (self.counts, self.rounds.setdefault(turn, Counts())):
            setattr(counts, kind, getattr(counts, kind) + number)

    def zero(self, address: int, page_size: int) -> None:
        """One page becomes zero; memory that still is, is left alone."""
        page = address // page_size
        self.note(page, 1, page_size)
        if self.store is not None and self.written.touches(page, 1):
            self.store.write(address, [bytes(min(page_size, self.length - address))])
            self.written.discard(page, 1)

    def put(self, address: int, page: Raw) -> None:
        """One page becomes this."""
        size = len(page)
        self.note(address // size, 1, size)
        if self.store is not None:
            self.written.add(address // size, 1)
            self.store.write(address, [page[: self.length - address]])

    def put_batch(self, batch: RamPages) -> None:
        """All pages of a batch."""
        size = batch.page_size
        data = memoryview(batch.data)
        first, last, _, _ = batch.ascents[0]
        span = first // size, (last - first) // size + 1
        once = batch.consecutive  # each page once: what is asked of every run can be asked once
        if once:
            self.note(*span, size)
        clean = once and not self.written.touches(*span)
        gather = Gather(self.store, self.length, size, self.written)
        strides = [batch.stride(kind) for kind in range(4)]
        for kind, address, pages, at in batch.runs(gather.stretch if clean and self.store else None):
            stride = strides[kind]
            end = at + stride * pages
            if not once:
                self.note(address // size, pages, size)
            if kind & 1:
                if not once:  # a later record may take it back before it is written
                    self.written.add(address // size, pages)
                head = stride - size
                gather.data(address, [data[low + head : low + stride] for low in range(at, end, stride)])
                continue
            fills = bytes(data[at + stride - 1 : end : stride])
            if fills.count(0) == pages and (clean or not self.written.touches(address // size, pages)):
                gather.zeros(address, pages)
            else:
                gather.flush()
                self._fill(address, fills, size)
        gather.flush()

    def _fill(self, address: int, fills: bytes, page_size: int) -> None:
        """Consecutive pages, each of one repeated byte."""
        self.counts.filled += len(fills) - fills.count(0)
        for fill in fills:
            if fill:
                self.put(address, bytes([fill]) * page_size)
            else:
                self.zero(address, page_size)
            address += page_size

    def get(self, address: int, page_size: int) -> bytes:
        """The present content of one page; zeros where nothing is kept."""
        if self.store is None:
            return bytes(page_size)
        return self.store.read(address, min(page_size, self.length - address)).ljust(page_size, b"\0")


class RamImage:
    """RAM blocks, rebuilt from the events of all channels of one migration.

    `open_block` supplies the memory when a block is listed. `byteorder` is the source host's,
    which mapped-ram bitmaps depend on and do not tell."""

    def __init__(self, open_block: OpenBlock, *, byteorder: str = "little") -> None:
        self.blocks: dict[str, BlockImage] = {}
        self.byteorder = byteorder
        self._open = open_block
        self._rounds: dict[str, tuple[int, tuple[int, int]]] = {}  # channel -> round, last position
        self._mapped_page_size = 0
        self._handlers: dict[type[Record], Callable[..., None]] = {
            RamBlockEntry: self._listed,
            RamPages: self._pages,
            RamDeltas: self._deltas,
            MappedRamHeader: self._mapped_header,
            MappedRamBitmap: self._bitmap,
            MappedRamPages: self._mapped_pages,
            PostcopyRamDiscard: self._discard,
        }

    def apply(self, event: Record, channel: str = "main") -> None:
        """Takes one event. `channel` tells the scans apart that rounds are counted in.

        Raises `RemoteProtocolError` for a delta or a compressed page that does not decode,
        `LocalProtocolError` for a block that was not listed or memory that is too short."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event, channel)

    def block(self, idstr: str) -> BlockImage:
        found = self.blocks.get(idstr)
        if found is None:
            raise LocalProtocolError(f"RAM block {idstr!a} was not listed", requirement="LEG-RAM-040")
        return found

    def apply_pages(self, block: str, offsets: Iterable[int], data: Raw, *, turn: int = 0) -> None:
        """Pages of a multifd packet: their offsets in bytes, their contents one after another.

        `turn` is the round they belong to. Raises `LocalProtocolError` if the contents are not
        as many pages as there are offsets, or an offset is outside the block."""
        image = self.block(block)
        places = list(offsets)
        size = len(data) // len(places) if places else 0
        view = memoryview(data)
        if size * len(places) != len(data) or (places and not size):
            raise LocalProtocolError(f"{len(data)} bytes for {len(places)} pages", requirement="LEG-RAM-031")
        gather = Gather(image.store, image.length, size, image.written)
        at = 0
        for address, pages in _runs(image, places, size):
            image.note(address // size, pages, size)
            end = at + pages * size
            gather.data(address, [view[low : low + size] for low in range(at, end, size)])
            at = end
        gather.flush()
        image.count("multifd_normal", len(places), turn)

    def apply_zero(self, block: str, offsets: Iterable[int], page_size: int, *, turn: int = 0) -> None:
        """Zero pages of a multifd packet, by their offsets in bytes."""
        image = self.block(block)
        places = list(offsets)
        for first, pages in _runs(image, places, page_size):
            if image.written.touches(first // page_size, pages):
                for address in range(first, first + pages * page_size, page_size):
                    image.zero(address, page_size)
            else:
                image.note(first // page_size, pages, page_size)
        image.count("multifd_zero", len(places), turn)

    def turn(self, channel: str, image: BlockImage, first: int, last: int) -> int:
        """The round of pages that ascend from offset `first` to `last`: one more than before if the
        scan did not move forward. Blocks are scanned in the order of the list."""
        number, position = self._rounds.get(channel, (1, (-1, 0)))
        if (image.index, first) <= position:
            number += 1
        self._rounds[channel] = number, (image.index, last)
        return number

    def _listed(self, event: RamBlockEntry, channel: str) -> None:
        length = event.used_length
        if event.idstr in self.blocks:
            return  # a list that comes again, which receivers take if nothing changed
        memory = self._open(event.idstr, length)
        self.blocks[event.idstr] = BlockImage(event.idstr, length, len(self.blocks), _store(memory, length))

    def _pages(self, event: RamPages, channel: str) -> None:
        image = self.block(event.block)
        for ascent in event.ascents:
            turn = self.turn(channel, image, ascent.first, ascent.last)
            image.count("normal", ascent.normal, turn)
            image.count("zero", ascent.zero, turn)
        image.put_batch(event)

    def _deltas(self, event: RamDeltas, channel: str) -> None:
        image = self.block(event.block)
        for ascent in event.ascents():
            turn = self.turn(channel, image, ascent.first, ascent.last)
            image.count("xbzrle", ascent.normal, turn)
            image.count("compressed", ascent.zero, turn)
        for start, delta in zip(event.starts, event.records(), strict=True):
            try:
                page = _page(image, delta.kind, delta.address, delta.payload, event.page_size)
            except LocalProtocolError as error:
                name = "RamXbzrlePage" if delta.kind is RamFlag.XBZRLE else "RamCompressedPage"
                raise localised(error, offset=event.offset + start, record=name) from None
            image.put(delta.address, page)

    def _mapped_header(self, event: MappedRamHeader, channel: str) -> None:
        self._mapped_page_size = event.page_size

    def _bitmap(self, event: MappedRamBitmap, channel: str) -> None:
        image = self.block(event.block)
        image.bitmap = in_order(event.data, self.byteorder)
        image.note(0, event.pages, self._mapped_page_size)
        present = sum(stop - start for start, stop in bit_runs(image.bitmap, 0, event.pages))
        image.count("mapped", present, 1)

    def _mapped_pages(self, event: MappedRamPages, channel: str) -> None:
        image = self.block(event.block)
        size, start = event.page_size, event.start
        data = memoryview(event.data)
        stop = start + len(data)
        if image.store is None:
            return
        for first, after in bit_runs(image.bitmap, start // size, -(-stop // size)):
            low, high = max(first * size, start), min(after * size, stop)
            image.store.write(low, [data[low - start : high - start]])
            image.written.add(first, after - first)

    def _discard(self, event: PostcopyRamDiscard, channel: str) -> None:
        image = self.block(event.block)
        size = image.page_size
        if size is None:
            return
        for start, length in event.ranges:
            first, after = start // size, min(start + length + size - 1, image.length + size - 1) // size
            if first < after:
                image.discarded += image.sent.copy_to(image.stale, first, after - first)


def _page(image: BlockImage, kind: RamFlag, address: int, payload: memoryview, page_size: int) -> Raw:
    """The new content of a page that came encoded."""
    if kind is RamFlag.XBZRLE:
        return memoryview(xbzrle.decode(image.get(address, page_size), payload))
    inflate = zlib.decompressobj()
    try:
        page = inflate.decompress(payload, page_size + 1)
    except zlib.error as problem:
        raise LocalProtocolError(f"zlib: {problem}", requirement="LEG-RAM-037") from None
    if len(page) != page_size or not inflate.eof:
        raise LocalProtocolError(
            f"{len(page)} bytes inflated, expected a page of {page_size}", requirement="LEG-RAM-037"
        )
    return page


def _runs(image: BlockImage, places: list[int], size: int) -> Iterator[tuple[int, int]]:
    """Offsets of pages as (offset, pages that follow one another). Raises `LocalProtocolError` for one out of
    the block."""
    breaks = [at for at, (one, next_) in enumerate(itertools.pairwise(places), 1) if next_ - one != size]
    for low, high in itertools.pairwise([0, *breaks, len(places)] if places else []):
        _inside(image, places[low])
        _inside(image, places[high - 1])
        yield places[low], high - low


def _inside(image: BlockImage, address: int) -> None:
    if not 0 <= address < image.length:
        raise LocalProtocolError(
            f"offset {address:#x} is outside {image.idstr!a} ({image.length:#x} bytes)",
            requirement="LEG-RAM-042",
        )


def _store(memory: Memory | None, length: int) -> RamStore | None:
    if not isinstance(memory, bytearray | memoryview):
        return memory
    view = memoryview(memory).cast("B")
    if len(view) < length:
        raise LocalProtocolError(
            f"{len(view)} bytes of memory for a block of {length}", requirement=RamBlockEntry.requirement
        )
    return BufferStore(view)
