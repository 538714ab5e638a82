"""Lists whose elements say themselves whether another one follows: qtailq, qlist, gtree."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.containers import described
from qmig.legacy.vmstate.model import Field, NoteKind
from qmig.legacy.vmstate.positions import (
    EMPTY,
    Positions,
    clip,
    highest,
    meet,
    move,
    normal,
    span,
    union,
    without,
)
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import Shape
from qmig.legacy.vmstate.types import ELEMENT, LIST_END, VMStateType

_ELEMENT: Final = bytes([ELEMENT])
_LIST_END: Final = bytes([LIST_END])


class Listed(Shape):
    """What lists have in common. `listed` are the elements that the stream's own description
    shows, with their lengths; `body` is what any element looks like, None if unknown."""

    __slots__ = ("body", "listed", "type")

    def __init__(
        self,
        name: str,
        type_: str,
        body: BodyShape | None,
        *,
        size: int | None = None,
        listed: Sequence[BodyShape] | None = None,
    ) -> None:
        super().__init__(name, size)
        self.type = type_
        self.body = body
        self.listed = listed

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        if self.fixed is not None:
            region.spend(starts)
            return move(clip(starts, end - self.fixed), self.fixed)
        return self._ends(region, starts, end) if starts[1] else EMPTY

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        if self.fixed is not None:
            region.spend(starts, goal)
            return meet(starts, move(goal, -self.fixed))
        return self._starts(region, goal, starts, end) if starts[1] and goal[1] else EMPTY

    def explain(self, region: Region, start: int, end: int) -> Field:
        field = region.field(self.name, self.type, start, end)
        marked = len(region.notes)
        try:
            field.children = self._elements(region, start, end)
        except Misfit as problem:
            del region.notes[marked:]
            note = region.note(problem.kind, problem.message, start, end, "LEG-VMS-072")
            return region.opaque(self.name, start, end, note)
        field.count = len(field.children)
        return field

    @abstractmethod
    def _ends(self, region: Region, starts: Positions, end: int) -> Positions:
        """As `ends`, for a list of unknown length."""

    @abstractmethod
    def _starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        """As `starts`, for a list of unknown length."""

    @abstractmethod
    def _elements(self, region: Region, start: int, end: int) -> list[Field]:
        """The fields of the elements. Raises `Misfit`."""

    def _marker(self, region: Region, place: int, end: int, marker: bytes) -> int:
        if place >= end or region.data[place : place + 1] != marker:
            raise Misfit(f"{self.name!a}: no marker {marker[0]} where one must be", place)
        return place + 1


class Queue(Listed):
    """`qtailq` or `qlist`: 1 and an element, again and again; then 0."""

    __slots__ = ()

    def _heads(self, region: Region, starts: Positions, end: int) -> Positions:
        """Every place where a marker is read."""
        seen = new = clip(starts, end - 1)
        if self.body is None:
            return seen
        while new[1]:
            after = move(region.runs(new, 1, _ELEMENT), 1)
            new = without(clip(self.body.ends(region, after, end), end - 1), seen) if after[1] else EMPTY
            seen = union(seen, new)
        return seen

    def _ends(self, region: Region, starts: Positions, end: int) -> Positions:
        heads = self._heads(region, starts, end)
        found = move(region.runs(heads, 1, _LIST_END), 1) if heads[1] else EMPTY
        if self.body is None:
            filled = region.runs(clip(starts, end - 1), 1, _ELEMENT)
            if filled[1]:
                found = union(found, span(filled[0] + 2, end))
        return found

    def _starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        if self.body is None:
            starts = clip(starts, end - 1)
            empty = meet(region.runs(starts, 1, _LIST_END), move(goal, -1))
            return union(empty, clip(region.runs(starts, 1, _ELEMENT), highest(goal) - 2))
        return meet(starts, self._good(region, goal, starts, end))

    def _good(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        """The places of markers on a way from `starts` to `goal`."""
        heads = self._heads(region, starts, end)
        if not heads[1] or self.body is None:
            return EMPTY
        good = new = meet(region.runs(heads, 1, _LIST_END), move(goal, -1))
        after = move(region.runs(heads, 1, _ELEMENT), 1)
        while new[1] and after[1]:
            new = without(move(self.body.starts(region, new, after, end), -1), good)
            good = union(good, new)
        return good

    def _elements(self, region: Region, start: int, end: int) -> list[Field]:
        if self.listed is not None:
            found = self._known(region, self.listed, start, end)
            if found is not None:
                return found
        if self.body is None:
            if region.data[start : start + 1] == _ELEMENT:
                raise Misfit(f"elements of {self.name!a} are not described", start, NoteKind.UNDESCRIBED)
            if self._marker(region, start, end, _LIST_END) != end:
                raise Misfit(f"{self.name!a} ends at another place", start)
            return []
        return self._walked(region, self.body, start, end)

    def _walked(self, region: Region, body: BodyShape, start: int, end: int) -> list[Field]:
        good = self._good(region, (end, 1), (start, 1), end)
        found: list[Field] = []
        place = start
        while region.data[place : place + 1] == _ELEMENT and place + 1 < end:
            following = meet(body.ends(region, (place + 1, 1), end), good)
            if following[1] != 1:
                kind = NoteKind.AMBIGUOUS if following[1] else NoteKind.MISFIT
                raise Misfit(f"{self.name!a}: the places of its elements are not certain", place, kind)
            found.append(self._element(region, body, place, following[0], len(found)))
            place = following[0]
        if self._marker(region, place, end, _LIST_END) != end:
            raise Misfit(f"{self.name!a} ends at another place", place)
        return found

    def _known(self, region: Region, listed: Sequence[BodyShape], start: int, end: int) -> list[Field] | None:
        """The elements by their described lengths; None if those do not fit."""
        place = start
        found: list[Field] = []
        marked = len(region.notes)
        try:
            for body in listed:
                close = self._marker(region, place, end, _ELEMENT) + (body.fixed or 0)
                found.append(self._element(region, body, place, close, len(found)))
                place = close
            if self._marker(region, place, end, _LIST_END) == end:
                return found
        except Misfit:
            pass
        del region.notes[marked:]
        return None

    def _element(self, region: Region, body: BodyShape, start: int, end: int, index: int) -> Field:
        """One element with its marker."""
        field = region.field(self.name, VMStateType.STRUCT, start, end)
        field.children = body.read(region, start + 1, end)
        field.index = index
        return described(field, body)


class Tree(Listed):
    """`gtree`: u32 count; 1, key and value for each; then 0. Keys are u64 if `key` is None."""

    __slots__ = ("key",)

    def __init__(
        self,
        name: str,
        key: BodyShape | None,
        body: BodyShape | None,
        *,
        size: int | None = None,
        listed: Sequence[BodyShape] | None = None,
    ) -> None:
        super().__init__(name, VMStateType.GTREE, body, size=size, listed=listed)
        self.key = key

    def _key_ends(self, region: Region, starts: Positions, end: int) -> Positions:
        return self.key.ends(region, starts, end) if self.key else move(clip(starts, end - 8), 8)

    def _layers(self, region: Region, start: int, end: int) -> list[Positions]:
        """The places of each element's marker, and of the end marker, from one start."""
        count = int.from_bytes(region.data[start : start + 4], "big")
        layers: list[Positions] = [(start + 4, 1) if start + 4 < end else EMPTY]
        for _ in range(count):
            after = region.runs(clip(layers[-1], end - 1), 1, _ELEMENT)
            region.spend(after)
            if not after[1] or self.body is None:
                return [EMPTY]
            keys = self._key_ends(region, move(after, 1), end)
            layers.append(clip(self.body.ends(region, keys, end), end - 1) if keys[1] else EMPTY)
        return layers

    def _last(self, region: Region, start: int, end: int) -> Positions:
        last = self._layers(region, start, end)[-1]
        return move(region.runs(last, 1, _LIST_END), 1) if last[1] else EMPTY

    def _ends(self, region: Region, starts: Positions, end: int) -> Positions:
        found = EMPTY
        for place in region.some(starts):
            found = union(found, self._last(region, place, end))
        return found

    def _starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        mask = 0
        for place in region.some(starts):
            if meet(self._last(region, place, end), goal)[1]:
                mask |= 1 << (place - starts[0])
        return normal(starts[0], mask)

    def _elements(self, region: Region, start: int, end: int) -> list[Field]:
        count = int.from_bytes(region.data[start : start + 4], "big")
        if self.listed is not None and len(self.listed) == count * (2 if self.key else 1):
            places = self._listed_places(region, self.listed, start, end)
        else:
            places = self._searched_places(region, start, end)
        if places[-1] + 1 != end:
            raise Misfit(f"{self.name!a} ends at another place", start)
        self._marker(region, places[-1], end, _LIST_END)
        return [
            self._element(region, places[index], places[index + 1], index) for index in range(len(places) - 1)
        ]

    def _listed_places(self, region: Region, listed: Sequence[BodyShape], start: int, end: int) -> list[int]:
        places = [start + 4]
        step = 2 if self.key else 1
        for index in range(0, len(listed), step):
            length = sum(body.fixed or 0 for body in listed[index : index + step]) + 8 * (2 - step)
            places.append(self._marker(region, places[-1], end, _ELEMENT) + length)
        return places

    def _searched_places(self, region: Region, start: int, end: int) -> list[int]:
        layers = self._layers(region, start, end)
        layers[-1] = meet(layers[-1], (end - 1, 1))
        if not all(layer[1] == 1 for layer in layers):
            kind = NoteKind.AMBIGUOUS if layers[-1][1] else NoteKind.MISFIT
            raise Misfit(f"{self.name!a}: the places of its elements are not certain", start, kind)
        return [layer[0] for layer in layers]

    def _element(self, region: Region, start: int, end: int, index: int) -> Field:
        """One element: marker, key, value."""
        field = region.field(self.name, VMStateType.STRUCT, start, end)
        field.index = index
        body = self.body
        keys = self._key_ends(region, (start + 1, 1), end)
        if body is None or keys[1] != 1:
            raise Misfit(f"{self.name!a}: the end of a key is not certain", start, NoteKind.AMBIGUOUS)
        close = keys[0]
        if self.key:
            key = described(region.field("key", VMStateType.STRUCT, start + 1, close), self.key)
            key.children = self.key.read(region, start + 1, close)
        else:
            key = region.field("key", VMStateType.UINT64, start + 1, close)
        value = described(region.field("value", VMStateType.STRUCT, close, end), body)
        value.children = body.read(region, close, end)
        field.children = [key, value]
        return field
