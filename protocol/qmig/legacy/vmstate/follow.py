"""Where a section may end, by what stands behind: for device state that nothing delimits.

Source: migration/savevm.c `save_section_header`, `save_section_footer`.
"""

from __future__ import annotations

import re
from typing import Final

#: SECTION_START or SECTION_FULL: id (a counter, here below 2^20), idstr of printable characters,
#: instance, a version (eepro100 has a date as one) below 2^26
_HEADER: Final = re.compile(
    rb"[\x01\x04]\x00[\x00-\x0f][\x00-\xff]{2}(?P<length>[\x01-\xff])(?P<name>[ -~]{1,255})", re.DOTALL
)
#: EOF, then a description, or nothing at all
_EOF: Final = re.compile(rb"\x00(?:\x06[\x00-\xff]{4}\{|\Z)", re.DOTALL)
#: a command of a known number and a length that such a command has
_COMMAND: Final = re.compile(rb"\x08\x00[\x01-\x0b](?:\x00[\x00-\x40]|[\x00-\xff]{2})", re.DOTALL)
_ANY: Final = re.compile(
    rb"(?=(?:[\x01\x04]\x00[\x00-\x0f][\x00-\xff]{2}[\x01-\xff][ -~]"
    rb"|\x00(?:\x06|\Z)|\x08\x00[\x01-\x0b]\x00))",
    re.DOTALL,
)


def places(view: memoryview, section_id: int, limit: int) -> tuple[list[int], list[int]]:
    """The places up to `limit` where the section `section_id` may end: those where its footer
    stands or another section begins, and those where a command or the end of the stream may."""
    footer = b"\x7e" + section_id.to_bytes(4, "big")
    either = re.compile(b"(?=" + re.escape(footer) + b")|" + _ANY.pattern, re.DOTALL)
    sure: list[int] = []
    weak: list[int] = []
    for found in either.finditer(view, 0, min(len(view), limit + 16)):
        place = found.start()
        if place > limit:
            break
        if view[place : place + 5] == footer or opens(view, place):
            sure.append(place)
        elif begins(view, place):
            weak.append(place)
    return sure, weak


def opens(view: memoryview, place: int) -> bool:
    """Whether the header of another section plausibly stands there."""
    window = view[place : place + 300]
    header = _HEADER.match(window)
    if header is None:
        return False
    length = header["length"][0]
    versions = window[6 + length + 4 : 6 + length + 8]
    return len(header["name"]) >= length and len(versions) == 4 and versions[0] < 4


def begins(view: memoryview, place: int) -> bool:
    """Whether a section, a command or the end of the stream plausibly begins there."""
    window = view[place : place + 300]
    return opens(view, place) or bool(_EOF.match(window) or _COMMAND.match(window))
