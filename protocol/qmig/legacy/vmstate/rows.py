"""Arrays that the description spreads over several entries, and those that it does not show."""

from __future__ import annotations

from collections.abc import Sequence

from qmig.legacy.vmstate.containers import Array
from qmig.legacy.vmstate.model import Field, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, clip, highest, meet, move, span
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import VALID, Leaf, Shape
from qmig.legacy.vmstate.types import MARKERS, VMStateType


class Row(Shape):
    """The entries of one array, each with its own length: elements, runs of elements, and
    pointer markers, of which one that is VALID stands in front of its element."""

    __slots__ = ("entries",)

    def __init__(self, name: str, entries: Sequence[Shape]) -> None:
        super().__init__(name, sum(entry.fixed or 0 for entry in entries))
        self.entries = entries

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        region.spend(starts)
        return move(clip(starts, end - (self.fixed or 0)), self.fixed or 0)

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        region.spend(starts, goal)
        return meet(starts, move(goal, -(self.fixed or 0)))

    def explain(self, region: Region, start: int, end: int) -> Field:
        first = self.entries[0]
        if isinstance(first, Leaf) and first.type not in MARKERS and self._alike(first):
            return region.field(self.name, first.type, start, end, len(self.entries))
        field = region.field(self.name, VMStateType.STRUCT, start, end)
        children: list[Field] = []
        place = start
        marker: int | None = None
        kinds: set[bytes] = set()
        for entry, following in zip(self.entries, [*self.entries[1:], None], strict=True):
            behind = place + (entry.fixed or 0)
            if self._is_marker(entry) and following is not None and not self._is_marker(following):
                kinds.add(bytes(region.data[place:behind]))
            if marker is None and self._is_marker(entry) and region.data[place : place + 1] == VALID:
                marker = place
                place = behind
                continue
            for child in self._explained(region, entry, place, behind):
                child.index = len(children)
                children.append(child if marker is None else self._with_marker(region, child, marker, behind))
            marker = None
            place = behind
        if marker is not None:
            raise Misfit(f"{self.name!a}: no element behind a marker", marker)
        if len(kinds) > 1:  # either every element has a marker, or only those that are NULL
            raise Misfit(f"{self.name!a}: markers that do not go together", start)
        field.children = children
        field.count = len(children)
        return field

    @staticmethod
    def _is_marker(entry: Shape) -> bool:
        return isinstance(entry, Leaf) and entry.type in MARKERS and entry.fixed == 1

    def _alike(self, first: Leaf) -> bool:
        return all(
            isinstance(entry, Leaf)
            and entry.count is None
            and (entry.type, entry.fixed) == (first.type, first.fixed)
            for entry in self.entries
        )

    def _explained(self, region: Region, entry: Shape, start: int, end: int) -> Sequence[Field]:
        """The elements that an entry stands for: one, or those of a run."""
        field = entry.explain(region, start, end)
        if isinstance(entry, Leaf) and entry.count is not None:
            size = (end - start) // entry.count if entry.count else 0
            places = range(start, end, size or 1)
            return [region.field(self.name, entry.type, place, place + size) for place in places]
        if isinstance(entry, Array) and field is not None and field.children is not None:
            return field.children
        return [] if field is None else [field]

    def _with_marker(self, region: Region, inner: Field, start: int, end: int) -> Field:
        outer = region.field(self.name, inner.type, start, end)
        outer.children = inner.children if inner.children is not None else [inner]
        outer.vmsd_name, outer.version, outer.index = inner.vmsd_name, inner.version, inner.index
        return outer


class Undescribed(Shape):
    """An array of pointers of which only NULL elements were described, so that nothing is
    known of the others (LEG-VMS-071). `count` elements, at least a byte each."""

    __slots__ = ("count",)

    def __init__(self, name: str, count: int | None) -> None:
        super().__init__(name, None)
        self.count = count

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        region.spend(starts)
        return span(starts[0] + (self.count or 0), end) if starts[1] else EMPTY

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        region.spend(starts, goal)
        return clip(starts, highest(goal) - (self.count or 0)) if goal[1] else EMPTY

    def explain(self, region: Region, start: int, end: int) -> Field:
        if self.count is not None and self.count == end - start:
            return region.field(self.name, VMStateType.NULLPTR, start, end, self.count)
        message = f"{self.name!a}: the description shows NULL elements only"
        note = region.note(NoteKind.UNDESCRIBED, message, start, end, "LEG-VMS-071")
        return region.opaque(self.name, start, end, note)
