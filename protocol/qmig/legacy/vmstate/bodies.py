"""The body of a VMSD: fields, then subsections, with nothing that says where one ends.

Rule 1: a field whose start and end are the same in every reading that fills the bytes is
decoded; what lies between two such fields is kept as it is and said to be ambiguous.
Rule 2: what looks like one of the body's own subsections is one, as for QEMU's loader
(LEG-VMS-041).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from qmig import limits
from qmig.legacy.vmstate.model import SUBSECTION_TYPE, Field, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, each, has, highest, meet, span, union, without
from qmig.legacy.vmstate.region import Header, Misfit, Region
from qmig.legacy.vmstate.shapes import Shape

#: starts that are followed one by one, so that what a field says of later ones is known
_FEW: Final = 32


class BodyShape:
    """`fields` then `subsections`; with `exact`, all of these in this order, else any of them;
    with `open`, also such as are not known, as long as they have the body's name in front.

    `looser` makes a shape that allows more, for bytes that this one does not fit.
    """

    __slots__ = (
        "_loosened",
        "basis",
        "exact",
        "fields",
        "fixed",
        "likely",
        "looser",
        "named",
        "open",
        "subsections",
        "version",
        "vmsd_name",
    )

    def __init__(
        self,
        vmsd_name: str,
        version: int,
        fields: Sequence[Shape],
        subsections: Sequence[BodyShape] = (),
        *,
        exact: bool = False,
        open: bool = False,
        looser: Callable[[], BodyShape] | None = None,
    ) -> None:
        self.vmsd_name = vmsd_name
        self.version = version
        self.fields = fields
        self.subsections = subsections
        #: what `DeviceState.basis` says of it, where that is not its schema's origin
        self.basis = ""
        #: bytes that it has as described, where that is not all that it can have
        self.likely: int | None = None
        self.exact = exact
        self.open = open
        self.looser = looser
        self._loosened: BodyShape | None = None
        #: by name, of which QEMU has one that stands for two (LEG-VMS-043)
        self.named: dict[str, list[BodyShape]] = {}
        for sub in subsections:
            self.named.setdefault(sub.vmsd_name, []).append(sub)
        self.fixed = self._fixed()

    def _fixed(self) -> int | None:
        total = 0
        for shape in self.fields:
            if shape.fixed is None:
                return None
            total += shape.fixed
        if self.open or (self.subsections and not self.exact):
            return None
        for sub in self.subsections:
            if sub.fixed is None:
                return None
            total += 6 + len(sub.vmsd_name.encode()) + sub.fixed
        return total

    # -- searching -----------------------------------------------------------------

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        """Where the body may end, not behind `end`, if it starts at one of `starts`."""
        if starts[1].bit_count() > _FEW:
            return self._ends(region, starts, end)
        found = EMPTY
        for place in each(starts):
            found = union(found, self._ends_of(region, place, end))
        return found

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        """Those of `starts` from which one of `goal` is reached."""
        if starts[1].bit_count() > _FEW:
            outer, region.known = region.known, {}
            way = self._path(region, self.fields, starts, goal, end)
            region.known = outer
            return way[0]
        found = EMPTY
        for place in each(starts):
            if meet(self._ends_of(region, place, end), goal)[1]:
                found = union(found, (place, 1))
        return found

    def _ends_of(self, region: Region, place: int, end: int) -> Positions:
        """Where it may end if it starts at `place`: searched once."""
        key = self, place, end
        found = region.memo.get(key)
        if found is None:
            found = region.memo[key] = self._ends(region, (place, 1), end)
        return found

    def _ends(self, region: Region, starts: Positions, end: int) -> Positions:
        outer, region.known = region.known, {}
        for shape in self.fields:
            if starts[1] == 1:
                region.known[shape.name] = starts[0]
            starts = shape.ends(region, starts, end)
            if not starts[1]:
                break
        region.known = outer
        return self._after(region, starts, end)

    def _path(
        self, region: Region, shapes: Sequence[Shape], starts: Positions, goal: Positions, end: int
    ) -> list[Positions]:
        """The places before each of `shapes` and behind the last that lie on a way from
        `starts` to `goal`."""
        way = [starts]
        for shape in shapes:
            if way[-1][1] == 1:
                region.known[shape.name] = way[-1][0]
            way.append(shape.ends(region, way[-1], end) if way[-1][1] else EMPTY)
        way[-1] = self._leading(region, way[-1], goal, end)
        for index in range(len(shapes) - 1, -1, -1):
            following = way[index + 1]
            way[index] = shapes[index].starts(region, following, way[index], end) if following[1] else EMPTY
        return way

    def _mine(self, header: Header) -> bool:
        name = self.vmsd_name
        if header.name in self.named:
            return True
        return self.open and bool(name) and len(header.name) > len(name) and header.name.startswith(name)

    def _opens(self, region: Region, start: int, end: int) -> list[Header]:
        """What opens a subsection of this body, in order."""
        found = region.headers(start, end)
        region.budget -= len(found) >> 4
        return [header for header in found if self._mine(header)]

    def _sub_ends(self, region: Region, header: Header, opens: list[Header], end: int) -> Positions:
        subs = self.named.get(header.name)
        if subs is not None:
            ends = EMPTY
            for sub in subs:
                ends = union(ends, sub.ends(region, (header.body, 1), end))
            return ends
        following = bisect_left(opens, header.body, key=lambda other: other.place)
        return span(header.body, opens[following].place if following < len(opens) else end)

    def _after(self, region: Region, places: Positions, end: int) -> Positions:
        """Where the subsections may end that begin at one of `places`."""
        if not places[1]:
            return EMPTY
        opens = self._opens(region, places[0], end)
        for header in opens:
            if has(places, header.place):
                region.spend(places)
                ends = self._sub_ends(region, header, opens, end)
                places = union(without(places, (header.place, 1)), ends)
        return places

    def _leading(self, region: Region, places: Positions, goal: Positions, end: int) -> Positions:
        """Those of `places` from which subsections lead to one of `goal`."""
        return meet(places, self._works(region, places, goal, end)) if places[1] and goal[1] else EMPTY

    def _works(self, region: Region, places: Positions, goal: Positions, end: int) -> Positions:
        opens = self._opens(region, places[0], end)
        for header in reversed(opens):
            region.spend(goal)
            leads = meet(self._sub_ends(region, header, opens, end), goal)
            here = (header.place, 1)
            goal = union(goal, here) if leads[1] else without(goal, here)
        return goal

    # -- making fields ---------------------------------------------------------------

    def read(self, region: Region, start: int, end: int) -> list[Field]:
        """What fills exactly these bytes, by this shape or a looser one. Never fails: what
        does not fit is opaque."""
        shape = self
        while True:
            marked = len(region.notes)
            try:
                return shape.children(region, start, end)
            except Misfit as problem:
                del region.notes[marked:]
                looser = shape.loosened() if problem.kind is not NoteKind.BUDGET else None
                if looser is None:
                    return shape.beginning(region, start, end, problem)
                shape = looser
                region.loosened += 1

    def loosened(self) -> BodyShape | None:
        """The shape that allows more; made once."""
        if self._loosened is None and self.looser is not None:
            self._loosened = self.looser()
        return self._loosened

    def beginning(self, region: Region, start: int, end: int, problem: Misfit) -> list[Field]:
        """The fields in front whose places are certain however much is allowed; the rest opaque
        because of `problem`."""
        looser = self.loosened()
        if looser is not None:
            return looser.beginning(region, start, end, problem)
        found: list[Field] = []
        place = start
        name = "subsections"
        for shape in self.fields:
            name = shape.name
            try:
                if shape.fixed is None or place + shape.fixed > end:
                    break
                field = shape.explain(region, place, place + shape.fixed)
            except Misfit:
                break
            self._add(found, field)
            place += shape.fixed
        message = f"{problem.message}; not decoded from {name!a} on"
        note = region.note(problem.kind, message, place, end, "LEG-VMS-072")
        found.append(region.opaque("undecoded", place, end, note))
        return found

    def children(self, region: Region, start: int, end: int) -> list[Field]:
        """The fields and subsections. Raises `Misfit` where no reading fits."""
        outer, region.known = region.known, {}
        try:
            return self._children(region, start, end)
        finally:
            region.known = outer

    def _children(self, region: Region, start: int, end: int) -> list[Field]:
        if self.fixed is not None and self.fixed != end - start:
            raise Misfit(f"{self.vmsd_name!a} describes {self.fixed} bytes of {end - start}", start)
        found: list[Field] = []
        place = start
        for index, shape in enumerate(self.fields):
            if shape.fixed is None:
                return found + self._searched(region, index, place, end)
            if place + shape.fixed > end:
                raise Misfit(f"{shape.name!a} goes over the end", place, NoteKind.SHORT)
            region.known[shape.name] = place
            field = shape.explain(region, place, place + shape.fixed)
            self._add(found, field)
            place += shape.fixed
        if self.exact or not (self.open or self.subsections):
            for sub in self.subsections:
                place = self._listed(region, sub, place, found)
        else:
            self._subsections(region, place, end, found)
        return found

    def _searched(self, region: Region, first: int, start: int, end: int) -> list[Field]:
        """The fields from number `first` on, and the subsections."""
        if end - start > limits.VMSTATE_SEARCH:
            raise Misfit(f"over {limits.VMSTATE_SEARCH} bytes to search", start, NoteKind.BUDGET)
        shapes = self.fields[first:]
        way = self._path(region, shapes, (start, 1), (end, 1), end)
        if not way[0][1]:
            raise Misfit(f"no reading of {self.vmsd_name!a} fills {end - start} bytes", start)
        found: list[Field] = []
        index = 0
        while index < len(shapes):
            after = index + 1
            while after <= len(shapes) and way[after][1] != 1:
                after += 1
            if after > len(shapes):
                found.append(self._unclear(region, shapes[index:], way[index][0], end))
                return found
            self._between(region, shapes[index:after], way[index][0], way[after][0], found)
            index = after
        self._subsections(region, way[-1][0], end, found)
        return found

    def _between(
        self, region: Region, shapes: Sequence[Shape], start: int, end: int, found: list[Field]
    ) -> None:
        """Adds what these shapes are, between two certain places."""
        if len(shapes) > 1:
            found.append(self._unclear(region, shapes, start, end))
            return
        marked = len(region.notes)
        try:
            field = shapes[0].explain(region, start, end)
        except Misfit as problem:
            del region.notes[marked:]
            note = region.note(problem.kind, problem.message, start, end, "LEG-VMS-072")
            field = region.opaque(shapes[0].name, start, end, note)
        self._add(found, field)

    @staticmethod
    def _add(found: list[Field], field: Field | None) -> None:
        if field is not None:
            found.append(field)

    def _unclear(self, region: Region, shapes: Sequence[Shape], start: int, end: int) -> Field:
        names = [ascii(shape.name) for shape in shapes] or ["the subsections"]
        what = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        message = f"more than one reading of {what} fits"
        note = region.note(NoteKind.AMBIGUOUS, message, start, end, "LEG-VMS-072")
        return region.opaque("undecoded", start, end, note)

    # -- subsections -------------------------------------------------------------------

    def _listed(self, region: Region, sub: BodyShape, place: int, found: list[Field]) -> int:
        """Adds the subsection that must come next; returns the place behind it."""
        name = sub.vmsd_name.encode()
        opening = b"\x05" + bytes([len(name)]) + name + (sub.version & 0xFFFFFFFF).to_bytes(4, "big")
        body = place + len(opening)
        if region.data[place:body] != opening or sub.fixed is None:
            raise Misfit(f"subsection {sub.vmsd_name!a} is not there", place)
        header = Header(place, sub.vmsd_name, sub.version, body)
        end = body + sub.fixed
        found.append(self._subsection(region, header, end, sub.children(region, body, end)))
        return end

    def _subsections(self, region: Region, place: int, end: int, found: list[Field]) -> None:
        """Adds the subsections that fill these bytes."""
        if place == end:
            return
        opens = self._opens(region, place, end)
        works = self._works(region, (place, 1), (end, 1), end)
        by_place = {header.place: header for header in opens}
        while place != end:
            header = by_place.get(place)
            if header is None:
                raise Misfit(f"{end - place} bytes behind {self.vmsd_name!a}", place, NoteKind.EXCESS)
            ends = meet(self._sub_ends(region, header, opens, end), works)
            if not ends[1]:
                raise Misfit(f"no reading of subsection {header.name!a} fits", place)
            subs = self.named.get(header.name, ())
            fitting = [sub for sub in subs if meet(sub.ends(region, (header.body, 1), end), ends)[1]]
            if not subs:
                close = highest(ends)
                children = [self._unknown(region, header, close)]
            elif ends[1] == 1 and len(fitting) == 1:
                close = ends[0]
                children = fitting[0].read(region, header.body, close)
            else:
                found.append(self._unclear(region, self.fields[:0], place, end))
                return
            found.append(self._subsection(region, header, close, children))
            place = close

    def _unknown(self, region: Region, header: Header, end: int) -> Field:
        message = f"subsection {header.name!a} is not in the schema"
        note = region.note(NoteKind.UNDESCRIBED, message, header.body, end, "LEG-VMS-073")
        return region.opaque("undecoded", header.body, end, note)

    @staticmethod
    def _subsection(region: Region, header: Header, end: int, children: Sequence[Field]) -> Field:
        field = region.field(header.name, SUBSECTION_TYPE, header.place, end)
        field.children = children
        field.vmsd_name = header.name
        field.version = header.version
        return field
