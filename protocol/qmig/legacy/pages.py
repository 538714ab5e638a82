"""Finds runs of page records without touching Python once per page.

Rule 1: one regular expression per (block length, page size) accepts exactly the words
of valid addresses of that block with flags PAGE|CONTINUE or ZERO|CONTINUE, and steps
over the payload. What it does not accept goes to the scalar path in `ramwalk`, which
knows the reason. `test_ram_pages.py` holds it to the construct declaration.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Final

#: (PAGE run)(ZERO run) pairs found by one match: more pairs, fewer calls
PAIRS: Final = 4
_GROUPS: Final = tuple(range(1, 2 * PAIRS + 1))


def _one_of(low: int, high: int, step: int = 1) -> bytes:
    values = range(low, high + 1, step)
    return b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]" if values else b"(?!)"


def _address(last: int, page_size: int) -> bytes:
    """Accepts the upper 7 bytes of every page-aligned word up to `last`."""
    step = max(page_size >> 8, 1)
    top = last.to_bytes(8, "big")

    def from_byte(index: int) -> bytes:
        if index == 6:
            return _one_of(0, top[6], step)
        tail = b"." * (5 - index) + _one_of(0, 255, step)
        exact = b"\\x%02x" % top[index] + from_byte(index + 1)
        if not top[index]:
            return exact
        return b"(?:" + _one_of(0, top[index] - 1) + tail + b"|" + exact + b")"

    return from_byte(0)


@functools.lru_cache(maxsize=64)
def matcher(used_length: int, page_size: int) -> Callable[[memoryview, int, int], re.Match[bytes] | None]:
    """Matches PAIRS × (run of PAGE records, run of ZERO records) at a position."""
    if used_length < page_size:
        return re.compile(b"()" * (2 * PAIRS)).match
    head = _address(used_length - page_size, page_size)
    page = b"((?:" + head + b"\\x28" + b".{%d}" % page_size + b")*+)"
    zero = b"((?:" + head + b"\\x22.)*+)"
    return re.compile((page + zero) * PAIRS, re.DOTALL).match


def scan(
    view: memoryview, at: int, end: int, used_length: int, page_size: int, kinds: bytearray, counts: list[int]
) -> int:
    """Appends the runs found from `at` on to `kinds`, `counts`; returns where they end.

    Only whole records below `end` count; a run's kind is 1 for PAGE, 0 for ZERO."""
    match = matcher(used_length, page_size)
    strides = (8 + page_size, 9)
    while (found := match(view, at, end)) is not None and found.end() > at:
        for group in _GROUPS:
            stop = found.end(group)
            if stop > at:
                kinds.append(group & 1)
                counts.append((stop - at) // strides[1 - (group & 1)])
                at = stop
    return at
