"""From declared VMSDs (`-dump-vmstate`) to shapes.

Looseness, tried in this order:
0  what is known of a field's encoding (`known`), else the plainest one for its size.;
1  arrays whose length is found at run time have any length, not the one they always had;
2  fields of which nothing is known may also be arrays of any length, lists, or pointers.

With `usual`, conditional fields are there or not as they always were in what real builds sent, and arrays
as long as they mostly were: for bytes that more than one reading fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.compiled import ALLOWED
from qmig.legacy.vmstate.containers import Array, Struct
from qmig.legacy.vmstate.dumpvmstate import StaticField, StaticVmsd
from qmig.legacy.vmstate.known import Encoding, encoding_of
from qmig.legacy.vmstate.linked import OWN_LENGTH, Linked, Msix, Own, PciConfig
from qmig.legacy.vmstate.lists import Queue, Tree
from qmig.legacy.vmstate.shapes import Blob, Either, Leaf, Optional, Shape
from qmig.legacy.vmstate.types import LISTS, SCALARS, VMStateType

LOOSEST: Final = 2


class Style(NamedTuple):
    """How much a shape allows."""

    looseness: int = 0
    usual: bool = False


PLAIN: Final = Style()
USUAL: Final = Style(usual=True)

#: the plainest type of a C member of so many bytes
_BY_SIZE: Final = {
    1: VMStateType.UINT8,
    2: VMStateType.UINT16,
    4: VMStateType.UINT32,
    8: VMStateType.UINT64,
}
#: `type` of a field whose encoding is not known
UNKNOWN: Final = "unknown"


def static_body(vmsd: StaticVmsd, version: int | None = None, style: Style = PLAIN) -> BodyShape:
    """The shape of a VMSD in `version` (None: its newest)."""
    wanted = vmsd.version_id if version is None else version
    looser = style._replace(looseness=style.looseness + 1)
    fields: list[Shape] = []
    widths: dict[str, int] = {}
    for field in vmsd.fields:
        if field.conditional or field.version_id <= wanted:
            fields.append(_field(vmsd.name, field, widths, style))
            if field.vmsd is None and field.num is None and field.size in _BY_SIZE:
                widths[field.name] = field.size
    return BodyShape(
        vmsd.name,
        wanted,
        _one_config(fields, style) if vmsd.name == "PCIDevice" else fields,
        [static_body(sub, None, style) for sub in vmsd.subsections],
        looser=(lambda: static_body(vmsd, version, looser)) if style.looseness < LOOSEST else None,
    )


def _one_config(fields: Sequence[Shape], style: Style) -> list[Shape]:
    """The two conditional fields for the configuration space as one, since exactly one is sent."""
    found: list[Shape] = []
    for shape in fields:
        last = found[-1] if found else None
        if shape.name == "config[1]" and isinstance(shape, Optional) and isinstance(last, Optional):
            either = Either([last.inner, shape.inner])
            found[-1] = either if style.looseness else PciConfig(last.name, shape.name)
        else:
            found.append(shape)
    return found


def _field(vmsd_name: str, field: StaticField, widths: Mapping[str, int], style: Style) -> Shape:
    known = encoding_of(vmsd_name, field.name)
    encoding = known if known is not None and known.type else None
    if field.vmsd is not None:
        shape = _nested(field, field.vmsd, encoding, style)
    elif encoding is not None:
        shape = _encoded(field, encoding, style)
    else:
        shape = _guessed(field, style)
    if encoding is not None and style.looseness == 0:
        shape = _lengthened(shape, encoding, widths)
    return _there(shape, known, widths, style) if field.conditional else shape


def _there(shape: Shape, known: Encoding | None, widths: Mapping[str, int], style: Style) -> Shape:
    """A conditional field."""
    free = Optional(shape)
    if known is None or (style.looseness and not style.usual):
        return free
    absent = Leaf(shape.name, VMStateType.BUFFER, 0)
    if known.condition is not None and known.condition in widths and not style.looseness:
        width = widths[known.condition]
        return Linked(known.condition, width, lambda value: shape if value else absent, free)
    if not style.usual or known.there is None:
        return free
    return shape if known.there else absent


def _lengthened(shape: Shape, known: Encoding, widths: Mapping[str, int]) -> Shape:
    """The shape with the length that a field in front tells, if one does."""
    if known.length is None or known.length not in widths:
        return shape
    width = widths[known.length]
    if isinstance(shape, Array):
        element = shape.element
        return Linked(known.length, width, lambda count: Array(element, count), shape)
    if isinstance(shape, Blob):
        name, type_ = shape.name, shape.type
        return Linked(known.length, width, lambda size: Leaf(name, type_, size), shape)
    return shape


def _nested(field: StaticField, vmsd: StaticVmsd, known: Encoding | None, style: Style) -> Shape:
    body = static_body(vmsd, None, style)
    name = field.name
    if known is not None and known.type == VMStateType.PTR_MARKER:
        return Array(Struct(name, body), None, marked=True)
    if known is not None and (known.type in SCALARS or known.open):
        return _encoded(field, known, style)
    if known is not None and known.type in LISTS:
        return Queue(name, known.type, body)
    if known is not None and known.type == VMStateType.GTREE:
        return Tree(name, None, body) if style.looseness < LOOSEST else Blob(name, known.type)
    type_ = known.type if known is not None else VMStateType.STRUCT
    element = Struct(name, body, type_)
    if known is not None and field.num is None and (known.array or known.count is not None):
        return Array(element, known.count if _counted(known, style) else None)
    count = field.num
    if count is not None:
        return Array(element, count, nullable=style.looseness == LOOSEST)
    if known is not None or style.looseness < LOOSEST:
        return element
    return Either([element, Array(element, None, nullable=True), Queue(name, VMStateType.QTAILQ, body)])


def _counted(known: Encoding, style: Style) -> bool:
    """Whether an array has the length that it had so far. One whose length the file does not
    tell is not trusted to the last, since the C source may have changed it."""
    if known.count is None:
        return False
    if not known.array:
        return style.looseness < LOOSEST
    return style.looseness == 0 and (style.usual or not known.mostly)


def _encoded(field: StaticField, known: Encoding, style: Style) -> Shape:
    """A field of known encoding."""
    name, type_ = field.name, known.type
    if type_ in OWN_LENGTH:
        return Own(name, type_, OWN_LENGTH[type_])
    if known.open:
        return Blob(name, type_)
    size = SCALARS[type_][1] if type_ in SCALARS else field.size if known.size is None else known.size
    allowed = ALLOWED.get(type_)
    if type_ == VMStateType.MSIX:
        return Msix(name)
    listed = known.array or known.count is not None
    if listed and field.num is None and not _counted(known, style):
        return Array(Leaf(name, type_, size, None, allowed), None)
    return Leaf(name, type_, size, known.count if field.num is None else field.num, allowed)


def _guessed(field: StaticField, style: Style) -> Shape:
    """A field of which only the C member's size is known."""
    name, size = field.name, field.size
    if name.startswith("unused") and size:
        zero = ALLOWED[VMStateType.UNUSED_BUFFER] if style.looseness < LOOSEST else None
        return Leaf(name, VMStateType.UNUSED_BUFFER, size, field.num, zero)
    if not size:
        return Blob(name, UNKNOWN)
    type_ = _BY_SIZE.get(size, VMStateType.BUFFER)
    plain = Leaf(name, type_, size, field.num)
    if field.num is not None or style.looseness < LOOSEST:
        return plain
    choices: Sequence[Shape] = [plain, Array(Leaf(name, type_, size), None)]
    return Either(choices if type_ != VMStateType.BUFFER else [*choices, Blob(name, UNKNOWN)])
