"""Arithmetic progressions of words, as one number.

The words of consecutive page records of one kind go up by the page size. Written one behind the other they
are the digits of one long number, which two operations on long numbers make, and one compares. That costs a
few nanoseconds for a page.
"""

from __future__ import annotations

import functools
import sys
from array import array
from typing import Final, Literal, TypeAlias

#: numbers handled at once: long enough for the calls not to count, short enough to stay in the cache
MOST: Final = 512

Order: TypeAlias = Literal["big", "little"]


@functools.lru_cache(maxsize=64)
def _digits(step: int, size: int, count: int, order: Order) -> tuple[int, int]:
    """1, 1, 1… and 0, step, 2 * step… as digits of `size` bytes."""
    ones = (1).to_bytes(size, order) * count
    ramp = b"".join([(number * step).to_bytes(size, order) for number in range(count)])
    return int.from_bytes(ones, order), int.from_bytes(ramp, order)


def following(raw: bytes, size: int, first: int, step: int) -> int:
    """How many of the big-endian numbers of `size` bytes that `raw` consists of are, from its start on,
    first, first + step, first + 2 * step…"""
    count = len(raw) // size
    ones, ramp = _digits(step, size, count, "big")
    different = int.from_bytes(raw, "big") ^ (first * ones + ramp)
    return count + -different.bit_length() // (8 * size)


def numbers(first: int, step: int, count: int) -> array[int]:
    """first, first + step, first + 2 * step…"""
    found = array("Q")
    ones, ramp = _digits(step, 8, MOST, sys.byteorder)
    whole = first + count // MOST * MOST * step
    for start in range(first, whole, MOST * step):
        found.frombytes((start * ones + ramp).to_bytes(8 * MOST, sys.byteorder))
    found.extend(range(whole, first + count * step, step))
    return found
