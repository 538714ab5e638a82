"""The bytes of one device while they are being read, and what reading them may cost."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Final, NamedTuple

from qmig import limits
from qmig.legacy.vmstate.model import OPAQUE, Field, Note, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, each, meet, normal

_HEADER: Final = re.compile(rb"\x05(?=([\x02-\xff])([ -~]{2,255}))")


#: places that are tried one by one
_MANY: Final = 512


class Misfit(Exception):
    """No reading fits. `place` is where it fails, relative to the device's first byte."""

    def __init__(self, message: str, place: int, kind: NoteKind = NoteKind.MISFIT) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.kind = kind


class Header(NamedTuple):
    """What looks like the opening of a subsection at `place`; its body begins at `body`."""

    place: int
    name: str
    version: int
    body: int


class Region:
    """The body of one device. All places are relative to its first byte.

    `base` is the absolute offset of that. `room` counts the fields that may still be made,
    `budget` the steps that searches may still take; both bound time and memory by the size
    of the input.
    """

    __slots__ = (
        "_headers",
        "_masks",
        "_places",
        "_text",
        "base",
        "budget",
        "config",
        "data",
        "known",
        "loosened",
        "memo",
        "notes",
        "room",
        "size",
    )

    def __init__(self, data: memoryview, base: int, *, budget: int) -> None:
        self.data = data
        self.base = base
        self.size = len(data)
        self.notes: list[Note] = []
        #: fields of the body being read whose place is certain, for those that depend on them
        self.known: dict[str, int] = {}
        #: where the last PCI configuration space with a certain place is
        self.config: int | None = None
        #: (shape, start, end) -> where bodies with one start end; the shape itself, since an id comes again
        self.memo: dict[tuple[object, int, int], Positions] = {}
        #: how often a body did not fit and a looser shape was taken
        self.loosened = 0
        self.room = limits.VMSTATE_FIELDS
        self.budget = budget
        self._text: bytes | None = None
        self._masks: dict[bytes, Positions] = {}
        self._headers: list[Header] | None = None
        self._places: list[int] = []

    # -- making fields -----------------------------------------------------------

    def field(self, name: str, type_: str, start: int, end: int, count: int | None = None) -> Field:
        """A field of these bytes. Raises `Misfit` where they are not there, or none are left to make."""
        if end > self.size:
            raise Misfit(f"{name!a} goes {end - self.size} bytes over the end", start, NoteKind.SHORT)
        if self.room <= 0:
            raise Misfit(f"more than {limits.VMSTATE_FIELDS} fields", start, NoteKind.BUDGET)
        self.room -= 1
        return Field(name, type_, self.base + start, self.data[start:end], count)

    def opaque(self, name: str, start: int, end: int, note: Note) -> Field:
        """The bytes with no decoding, and the note that says why."""
        field = Field(name, OPAQUE, self.base + start, self.data[start:end])
        field.note = note
        self.notes.append(note)
        return field

    def note(self, kind: NoteKind, message: str, start: int, end: int, requirement: str) -> Note:
        return Note(kind, message, self.base + start, end - start, requirement)

    # -- what the bytes allow ----------------------------------------------------

    @property
    def text(self) -> bytes:
        """All bytes, copied once."""
        if self._text is None:
            self._text = bytes(self.data)
        return self._text

    def spend(self, *sets: Positions) -> None:
        """Accounts for one step on these sets."""
        for positions in sets:
            self.budget -= 1 + (positions[1].bit_length() >> 12)
        if self.budget < 0:
            raise Misfit("the search was given up at its bound", 0, NoteKind.BUDGET)

    def where(self, allowed: bytes) -> Positions:
        """The places of bytes that are one of `allowed`."""
        found = self._masks.get(allowed)
        if found is None:
            table = bytes(0x31 if value in allowed else 0x30 for value in range(256))
            digits = self.text.translate(table)[::-1]
            found = self._masks[allowed] = normal(0, int(digits or b"0", 2))
        return found

    def runs(self, starts: Positions, length: int, allowed: bytes) -> Positions:
        """Those of `starts` where `length` bytes are all of `allowed`."""
        self.spend(starts)
        if starts[1].bit_count() <= 64:
            mask = 0
            for place in each(starts):
                if not self.text[place : place + length].translate(None, allowed):
                    mask |= 1 << (place - starts[0])
            return normal(starts[0], mask)
        low, mask = self.where(allowed)
        have = 1
        while mask and have < length:
            step = min(have, length - have)
            mask &= mask >> step
            have += step
            self.spend((low, mask))
        return meet(starts, normal(low, mask)) if mask else EMPTY

    def some(self, positions: Positions) -> list[int]:
        """The positions as a list; gives up where they are too many to go through."""
        if positions[1].bit_count() > _MANY:
            raise Misfit("too many places to search", positions[0], NoteKind.BUDGET)
        self.spend(positions)
        return list(each(positions))

    # -- subsections ---------------------------------------------------------------

    def headers(self, start: int, end: int) -> list[Header]:
        """What looks like a subsection's opening, in order, with its body at or before `end`."""
        if self._headers is None:
            self._headers = [
                header for match in _HEADER.finditer(self.text) if (header := self._header(match))
            ]
            self._places = [header.place for header in self._headers]
        first = bisect_left(self._places, start)
        last = bisect_left(self._places, end)
        return [header for header in self._headers[first:last] if header.body <= end]

    def _header(self, match: re.Match[bytes]) -> Header | None:
        length = match[1][0]
        body = match.start() + 2 + length + 4
        if len(match[2]) < length or body > self.size:
            return None
        version = int.from_bytes(self.text[body - 4 : body], "big")
        return Header(match.start(), match[2][:length].decode("ascii"), version, body)
