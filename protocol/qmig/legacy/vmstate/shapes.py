"""What a field can look like on the wire: the pieces that readings are searched with.

A shape maps the places where it may start to the places where it may end (`ends`), finds
which starts lead to given ends (`starts`), and makes the fields of bytes whose start and end
are known (`explain`). A shape with a `fixed` length needs no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from qmig.legacy.vmstate.model import Field, NoteKind
from qmig.legacy.vmstate.positions import (
    EMPTY,
    Positions,
    clip,
    has,
    highest,
    meet,
    move,
    normal,
    span,
    union,
)
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.types import PTR_NULL, PTR_VALID

NULL: Final = bytes([PTR_NULL])
VALID: Final = bytes([PTR_VALID])


class Shape:
    """`fixed` is the length in bytes if it is always the same."""

    __slots__ = ("fixed", "name")

    #: an array: one element of it is the same as the element alone
    repeats: ClassVar[bool] = False

    def __init__(self, name: str, fixed: int | None) -> None:
        self.name = name
        self.fixed = fixed

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        """Where this may end, not behind `end`, if it starts at one of `starts`."""
        raise NotImplementedError

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        """Those of `starts` from which one of `goal` (none behind `end`) is reached."""
        raise NotImplementedError

    def explain(self, region: Region, start: int, end: int) -> Field | None:
        """The field of exactly these bytes; None for one that is not there. Raises `Misfit`."""
        raise NotImplementedError


class Leaf(Shape):
    """`count` (None: one) values of `size` bytes each; every byte is one of `allowed`."""

    __slots__ = ("allowed", "count", "type")

    def __init__(
        self, name: str, type_: str, size: int, count: int | None = None, allowed: bytes | None = None
    ) -> None:
        super().__init__(name, size if count is None else size * count)
        self.type = type_
        self.count = count
        self.allowed = allowed

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        size = self.fixed or 0
        region.spend(starts)
        starts = clip(starts, end - size)
        if self.allowed is not None and starts[1]:
            starts = region.runs(starts, size, self.allowed)
        return move(starts, size)

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        size = self.fixed or 0
        region.spend(starts, goal)
        starts = meet(starts, move(goal, -size))
        if self.allowed is not None and starts[1]:
            starts = region.runs(starts, size, self.allowed)
        return starts

    def explain(self, region: Region, start: int, end: int) -> Field:
        if self.allowed is not None and bytes(region.data[start:end]).translate(None, self.allowed):
            raise Misfit(f"{self.name!a} has bytes that it cannot have", start)
        return region.field(self.name, self.type, start, end, self.count)


class Blob(Shape):
    """Bytes of unknown number."""

    __slots__ = ("type",)

    def __init__(self, name: str, type_: str) -> None:
        super().__init__(name, None)
        self.type = type_

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        region.spend(starts)
        return span(starts[0], end) if starts[1] else EMPTY

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        region.spend(starts, goal)
        return clip(starts, highest(goal)) if goal[1] else EMPTY

    def explain(self, region: Region, start: int, end: int) -> Field:
        return region.field(self.name, self.type, start, end)


class Sized(Shape):
    """Bytes of one of several numbers."""

    __slots__ = ("_distances", "sizes", "type")

    def __init__(self, name: str, type_: str, sizes: Sequence[int]) -> None:
        super().__init__(name, None)
        self.type = type_
        self.sizes = sizes
        low = min(sizes)
        self._distances = low, sum(1 << (size - low) for size in set(sizes))

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        found = EMPTY
        for place in region.some(starts):
            region.spend(self._distances)
            found = union(found, clip(move(self._distances, place), end))
        return found

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        mask = 0
        for place in region.some(starts):
            region.spend(self._distances)
            if meet(move(self._distances, place), goal)[1]:
                mask |= 1 << (place - starts[0])
        return normal(starts[0], mask)

    def explain(self, region: Region, start: int, end: int) -> Field:
        if end - start not in self.sizes:
            raise Misfit(f"{self.name!a} cannot have {end - start} bytes", start)
        return region.field(self.name, self.type, start, end)


class Optional(Shape):
    """A field that may not be there (`field_exists`)."""

    __slots__ = ("inner",)

    def __init__(self, inner: Shape) -> None:
        super().__init__(inner.name, None)
        self.inner = inner

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        return union(starts, self.inner.ends(region, starts, end))

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        return union(meet(starts, goal), self.inner.starts(region, goal, starts, end))

    def explain(self, region: Region, start: int, end: int) -> Field | None:
        return None if start == end else self.inner.explain(region, start, end)


class Either(Shape):
    """One of several shapes, the plainest first."""

    __slots__ = ("choices",)

    def __init__(self, choices: Sequence[Shape]) -> None:
        super().__init__(choices[0].name, None)
        self.choices = choices

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        found = EMPTY
        for shape in self.choices:
            found = union(found, shape.ends(region, starts, end))
        return found

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        found = EMPTY
        for shape in self.choices:
            found = union(found, shape.starts(region, goal, starts, end))
        return found

    def explain(self, region: Region, start: int, end: int) -> Field | None:
        if start == end and self.choices[0].fixed != 0:
            return None
        fitting = [shape for shape in self.choices if has(shape.ends(region, (start, 1), end), end)]
        if not fitting:
            raise Misfit(f"{self.name!a} fits no known encoding", start)
        if not all(shape.repeats for shape in fitting[1:]):
            raise Misfit(f"{self.name!a} fits more than one encoding", start, NoteKind.AMBIGUOUS)
        return fitting[0].explain(region, start, end)
