"""From descriptions to shapes.

`tight` takes every described length as it is, for the stream that the description came with.
`general` describes the same VMSD in other places (further elements of an array, another
stream of the same machine), as one shape over all descriptions of it that there are.

Looseness, tried in this order:
0  lengths as described; lists of any length, described subsections present or not;
1  also subsections that no description shows, device-private fields of any length, and NULL
   elements in arrays;
2  also arrays of any count and buffers of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.containers import Array, Struct
from qmig.legacy.vmstate.linked import OWN_LENGTH, Linked, Own
from qmig.legacy.vmstate.lists import Queue, Tree
from qmig.legacy.vmstate.rows import Row, Undescribed
from qmig.legacy.vmstate.shapes import NULL, VALID, Blob, Leaf, Optional, Shape
from qmig.legacy.vmstate.types import LISTS, MARKERS, NESTED, SCALARS, WORDS, VMStateType
from qmig.legacy.vmstate.vmdesc import Body, FieldDescription

LOOSEST: Final = 2
_BUFFERS: Final = frozenset({VMStateType.BUFFER, VMStateType.UNUSED_BUFFER, *WORDS, VMStateType.PCI_CONFIG})


def rows_of(body: Body) -> list[list[FieldDescription]]:
    """The fields, those that follow each other under one name together (LEG-VMS-058)."""
    rows: list[list[FieldDescription]] = []
    for field in body.fields:
        if rows and rows[-1][0].name == field.name:
            rows[-1].append(field)
        else:
            rows.append([field])
    return rows


# -- as described ------------------------------------------------------------------------


def tight(body: Body) -> BodyShape:
    """The shape of a body with exactly the described lengths."""
    return BodyShape(
        body.vmsd_name,
        body.version,
        [_tight_row(row) for row in rows_of(body)],
        [tight(sub) for sub in body.subsections],
        exact=True,
        looser=lambda: _loosened(body, 1),
    )


def _tight_row(row: Sequence[FieldDescription]) -> Shape:
    return tight_field(row[0]) if len(row) == 1 else Row(row[0].name, [tight_field(field) for field in row])


def tight_field(field: FieldDescription) -> Shape:
    name, type_, size, count = field.name, field.type, field.size, field.array_len
    if not field.bodies:
        return _plain(field)
    if type_ in NESTED or (len(field.bodies) == 1 and field.bodies[0].total == size):
        nested = Struct(name, tight(field.bodies[0]), type_, size)
        return nested if count is None else Array(nested, count)
    if count is None and type_ in LISTS:
        listed = [tight(body) for body in field.bodies]
        return Queue(name, type_, general(field.bodies, 0), size=size, listed=listed)
    if count is None and type_ == VMStateType.GTREE:
        return _tight_tree(field)
    return _plain(field)


def _plain(field: FieldDescription) -> Shape:
    """A field without nested descriptions."""
    name, type_, size, count = field.name, field.type, field.size, field.array_len
    if type_ in MARKERS:
        return Leaf(name, type_, size, count, NULL + VALID)
    if type_ == VMStateType.STRUCT and size == 1 and not field.bodies:
        return Leaf(name, VMStateType.NULLPTR, 1, count, NULL)
    if type_ in LISTS and count is None:
        return Queue(name, type_, None, size=size)
    if type_ == VMStateType.GTREE and count is None:
        return Tree(name, None, None, size=size)
    return Leaf(name, type_, size, count)


def _tight_tree(field: FieldDescription) -> Shape:
    """A gtree: its bodies are values only, or keys and values in turn; the size tells."""
    bodies = field.bodies
    marked = field.size - 5 - sum(body.total for body in bodies)
    listed = [tight(body) for body in bodies]
    if marked == 9 * len(bodies):
        return Tree(field.name, None, general(bodies, 0), size=field.size, listed=listed)
    if 2 * marked == len(bodies):
        key, value = general(bodies[::2], 0), general(bodies[1::2], 0)
        return Tree(field.name, key, value, size=field.size, listed=listed)
    return Leaf(field.name, field.type, field.size)


def _loosened(body: Body, looseness: int) -> BodyShape:
    """The same with elements behind the first of an array that need not be like it."""
    return BodyShape(
        body.vmsd_name,
        body.version,
        [_loose_row(row, looseness) for row in rows_of(body)],
        [tight(sub) for sub in body.subsections],
        looser=(lambda: _loosened(body, looseness + 1)) if looseness < LOOSEST else None,
    )


def _loose_row(row: Sequence[FieldDescription], looseness: int) -> Shape:
    if len(row) == 1 and row[0].array_len is not None:
        return _general_row([row], looseness, count=row[0].array_len)
    if any(field.array_len is not None for field in row):
        return _general_row([row], looseness, count=sum(field.array_len or 1 for field in row))
    return _tight_row(row)


# -- in general -----------------------------------------------------------------------------


def variants(bodies: Sequence[Body], *, described: bool = False) -> list[BodyShape]:
    """One shape for each order of fields that descriptions of the same VMSD show; any of their
    subsections may come behind each. `described`: they are of the very device."""
    orders: dict[tuple[str, ...], list[Body]] = {}
    for body in bodies:
        orders.setdefault(tuple(row[0].name for row in rows_of(body)), []).append(body)
    found = []
    for alike in orders.values():
        shape = general(alike, 0, bodies, alone=True)
        shape.likely = alike[0].total if described else None
        found.append(shape)
    return found


def general(
    bodies: Sequence[Body], looseness: int, others: Sequence[Body] | None = None, *, alone: bool = False
) -> BodyShape:
    """One shape for all of `bodies`, which describe the same VMSD; with subsections of `others`.
    One that is `alone`, no element of an array or list, may have further subsections."""
    rows = _aligned(bodies)
    fields: list[Shape] = []
    for group in rows:
        shape = _lengthened(bodies[0].vmsd_name, _general_row(group, looseness), looseness)
        if len(group) < len(bodies):
            shape = _conditional(bodies[0].vmsd_name, shape, looseness)
        fields.append(shape)
    subs: dict[str, list[Body]] = {}
    for body in others or bodies:
        for sub in body.subsections:
            subs.setdefault(sub.vmsd_name, []).append(sub)
    return BodyShape(
        bodies[0].vmsd_name,
        bodies[0].version,
        fields,
        [general(same, looseness, alone=True) for same in subs.values()],
        open=alone or looseness > 0,
        looser=(lambda: general(bodies, looseness + 1, others, alone=alone)) if looseness < LOOSEST else None,
    )


def _lengthened(vmsd_name: str, shape: Shape, looseness: int) -> Shape:
    """An array whose length a field in front is known to tell."""
    from qmig.legacy.vmstate.known import encoding_of

    known = encoding_of(vmsd_name, shape.name)
    if known is None or known.length is None or looseness:
        return shape
    element: Shape
    if isinstance(shape, Leaf) and shape.count:
        element = Leaf(shape.name, shape.type, (shape.fixed or 0) // shape.count, None, shape.allowed)
    elif isinstance(shape, Array):
        element = shape.element
    else:
        return shape
    return Linked(known.length, 4, lambda count: Array(element, count), shape)


def _conditional(vmsd_name: str, shape: Shape, looseness: int) -> Shape:
    """A field that some descriptions show and others do not."""
    free = Optional(shape)
    from qmig.legacy.vmstate.known import encoding_of

    known = encoding_of(vmsd_name, shape.name)
    if known is None or known.condition is None or looseness:
        return free
    absent = Leaf(shape.name, VMStateType.BUFFER, 0)
    return Linked(known.condition, 4, lambda value: shape if value else absent, free)


def _aligned(bodies: Sequence[Body]) -> list[list[list[FieldDescription]]]:
    """The rows of all bodies by name, in an order that holds for each; those of the first
    body alone where there is none."""
    merged: dict[str, list[list[FieldDescription]]] = {}
    order: list[str] = []
    for body in bodies:
        place = 0
        for row in rows_of(body):
            name = row[0].name
            if name in merged:
                found = order.index(name)
                if found < place:
                    return [[row] for row in rows_of(bodies[0])]
                place = found + 1
                merged[name].append(row)
            else:
                order.insert(place, name)
                merged[name] = [row]
                place += 1
    return [merged[name] for name in order]


def _general_row(
    rows: Sequence[Sequence[FieldDescription]], looseness: int, count: int | None = None
) -> Shape:
    """One shape for all descriptions of one field; `count` if the number of elements is known."""
    fields = [field for row in rows for field in row]
    marked = [field for field in fields if field.type in MARKERS or _is_null(field)]
    real = [field for field in fields if not (field.type in MARKERS or _is_null(field))]
    counts = {sum(_elements(field) for field in row) for row in rows}
    array = any(field.array_len is not None for field in fields) or any(len(row) > 1 for row in rows)
    if count is None and len(counts) == 1 and looseness < LOOSEST:
        (count,) = counts
    if not real:
        alone = not array and looseness < LOOSEST
        return _plain(fields[0]) if alone else Undescribed(fields[0].name, count)
    element = _general_element(real, looseness, alone=not array and not marked)
    if marked and any(field.type == VMStateType.PTR_MARKER for field in marked) and _doubled(rows):
        return Array(element, None, marked=True)
    if not array and not marked and (count == 1 or looseness < LOOSEST):
        return element
    if isinstance(element, Leaf) and count is not None and not marked and looseness < LOOSEST:
        return Leaf(element.name, element.type, element.fixed or 0, count)
    nullable = bool(marked) or (looseness > 0 and isinstance(element, Struct))
    return Array(element, count, nullable=nullable)


def _is_null(field: FieldDescription) -> bool:
    return field.type == VMStateType.STRUCT and not field.bodies and field.size == 1


def _elements(field: FieldDescription) -> int:
    return 1 if field.array_len is None else field.array_len


def _doubled(rows: Iterable[Sequence[FieldDescription]]) -> bool:
    """Whether every element that is there has a marker in front: a marker with value 1 is
    always followed by the element, so two elements never follow each other."""
    for row in rows:
        before = False
        for field in row:
            is_marker = field.type == VMStateType.PTR_MARKER
            if not is_marker and not before:
                return False
            before = is_marker
    return True


def _general_element(fields: Sequence[FieldDescription], looseness: int, *, alone: bool) -> Shape:
    first = fields[0]
    name, type_ = first.name, first.type
    bodies = [body for field in fields for body in field.bodies]
    if type_ in LISTS:
        return Queue(name, type_, general(bodies, looseness) if bodies else None)
    if type_ == VMStateType.GTREE:
        return _general_tree(fields, looseness)
    if bodies and (type_ in NESTED or all(len(field.bodies) == 1 for field in fields)):
        return Struct(name, general(bodies, looseness, alone=alone), type_)
    sizes = {field.size for field in fields}
    if type_ in OWN_LENGTH:
        return Own(name, type_, OWN_LENGTH[type_])
    if type_ in SCALARS or (len(sizes) == 1 and looseness < (2 if type_ in _BUFFERS else 1)):
        return Leaf(name, type_, first.size, None, ALLOWED.get(type_))
    return Blob(name, type_)


#: what QEMU writes for these, whatever it accepts
ALLOWED: Final[dict[str, bytes]] = {
    VMStateType.BOOL: b"\0\1",
    VMStateType.POWERED_OFF: b"\0\1",
    VMStateType.UNUSED_BUFFER: b"\0",
    VMStateType.NULLPTR: NULL,
    VMStateType.PTR_MARKER: NULL + VALID,
}


def _general_tree(fields: Sequence[FieldDescription], looseness: int) -> Shape:
    keys: list[Body] = []
    values: list[Body] = []
    for field in fields:
        keyed = 2 * (field.size - 5 - sum(body.total for body in field.bodies)) == len(field.bodies)
        if field.bodies and keyed:
            keys += field.bodies[::2]
            values += field.bodies[1::2]
        else:
            values += field.bodies
    name = fields[0].name
    key = general(keys, looseness) if keys else None
    return Tree(name, key, general(values, looseness) if values else None)
