"""Arithmetic progressions of words, as one number.

The words of consecutive page records of one kind go up by the page size. Written one behind the other they
are the digits of one long number, which two operations on long numbers make, and one compares. That costs a
few nanoseconds for a page.
"""

from __future__ import annotations

import functools
import sys
from array import array
from typing import Final

#: words compared at once: long enough for the calls not to count, short enough to stay in the cache
MOST: Final = 512

#: numbers with the same upper bytes
_SPAN: Final = 1 << 24


@functools.lru_cache(maxsize=64)
def _digits(step: int, size: int, count: int) -> tuple[int, int]:
    """1, 1, 1… and 0, step, 2 * step… as digits of `size` bytes."""
    ones = (1).to_bytes(size, "big") * count
    ramp = b"".join([(number * step).to_bytes(size, "big") for number in range(count)])
    return int.from_bytes(ones, "big"), int.from_bytes(ramp, "big")


def following(raw: bytes, size: int, first: int, step: int) -> int:
    """How many of the big-endian numbers of `size` bytes that `raw` consists of are, from its start on,
    first, first + step, first + 2 * step…"""
    count = len(raw) // size
    ones, ramp = _digits(step, size, count)
    different = int.from_bytes(raw, "big") ^ (first * ones + ramp)
    return count + -different.bit_length() // (8 * size)


@functools.lru_cache(maxsize=8)
def _low_bytes(step: int) -> bytes:
    """0, step, 2 * step… below 2^24, as native numbers of 8 bytes."""
    return array("Q", range(0, _SPAN, step)).tobytes()


def numbers(first: int, step: int, count: int) -> array[int]:
    """first, first + step, first + 2 * step… where `step` is a power of two up to 2^24 that divides `first`.

    The lower three bytes are the same for every 2^24, and the others the same within: so a block of numbers
    is the one before with a byte or two changed everywhere."""
    found = array("Q")
    block = bytearray(_low_bytes(step))
    many = _SPAN // step
    upper = bytes(5)
    behind = first + count * step
    for base in range(first // _SPAN * _SPAN, behind, _SPAN):
        before, upper = upper, (base // _SPAN).to_bytes(5, "little")
        for place in range(5):
            if upper[place] != before[place]:
                at = 3 + place if sys.byteorder == "little" else 4 - place
                block[at::8] = bytes([upper[place]]) * many
        low, high = max(first - base, 0) // step, min(behind - base, _SPAN) // step
        found.frombytes(memoryview(block)[low * 8 : high * 8])
    return found
