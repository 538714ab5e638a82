"""XBZRLE: a page as its differences to what the destination has.

Source: migration/xbzrle.c. Repeated: length of an unchanged run, length of a changed run,
the changed bytes as they are now. What follows the last changed run is unchanged.
"""

from __future__ import annotations

import re
from typing import Final

from qmig._wire import Raw
from qmig.errors import LocalProtocolError

#: the lengths have 14 bits
_LONGEST: Final = 0x3FFF
_REQUIREMENT: Final = "LEG-RAM-036"
_CHANGED: Final = re.compile(rb"[^\x00]+")


def decode(old: Raw, delta: Raw) -> bytearray:
    """`old` (one page) with `delta` applied. Raises `LocalProtocolError` if `delta` is malformed or
    reaches beyond the page."""
    page = bytearray(old)
    raw = memoryview(delta)
    at = position = 0
    while at < len(raw):
        unchanged, after = _length(raw, at)
        if at and not unchanged:
            raise _error(at, "unchanged run of length 0 behind the first one")
        changed, start = _length(raw, after)
        if not changed:
            raise _error(after, "changed run of length 0")
        position += unchanged
        at = start + changed
        if position + changed > len(page):
            raise _error(start, f"changed run up to {position + changed:#x}, a page has {len(page):#x} bytes")
        if at > len(raw):
            raise _error(start, f"changed run of {changed} bytes, {len(raw) - start} are there")
        page[position : position + changed] = raw[start:at]
        position += changed
    return page


def encode(old: Raw, new: Raw) -> bytes | None:
    """What turns `old` into `new`, as QEMU's encoder writes it; empty if they are equal, None if
    it would not be shorter than the page."""
    size = len(new)
    mixed = int.from_bytes(old, "big") ^ int.from_bytes(new, "big")
    out = bytearray()
    position = 0
    for run in _CHANGED.finditer(mixed.to_bytes(size, "big")):
        start, stop = run.span()
        if start - position > _LONGEST or stop - start > _LONGEST:
            return None
        out += _uleb128(start - position) + _uleb128(stop - start) + bytes(new[start:stop])
        position = stop
    return bytes(out) if len(out) < size else None


def _length(raw: memoryview, at: int) -> tuple[int, int]:
    """The ULEB128 number of one or two bytes at `at`, and what follows it."""
    if len(raw) - at < 2:
        raise _error(at, "cut inside a length")
    if raw[at] < 0x80:
        return raw[at], at + 1
    if raw[at + 1] >= 0x80:
        raise _error(at, "length of more than two bytes")
    return raw[at] & 0x7F | raw[at + 1] << 7, at + 2


def _uleb128(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def _error(at: int, problem: str) -> LocalProtocolError:
    return LocalProtocolError(f"XBZRLE, byte {at} of the delta: {problem}", requirement=_REQUIREMENT)
