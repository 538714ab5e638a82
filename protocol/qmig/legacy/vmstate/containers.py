"""Fields with bodies in them: structures, arrays and lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.model import Field, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, clip, highest, meet, move, union, without
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import NULL, VALID, Leaf, Shape
from qmig.legacy.vmstate.types import VMStateType


def described(field: Field, body: BodyShape) -> Field:
    field.vmsd_name = body.vmsd_name
    field.version = body.version
    return field


class Struct(Shape):
    """A nested body (struct, vstruct, tmp); its length is `size` if that is known."""

    __slots__ = ("body", "type")

    def __init__(
        self, name: str, body: BodyShape, type_: str = VMStateType.STRUCT, size: int | None = None
    ) -> None:
        super().__init__(name, body.fixed if size is None else size)
        self.body = body
        self.type = type_

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        if self.fixed is not None:
            region.spend(starts)
            return move(clip(starts, end - self.fixed), self.fixed)
        return self.body.ends(region, starts, end)

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        if self.fixed is not None:
            region.spend(starts, goal)
            return meet(starts, move(goal, -self.fixed))
        return self.body.starts(region, goal, starts, end)

    def explain(self, region: Region, start: int, end: int) -> Field:
        field = region.field(self.name, self.type, start, end)
        field.children = self.body.read(region, start, end)
        return described(field, self.body)


class Array(Shape):
    """`count` elements (None: any number) back to back.

    `nullable`: an element may be one NULL marker instead (array of pointers). `marked`: every
    element has a marker in front, and a NULL one nothing behind it (LEG-VMS-034).
    """

    __slots__ = ("count", "element", "marked", "nullable")

    repeats: ClassVar[bool] = True

    def __init__(
        self, element: Shape, count: int | None, *, nullable: bool = False, marked: bool = False
    ) -> None:
        plain = element.fixed is not None and count is not None and not nullable and not marked
        super().__init__(element.name, (element.fixed or 0) * (count or 0) if plain else None)
        self.element = element
        self.count = count
        self.nullable = nullable
        self.marked = marked

    @property
    def stride(self) -> int | None:
        """Bytes from one element to the next where that is always the same."""
        return None if self.nullable or self.marked else self.element.fixed

    # -- one element -----------------------------------------------------------------

    def _next(self, region: Region, starts: Positions, end: int) -> Positions:
        """Behind one element."""
        region.spend(starts)  # elements of no bytes, however many are told, end the search too
        if self.marked:
            null = region.runs(clip(starts, end - 1), 1, NULL)
            valid = region.runs(clip(starts, end - 1), 1, VALID)
            behind = self.element.ends(region, move(valid, 1), end) if valid[1] else EMPTY
            return union(move(null, 1), behind)
        behind = self.element.ends(region, starts, end)
        if self.nullable:
            behind = union(behind, move(region.runs(clip(starts, end - 1), 1, NULL), 1))
        return behind

    def _before(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        """Those of `starts` from which one element leads to `goal`."""
        if self.marked:
            null = meet(region.runs(clip(starts, end - 1), 1, NULL), move(goal, -1))
            valid = move(region.runs(clip(starts, end - 1), 1, VALID), 1)
            inner = self.element.starts(region, goal, valid, end) if valid[1] else EMPTY
            return union(null, move(inner, -1))
        found = self.element.starts(region, goal, starts, end)
        if self.nullable:
            found = union(found, meet(region.runs(clip(starts, end - 1), 1, NULL), move(goal, -1)))
        return found

    # -- all of them -------------------------------------------------------------------

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        if not starts[1]:
            return EMPTY
        if self.fixed is not None:
            region.spend(starts)
            return move(clip(starts, end - self.fixed), self.fixed)
        if self.count is None:
            return self._reach(region, starts, end)
        for _ in range(self.count):
            starts = self._next(region, starts, end)
            if not starts[1]:
                break
        return starts

    def _reach(self, region: Region, starts: Positions, end: int) -> Positions:
        """Behind any number of elements."""
        stride = self.stride
        if stride:
            low, mask = starts
            steps = max(0, end - low) // stride
            done = 0
            while done < steps:
                more = min(done + 1, steps - done)
                mask |= mask << (stride * more)
                done += more
                region.spend((low, mask))
            return clip((low, mask), end)
        seen, new = starts, starts
        while new[1]:
            new = without(self._next(region, new, end), seen)
            seen = union(seen, new)
        return seen

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        if not goal[1] or not starts[1]:
            return EMPTY
        if self.fixed is not None:
            region.spend(starts, goal)
            return meet(starts, move(goal, -self.fixed))
        if self.count is None:
            return meet(starts, self._leading(region, starts, goal, end))
        return self._layers(region, starts, goal, end)[0]

    def _leading(self, region: Region, starts: Positions, goal: Positions, end: int) -> Positions:
        """The places from which any number of elements leads to `goal`."""
        if self.stride:
            down = max(0, highest(goal) - starts[0]) // self.stride
            low, mask = goal
            done = 0
            while done < down:
                more = min(done + 1, down - done)
                mask |= mask << (self.stride * more)
                done += more
                region.spend((low, mask))
            return low - self.stride * down, mask
        reach = self._reach(region, starts, end)
        good = new = meet(reach, goal)
        while new[1]:
            new = without(self._before(region, new, reach, end), good)
            good = union(good, new)
        return good

    def _layers(self, region: Region, starts: Positions, goal: Positions, end: int) -> list[Positions]:
        """The places before each of `count` elements, and behind the last, on the way to `goal`."""
        layers = [starts]
        for _ in range(self.count or 0):
            layers.append(self._next(region, layers[-1], end))
            if not layers[-1][1]:
                return [EMPTY]
        layers[-1] = meet(layers[-1], goal)
        for index in range(len(layers) - 2, -1, -1):
            following = layers[index + 1]
            layers[index] = self._before(region, following, layers[index], end) if following[1] else EMPTY
        return layers

    # -- making fields -------------------------------------------------------------------

    def explain(self, region: Region, start: int, end: int) -> Field:
        places = self._places(region, start, end)
        count = len(places) - 1
        element = self.element
        if isinstance(element, Leaf) and element.count is None and self.stride is not None:
            Leaf(self.name, element.type, element.fixed or 0, count, element.allowed).explain(
                region, start, end
            )
            return region.field(self.name, element.type, start, end, count)
        field = region.field(self.name, getattr(element, "type", VMStateType.STRUCT), start, end, count)
        field.children = children = []
        noted = len(region.notes)
        for index in range(count):
            child = self._element(region, places[index], places[index + 1])
            child.index = index
            children.append(child)
            if index == 0:
                noted = len(region.notes)
            elif len(region.notes) > noted and self.fixed is not None:
                raise Misfit(f"elements of {self.name!a} are not like the first", start)
        return field

    def _places(self, region: Region, start: int, end: int) -> Sequence[int]:
        """Where each element begins, and the end. Raises `Misfit` where that is not certain."""
        stride = self.stride
        if stride is not None:
            count = self.count if self.count is not None else (end - start) // stride if stride else 0
            if count * stride != end - start:
                raise Misfit(f"{self.name!a}: {end - start} bytes of elements of {stride}", start)
            if not stride:
                return range(start, start + 1)
            return range(start, end + 1, stride)
        places = [start]
        if self.count is not None:
            for layer in self._layers(region, (start, 1), (end, 1), end)[1:]:
                places.append(self._certain(layer, places[-1]))
            return self._closed(places, end)
        good = self._leading(region, (start, 1), (end, 1), end)
        while places[-1] != end:
            places.append(self._certain(meet(self._next(region, (places[-1], 1), end), good), places[-1]))
        if meet(self._next(region, (end, 1), end), good)[1]:
            raise Misfit(f"{self.name!a}: more than one count fits", start, NoteKind.AMBIGUOUS)
        return places

    def _closed(self, places: list[int], end: int) -> list[int]:
        if places[-1] != end:
            raise Misfit(f"{self.name!a} ends elsewhere", places[0])
        return places

    def _certain(self, layer: Positions, last: int) -> int:
        if layer[1] != 1:
            kind = NoteKind.AMBIGUOUS if layer[1] else NoteKind.MISFIT
            raise Misfit(f"{self.name!a}: the places of its elements are not certain", last, kind)
        return layer[0]

    def _element(self, region: Region, start: int, end: int) -> Field:
        """One element; a marker in front of it belongs to it."""
        null = end - start == 1 and region.data[start : start + 1] == NULL
        if null and (self.marked or self.nullable):
            return region.field(self.name, VMStateType.PTR_MARKER, start, end)
        if not self.marked:
            return self._explained(region, start, end)
        inner = self._explained(region, start + 1, end)
        outer = region.field(self.name, inner.type, start, end)
        outer.children = inner.children if inner.children is not None else [inner]
        outer.vmsd_name, outer.version = inner.vmsd_name, inner.version
        return outer

    def _explained(self, region: Region, start: int, end: int) -> Field:
        found = self.element.explain(region, start, end)
        return region.field(self.name, VMStateType.UNUSED_BUFFER, start, end) if found is None else found
