"""Which pages a source sends when, and in which order.

Rule 1: in precopy every page is sent; every `rewritten`-th one goes first with an older content, so that it
has to be sent again.
Rule 2: where postcopy follows, each block is cut into pieces of up to `PIECE` host pages: of three, the first
is sent in precopy as it is, the second with an older content (so it is discarded and sent again), the third
is not sent before the guest runs at the destination. Every way a page can take is taken.
Rule 3: numbers of pages travel as ranges, never one object per page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from qmig._wire import Raw
from qmig.legacy.machine_image import ImageBlock, MachineImage
from qmig.legacy.source_settings import PageOrder, Postcopy, SourceSettings

#: host pages of one piece
PIECE: Final = 16


class PagePlan:
    """The plan for one image. Page numbers count target pages."""

    def __init__(self, image: MachineImage, settings: SourceSettings) -> None:
        self._image = image
        self._settings = settings
        self.page_size = image.page_size

    @property
    def blocks(self) -> tuple[ImageBlock, ...]:
        """The blocks whose pages are sent: all but those that the source of the recording ignored."""
        shared = "x-ignore-shared" in self._image.capabilities
        return tuple(block for block in self._image.blocks if block.sent or not shared)

    def backing(self, block: ImageBlock) -> int:
        """Page size of a block's backing, in bytes."""
        known = self._settings.backing_page_sizes.get(block.idstr) or block.page_size
        return known or self._settings.host_page_size

    def host_page(self, block: ImageBlock) -> int:
        """Target pages of one host page of a block."""
        return max(self.backing(block) // self.page_size, 1)

    def pages(self, block: ImageBlock) -> int:
        """Target pages of a block."""
        return -(-block.used_length // self.page_size)

    def first(self, block: ImageBlock) -> Iterator[range]:
        """What the first pass sends."""
        if self._settings.postcopy is Postcopy.STARTED:
            yield from self._thirds(block, 0, 2)
        else:
            yield range(self.pages(block))

    def again(self, block: ImageBlock) -> Iterator[range]:
        """What the second pass sends, where pages are rewritten."""
        yield range(0, self.pages(block), self._settings.rewritten)

    def pending(self, block: ImageBlock) -> Iterator[range]:
        """What is left for postcopy."""
        yield from self._thirds(block, 1, 2)

    def is_older(self, block: ImageBlock, number: int) -> bool:
        """Whether the first pass sends this page with an older content."""
        if self._settings.postcopy is Postcopy.STARTED:
            return number // self._piece(block) % 3 == 1
        return bool(self._settings.rewritten) and number % self._settings.rewritten == 0

    def _piece(self, block: ImageBlock) -> int:
        """Target pages of one piece: fewer in a block of few host pages, so that all three kinds occur."""
        host = self.host_page(block)
        return host * max(min(PIECE, self.pages(block) // host // 6), 1)

    def _thirds(self, block: ImageBlock, first: int, count: int) -> Iterator[range]:
        """Of each three pieces, `count` from the `first` on."""
        piece = self._piece(block)
        pages = self.pages(block)
        for start in range(first * piece, pages, 3 * piece):
            yield range(start, min(start + count * piece, pages))

    def cut(self, numbers: range, size: int) -> Iterator[Sequence[int]]:
        """A range in pieces of at most `size` bytes of guest memory, each in the order that is set."""
        step = max(size // self.page_size, 1)
        for low in range(0, len(numbers), step):
            yield in_order(numbers[low : low + step], self._settings.page_order)


def in_order(numbers: range, order: PageOrder) -> Sequence[int]:
    """The same numbers, in this order."""
    if order is PageOrder.ASCENDING:
        return numbers
    if order is PageOrder.DESCENDING:
        return numbers[::-1]
    return [*numbers[1::2], *numbers[::2]]


def older(page: Raw) -> bytes:
    """A content that the page may have had before: some bytes inside and the last ones differ."""
    changed = bytearray(page)
    for low, high in ((len(changed) // 4, len(changed) // 4 + 40), (len(changed) - 5, len(changed))):
        changed[low:high] = bytes(value ^ 0x5A for value in changed[low:high])
    return bytes(changed)
