"""The description at the end of a stream: JSON to a checked model.

Source: migration/vmstate.c `vmstate_save_state_v`, `vmsd_desc_field_start`,
migration/savevm.c `vmstate_save`; spelled by qjson.c (5.2), util/json-writer.c (6.0+).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qmig import limits
from qmig.legacy.vmstate.jsontext import JsonText, Pairs, Wrong, integer, items, require, string

RECORD: Final = "vmdesc"
_MAX_SIZE: Final = 1 << 40
_U32: Final = (1 << 32) - 1


class FieldDescription:
    """One field object. `size` is that of the field, or of the first element with `array_len`.

    `bodies` are the nested descriptions: one for a struct, vstruct or tmp, one per element
    of a list, none for the rest and for a struct pointer that was NULL (5.2 to 9.1).
    """

    __slots__ = ("array_len", "bodies", "name", "size", "type")

    def __init__(
        self, name: str, type_: str, size: int, array_len: int | None, bodies: Sequence[Body]
    ) -> None:
        self.name = name
        self.type = type_
        self.size = size
        self.array_len = array_len
        self.bodies = bodies

    @property
    def total(self) -> int:
        """Bytes of the field if all elements are as long as the first."""
        return self.size if self.array_len is None else self.size * self.array_len


class Body:
    """A VMSD as it was sent: its fields, then its subsections, in order of the stream."""

    __slots__ = ("fields", "subsections", "total", "version", "vmsd_name")

    def __init__(
        self, vmsd_name: str, version: int, fields: Sequence[FieldDescription], subsections: Sequence[Body]
    ) -> None:
        self.vmsd_name = vmsd_name
        self.version = version
        self.fields = fields
        self.subsections = subsections
        #: bytes, by the sizes described
        self.total = sum([field.total for field in fields])
        for sub in subsections:
            self.total += 6 + len(sub.vmsd_name.encode()) + sub.total


class DeviceDescription:
    """One FULL section. `body.vmsd_name` is "" for state that a handler wrote itself (`data`)."""

    __slots__ = ("body", "instance_id", "name")

    def __init__(self, name: str, instance_id: int, body: Body) -> None:
        self.name = name
        self.instance_id = instance_id
        self.body = body


class VmDescription:
    """A parsed vmdesc. `devices` are in stream order; `configuration` came with 8.2."""

    __slots__ = ("configuration", "devices", "page_size")

    def __init__(
        self, page_size: int, devices: Sequence[DeviceDescription], configuration: Body | None = None
    ) -> None:
        self.page_size = page_size
        self.devices = devices
        self.configuration = configuration


def parse_vmdesc(data: bytes | memoryview, base_offset: int = 0) -> VmDescription:
    """Reads a vmdesc; `base_offset` is the absolute offset of its first byte.

    Raises `RemoteProtocolError` (LEG-VMS-050 to 060) with the offset of what is wrong, and
    `LimitExceeded` (LEG-VMS-062). Keys that are not known are ignored.
    """
    text = JsonText(data, base=base_offset, record=RECORD, requirement="LEG-VMS-050")
    try:
        return _description(text.root)
    except Wrong as problem:
        raise text.wrong(problem) from None


def _description(root: object) -> VmDescription:
    if type(root) is not Pairs:
        raise Wrong("the description is no object")
    page_size: int | None = None
    devices: Sequence[DeviceDescription] | None = None
    configuration: Body | None = None
    for place, (key, value) in enumerate(root):
        try:
            if key == "page_size":
                page_size = integer(value, 1, limits.PAGE_SIZE, "page_size")
            elif key == "devices":
                devices = _devices(value)
            elif key == "configuration":
                configuration = _only_body(value, "configuration")
        except Wrong as problem:
            raise problem.at(place) from None
    if page_size is None or devices is None:
        raise Wrong("page_size or devices is missing")
    return VmDescription(page_size, devices, configuration)


def _devices(value: object) -> list[DeviceDescription]:
    found = []
    for index, item in items(value, "devices"):
        try:
            found.append(_device(item))
        except Wrong as problem:
            raise problem.at(index) from None
    return found


def _device(item: Pairs) -> DeviceDescription:
    name = string(item.first("name"), "name of a device", 255)
    instance_id = integer(item.first("instance_id"), 0, _U32, "instance_id")
    bodies = _bodies(item, 0)
    if len(bodies) != 1:
        raise Wrong(f"device {name!a} has {len(bodies)} descriptions")
    return DeviceDescription(name, instance_id, bodies[0])


def _only_body(value: object, what: str) -> Body:
    bodies = _nested(value, what, 0)
    if len(bodies) != 1:
        raise Wrong(f"{what} has {len(bodies)} descriptions")
    return bodies[0]


def _nested(value: object, what: str, depth: int) -> list[Body]:
    if type(value) is not Pairs:
        raise Wrong(f"{what} is no object")
    return _bodies(value, depth)


def _bodies(pairs: Pairs, depth: int) -> list[Body]:
    """The descriptions written into one object, whose keys repeat for each (LEG-VMS-060)."""
    if depth > limits.VMSTATE_DEPTH:
        raise Wrong(f"structures nested more than {limits.VMSTATE_DEPTH} deep")
    found: list[Body] = []
    name, version = "", 0
    fields: Sequence[FieldDescription] | None = None
    subsections: Sequence[Body] = ()
    for place, (key, value) in enumerate(pairs):
        try:
            if key == "vmsd_name":
                if fields is not None:
                    found.append(Body(name, version, fields, subsections))
                    fields, subsections = None, ()
                name = string(value, "vmsd_name")
            elif key == "version":
                version = integer(value, -(1 << 31), _U32, "version")
            elif key == "fields":
                require(fields is None, "fields without a vmsd_name before")
                fields = _fields(value, depth)
            elif key == "subsections":
                subsections = _subsections(value, depth)
        except Wrong as problem:
            raise problem.at(place) from None
    if fields is not None:
        found.append(Body(name, version, fields, subsections))
    elif name or subsections:
        raise Wrong("a description without fields")
    return found


def _subsections(value: object, depth: int) -> list[Body]:
    found = []
    for index, item in items(value, "subsections"):
        try:
            bodies = _bodies(item, depth + 1)
            one = len(bodies) == 1 and 0 < len(bodies[0].vmsd_name.encode()) < 256
            require(one, "a subsection is not one description with a name of 1 to 255 bytes")
        except Wrong as problem:
            raise problem.at(index) from None
        found.append(bodies[0])
    return found


def _fields(value: object, depth: int) -> list[FieldDescription]:
    found = []
    for index, item in items(value, "fields"):
        try:
            found.append(_field(item, depth))
        except Wrong as problem:
            raise problem.at(index) from None
    return found


_NOTHING: Final[tuple[Body, ...]] = ()


def _field(item: Pairs, depth: int) -> FieldDescription:
    if len(item) == 3:  # nearly all
        (k1, name), (k2, type_), (k3, size) = item
        if (
            (k1, k2, k3) == ("name", "type", "size")
            and type(name) is type(type_) is str
            and type(size) is int
            and 0 <= size < _MAX_SIZE
        ):
            return FieldDescription(name, type_, size, None, _NOTHING)
    name = string(item.first("name"), "name of a field")
    type_ = string(item.first("type"), "type of a field")
    size = integer(item.first("size"), 0, _MAX_SIZE, "size of a field")
    array_len: int | None = None
    bodies: Sequence[Body] = _NOTHING
    for place, (key, value) in enumerate(item):
        try:
            if key == "array_len":
                array_len = integer(value, 0, _MAX_SIZE, "array_len")
            elif key == "struct":
                bodies = _nested(value, "struct", depth + 1)
        except Wrong as problem:
            raise problem.at(place) from None
    if not bodies:
        bodies = _bodies(item, depth + 1)  # tmp, vstruct, lists: in the field object itself
    return FieldDescription(name, type_, size, array_len, bodies)
