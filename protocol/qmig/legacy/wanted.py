"""Postcopy: which pages have still to come, what is asked for, what a recovery is told.

Rule 1: wanted is what never came and what POSTCOPY_RAM_DISCARD took back (LEG-PCP-031).
Rule 2: whole host pages are asked for, each once per connection, a bounded number at a time (LEG-RPM-032).
What was asked for and has not come is asked for again behind a recovery (LEG-RPM-036).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from qmig._wire import Record
from qmig.legacy.pageset import Budget, PageSet
from qmig.legacy.ram import RamDeltas, RamPages

if TYPE_CHECKING:
    from qmig.legacy.ramimage import BlockImage

#: bits of a received-pages bitmap come in such words
_WORD: Final = 64


class Request(NamedTuple):
    """One host page: offset and length in bytes."""

    block: str
    start: int
    length: int


class _Block:
    """The wanted pages of one block, in target pages."""

    def __init__(self, length: int, page_size: int, host_page: int, budget: Budget) -> None:
        self.length = length
        self.host_page = max(host_page, page_size)
        self.per_host = self.host_page // page_size
        self.pages = -(-length // page_size)
        self.wanted = PageSet(budget)
        self.wanted.add(0, self.pages)

    def hosts(self) -> Iterator[int]:
        """First target pages of the wanted host pages, upwards; those that come meanwhile are left out."""
        done = 0
        for first, count in self.wanted.ranges():
            low = max(first // self.per_host * self.per_host, done)
            for host in range(low, first + count, self.per_host):
                done = host + self.per_host
                if self.wanted.touches(host, self.per_host):
                    yield host


class WantedPages:
    """The pages that a postcopy still waits for; `left` of them, in target pages."""

    def __init__(
        self,
        images: Mapping[str, BlockImage],
        host_pages: Mapping[str, int],
        page_size: int,
    ) -> None:
        """Sizes in bytes; `host_pages` are those of the blocks' backing, multiples of `page_size`."""
        budget = Budget()
        self.page_size = page_size
        #: whether there is more memory than whose pages are told apart
        self.exceeded = False
        self.left = 0
        self._blocks: dict[str, _Block] = {}
        for name, image in images.items():
            block = _Block(image.length, page_size, host_pages[name], budget)
            block.wanted.subtract(image.sent)
            image.stale.copy_to(block.wanted, 0, block.pages)
            self.exceeded |= budget.exceeded or image.sent.exceeded
            self.left += block.wanted.count()
            self._blocks[name] = block
        self._asked: dict[tuple[str, int], None] = {}  # in the order of asking
        self._scan = self._hosts()
        self._more = True

    def take(self, event: Record) -> int:
        """Pages of an event of the story have come; how many of them were there already."""
        if isinstance(event, RamPages):
            return self._arrive(event.block, _runs(event))
        if isinstance(event, RamDeltas):
            runs = ((delta.address // self.page_size, 1) for delta in event.records())
            return self._arrive(event.block, runs)
        return 0

    def _arrive(self, name: str, runs: Iterable[tuple[int, int]]) -> int:
        block = self._blocks[name]
        again = 0
        for first, count in runs:
            came = block.wanted.discard(first, count)
            self.left -= came
            again += count - came
        answered = [
            (asked, host)
            for asked, host in self._asked
            if asked == name and not block.wanted.touches(host, block.per_host)
        ]
        for key in answered:
            del self._asked[key]
        return again

    def ask(self, in_flight: int) -> Iterator[Request]:
        """Further host pages to ask for, so that at most `in_flight` are under way."""
        while self._more and len(self._asked) < in_flight:
            found = next(self._scan, None)
            if found is None:
                self._more = False
                return
            self._asked[found] = None
            yield self._request(*found)

    def again(self) -> Iterator[Request]:
        """What was asked for and has not come."""
        for name, host in self._asked:
            yield self._request(name, host)

    def bitmap(self, name: str) -> bytes:
        """Which target pages of the block have come, host pages that have come in part left out."""
        block = self._blocks[name]
        absent = block.wanted
        if block.per_host > 1:
            absent = PageSet(Budget(block.pages))
            for host in block.hosts():
                absent.add(host, min(block.per_host, block.pages - host))
        there = PageSet(Budget(block.pages))
        there.add(0, block.pages)
        there.subtract(absent)
        words = -(-block.pages // _WORD)
        return there.bitmap(block.pages).ljust(words * (_WORD // 8), b"\0")

    def summary(self) -> str:
        """The blocks with wanted pages and how many, for a message."""
        counts = ((name, block.wanted.count()) for name, block in self._blocks.items())
        return ", ".join(f"{count} of {name!a}" for name, count in counts if count)

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def _request(self, name: str, host: int) -> Request:
        block, start = self._blocks[name], host * self.page_size
        return Request(name, start, min(block.host_page, block.length - start))

    def _hosts(self) -> Iterator[tuple[str, int]]:
        for name, block in self._blocks.items():
            for host in block.hosts():
                yield name, host


def _runs(event: RamPages) -> Iterator[tuple[int, int]]:
    """The pages of a batch as (first, count)."""
    size = event.page_size
    if event.consecutive:
        first, last, _, _ = event.ascents[0]
        yield first // size, (last - first) // size + 1
    else:
        for _, address, pages, _ in event.runs():
            yield address // size, pages
