"""Pages that the destination of a postcopy has not got yet, and those it asks for.

Rule 1: what is asked for goes first, in the order of asking; a page that is on its way already is not sent
again, which is how QEMU answers too.
Rule 2: at most `MOST` requests are remembered. Beyond that the return path is not read, so that a destination
cannot make us remember more than we can serve.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from qmig.errors import RemoteProtocolError
from qmig.legacy.machine_image import ImageBlock
from qmig.legacy.mappedram import bit_runs, bitmap_size
from qmig.legacy.pageplan import PagePlan
from qmig.legacy.pageset import Budget, PageSet
from qmig.legacy.returnpath import RpRecvBitmap, RpReqPages, RpReqPagesId

#: requests that wait at the same time; a guest has as many as CPUs, prefetching aside
MOST: Final = 4096


class Pages(NamedTuple):
    """Target pages of one block."""

    block: ImageBlock
    numbers: range


class Pending:
    """What is still to be sent in postcopy. Page numbers count target pages."""

    def __init__(self, plan: PagePlan) -> None:
        self._plan = plan
        self._blocks = {block.idstr: block for block in plan.blocks}
        self._left: dict[str, PageSet] = {}
        self._asked: deque[Pages] = deque()
        self._last: ImageBlock | None = None  # named by the last REQ_PAGES_ID
        self._at = (0, 0)  # background: index of the block, page
        #: host pages that were asked for and had not been sent
        self.served = 0

    def plan(self) -> None:
        """Takes what the plan leaves for postcopy."""
        for block in self._plan.blocks:
            left = self._fresh(block)
            for part in self._plan.pending(block):
                left.add(part.start, len(part))

    def _fresh(self, block: ImageBlock) -> PageSet:
        # What is left is known to lie inside the block, so the block bounds it.
        left = self._left[block.idstr] = PageSet(Budget(1 << 40))
        return left

    def connected(self) -> None:
        """A new connection: nothing was asked for on it yet."""
        self._asked.clear()
        self._last = None
        self._at = (0, 0)

    def __bool__(self) -> bool:
        """Whether any page is left."""
        return any(self._left.values())

    @property
    def asked(self) -> bool:
        """Whether a request waits to be looked at."""
        return bool(self._asked)

    @property
    def full(self) -> bool:
        """Whether no further request is taken."""
        return len(self._asked) >= MOST

    def received(self, message: RpRecvBitmap) -> None:
        """Recovery: what is left of a block is what its bitmap does not show."""
        block = self._blocks.get(message.block)
        if block is None:
            raise _error(message, f"bitmap of unknown RAM block {message.block!a}", "LEG-RPM-040")
        pages = self._plan.pages(block)
        expected = bitmap_size(block.used_length, self._plan.page_size)
        if len(message.bitmap) != expected:
            raise _error(
                message,
                f"bitmap of {len(message.bitmap)} bytes for {block.idstr!a}, {expected} expected",
                "LEG-RPM-045",
            )
        left = self._fresh(block)
        left.add(0, pages)
        host = self._plan.host_page(block)
        for start, stop in bit_runs(message.bitmap, 0, pages):
            # A host page goes as a whole; the end of the block may cut the last one.
            first = -(-start // host) * host
            after = stop if stop == pages else stop // host * host
            if first < after:
                left.discard(first, after - first)

    def ask(self, message: RpReqPagesId | RpReqPages) -> None:
        """Takes a request. Raises `RemoteProtocolError` for one that QEMU's source refuses."""
        if isinstance(message, RpReqPagesId):
            self._last = self._blocks.get(message.block)
            if self._last is None:
                raise _error(message, f"request for unknown RAM block {message.block!a}", "LEG-RPM-035")
        block = self._last
        if block is None:
            raise _error(message, "request before any block was named", "LEG-RPM-034")
        start, length = message.start, message.length
        if start + length > block.used_length:
            raise _error(
                message,
                f"request for {length:#x} bytes at {start:#x} of {block.idstr!a}, which has"
                f" {block.used_length:#x}",
                "LEG-RPM-035",
            )
        size = self._plan.page_size
        if not length or start % size or length % size:
            raise _error(message, f"request for {length:#x} bytes at {start:#x}: no pages", "LEG-RPM-032")
        self._asked.append(Pages(block, range(start // size, (start + length) // size)))

    def urgent(self, most: int) -> Pages | None:
        """The next pages that were asked for and are left, at most `most` bytes or one host page of them."""
        while self._asked:
            block, numbers = self._asked[0]
            found = self._take(block, numbers.start, numbers.stop, most)
            if found is not None:
                self._asked[0] = Pages(block, range(found.numbers.stop, numbers.stop))
                self.served += -(-len(found.numbers) // self._plan.host_page(block))
                return found
            self._asked.popleft()
        return None

    def background(self, most: int) -> Pages | None:
        """The next pages that are left, in order; None: all were taken."""
        index, page = self._at
        for block in self._plan.blocks[index:]:
            found = self._take(block, page, self._plan.pages(block), most)
            if found is not None:
                self._at = (index, found.numbers.stop)
                return found
            index, page = index + 1, 0
        self._at = (index, 0)
        return None

    def _take(self, block: ImageBlock, start: int, stop: int, most: int) -> Pages | None:
        """The first pages that are left between two; they are not left any more."""
        left = self._left.get(block.idstr)
        host = self._plan.host_page(block)
        run = left.next_run(start // host * host, -(-stop // host) * host) if left is not None else None
        if left is None or run is None:
            return None
        first, count = run
        allowed = max(most // (host * self._plan.page_size), 1) * host
        # A run ends where a piece of the set does; a host page does not.
        whole = min(max(count, host), allowed)
        whole = min(whole, self._plan.pages(block) - first)
        left.discard(first, whole)
        return Pages(block, range(first, first + whole))


def _error(message: RpRecvBitmap | RpReqPages | RpReqPagesId, why: str, rule: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        why, requirement=rule, offset=message.offset, record=type(message).__name__, channel="rp"
    )
