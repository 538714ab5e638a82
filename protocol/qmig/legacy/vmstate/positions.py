"""Sets of positions, for the search of readings.

A set is a pair (lowest position, mask): bit i of the mask stands for lowest + i. One
position costs the same wherever it lies, and a whole set moves past a field in one shift.
The empty set is `EMPTY`; the mask of any other is odd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

Positions = tuple[int, int]

EMPTY: Final[Positions] = (0, 0)


def normal(low: int, mask: int) -> Positions:
    """The set of a mask that may be even or 0."""
    if mask & 1:
        return low, mask
    if not mask:
        return EMPTY
    zeros = (mask & -mask).bit_length() - 1
    return low + zeros, mask >> zeros


def span(low: int, high: int) -> Positions:
    """All positions from `low` to `high`, both included."""
    return (low, (1 << (high - low + 1)) - 1) if low <= high else EMPTY


def move(positions: Positions, distance: int) -> Positions:
    return (positions[0] + distance, positions[1]) if positions[1] else EMPTY


def highest(positions: Positions) -> int:
    return positions[0] + positions[1].bit_length() - 1


def has(positions: Positions, place: int) -> bool:
    low, mask = positions
    return place >= low and bool(mask >> (place - low) & 1)


def members(positions: Positions, places: Iterable[int]) -> Iterator[int]:
    """Those of many `places` that are positions, in the order given."""
    low, mask = positions
    bits = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    for place in places:
        distance = place - low
        if 0 <= distance < 8 * len(bits) and bits[distance >> 3] >> (distance & 7) & 1:
            yield place


def union(one: Positions, other: Positions) -> Positions:
    if not one[1]:
        return other
    if not other[1]:
        return one
    if one[0] > other[0]:
        one, other = other, one
    return one[0], one[1] | other[1] << (other[0] - one[0])


def meet(one: Positions, other: Positions) -> Positions:
    if one[0] < other[0]:
        one, other = other, one
    return normal(one[0], one[1] & other[1] >> (one[0] - other[0]))


def without(one: Positions, other: Positions) -> Positions:
    common = meet(one, other)
    if not common[1]:
        return one
    return normal(one[0], one[1] ^ common[1] << (common[0] - one[0]))


def clip(positions: Positions, high: int) -> Positions:
    """Those that are not above `high`."""
    low, mask = positions
    if low > high:
        return EMPTY
    if highest(positions) <= high:
        return positions
    return normal(low, mask & (1 << (high - low + 1)) - 1)


def each(positions: Positions) -> Iterator[int]:
    """The positions, in order."""
    low, mask = positions
    while mask:
        bit = mask & -mask
        yield low + bit.bit_length() - 1
        mask ^= bit
