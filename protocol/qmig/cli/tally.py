"""Counts RAM pages per block, pass and kind, without looking at single pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from qmig.legacy.ram import RamDeltas, RamPages

if TYPE_CHECKING:
    from qmig.legacy.connection import Told

#: kinds of page, in the order in which they are shown
KINDS: Final = ("normal", "zero", "xbzrle", "compressed", "multifd_normal", "multifd_zero", "mapped")

#: records that are told by their sums only
_COUNTED: Final = frozenset({"MultifdPacket", "MappedRamBitmap", "MappedRamPages", "MappedRamGap"})

#: kind -> pages
Counts = dict[str, int]


class Tally:
    """Pages by (block, pass), in the order in which they first came."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Counts] = {}

    def __bool__(self) -> bool:
        return bool(self.rows)

    def add(self, block: str, at: int, kind: str, pages: int) -> None:
        if pages:
            row = self.rows.setdefault((block, at), {})
            row[kind] = row.get(kind, 0) + pages

    def count(self, told: Told) -> bool:
        """Counts an event's pages; whether it is one that carries pages."""
        event, at = told.event, told.round
        if isinstance(event, RamPages | RamDeltas):
            deltas = isinstance(event, RamDeltas)
            one, other = ("xbzrle", "compressed") if deltas else ("normal", "zero")
            for ascent in event.ascents() if isinstance(event, RamDeltas) else event.ascents:
                self.add(event.block, at, one, ascent.normal)
                self.add(event.block, at, other, ascent.zero)
                at = min(at + 1, told.last_round)
            return True
        name = type(event).__name__
        if name == "MultifdPacket":
            packet = cast(Any, event)
            self.add(packet.block, at, "multifd_normal", packet.normal_pages)
            self.add(packet.block, at, "multifd_zero", packet.zero_pages)
        elif name == "MappedRamBitmap":
            bitmap = cast(Any, event)
            present = int.from_bytes(bitmap.data, "little") & ((1 << bitmap.pages) - 1)
            self.add(bitmap.block, at, "mapped", present.bit_count())
        return name in _COUNTED

    def merge(self, other: Tally) -> None:
        for (block, at), counts in other.rows.items():
            for kind, pages in counts.items():
                self.add(block, at, kind, pages)


def words(counts: Counts) -> str:
    """`145 normal, 3714 zero`."""
    return ", ".join(f"{counts[kind]} {kind.replace('_', ' ')}" for kind in KINDS if counts.get(kind))
