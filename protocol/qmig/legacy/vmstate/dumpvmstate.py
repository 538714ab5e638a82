"""`-dump-vmstate FILE`: the VMSDs that are compiled into a QEMU, as JSON.

It says names, versions, sizes of the C members, which fields have a condition, and from 8.0
on how many elements a fixed array has. It does not say encodings, counts that are only known
at run time, lists, or whether a conditional field or a subsection is there (LEG-VMS-080).
Source: migration/savevm.c `dump_vmstate_json_to_file`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from qmig import limits
from qmig.legacy.vmstate.jsontext import JsonText, Pairs, Wrong, integer, items, pairs, string

RECORD: Final = "dump-vmstate"
_MAX: Final = (1 << 31) - 1
_MAX_SIZE: Final = 1 << 40


class StaticField:
    """One field as declared. `size` is that of the C member (of one element); `num` the
    elements of a fixed array; `name` is unique in its VMSD, as in a vmdesc."""

    __slots__ = ("conditional", "name", "num", "size", "version_id", "vmsd")

    def __init__(
        self,
        name: str,
        version_id: int,
        size: int,
        *,
        conditional: bool = False,
        num: int | None = None,
        vmsd: StaticVmsd | None = None,
    ) -> None:
        self.name = name
        self.version_id = version_id
        self.size = size
        self.conditional = conditional
        self.num = num
        self.vmsd = vmsd


class StaticVmsd:
    """One VMSD as declared."""

    __slots__ = ("fields", "minimum_version_id", "name", "subsections", "version_id")

    def __init__(
        self,
        name: str,
        version_id: int,
        minimum_version_id: int,
        fields: Sequence[StaticField],
        subsections: Sequence[StaticVmsd],
    ) -> None:
        self.name = name
        self.version_id = version_id
        self.minimum_version_id = minimum_version_id
        self.fields = fields
        self.subsections = subsections

    def key(self) -> tuple[Any, ...]:
        """Equal for VMSDs that are declared alike."""
        return (
            self.name,
            self.version_id,
            tuple(
                (f.name, f.version_id, f.size, f.conditional, f.num, f.vmsd and f.vmsd.key())
                for f in self.fields
            ),
            tuple(sub.key() for sub in self.subsections),
        )

    def within(self) -> Iterator[StaticVmsd]:
        """This one and every one below."""
        yield self
        for field in self.fields:
            if field.vmsd is not None:
                yield from field.vmsd.within()
        for sub in self.subsections:
            yield from sub.within()


class DumpVmstate:
    """A parsed file. `classes` maps device classes to their VMSDs; `counts` says whether the
    file tells the lengths of fixed arrays."""

    __slots__ = ("classes", "counts", "machine")

    def __init__(self, machine: str | None, classes: dict[str, StaticVmsd], *, counts: bool) -> None:
        self.machine = machine
        self.classes = classes
        self.counts = counts


def parse_dump_vmstate(data: bytes | memoryview) -> DumpVmstate:
    """Reads such a file. Raises `RemoteProtocolError` (LEG-VMS-080) with the offset of what is
    wrong, `LimitExceeded` (LEG-VMS-062) for what is too large."""
    text = JsonText(data, base=0, record=RECORD, requirement="LEG-VMS-080")
    try:
        return _file(text.root)
    except Wrong as problem:
        raise text.wrong(problem) from None


def _file(root: object) -> DumpVmstate:
    machine: str | None = None
    classes: dict[str, StaticVmsd] = {}
    for place, (key, value) in enumerate(pairs(root, "the file")):
        try:
            if key == "vmschkmachine":
                machine = string(pairs(value, ascii(key)).first("Name"), "Name")
            else:
                classes[key] = _described(pairs(value, ascii(key)), 0)
        except Wrong as problem:
            raise problem.at(place) from None
    counts = any(
        field.num is not None for vmsd in classes.values() for one in vmsd.within() for field in one.fields
    )
    return DumpVmstate(machine, classes, counts=counts)


def _described(holder: Pairs, depth: int) -> StaticVmsd:
    for place, (key, value) in enumerate(holder):
        if key == "Description":
            try:
                return _vmsd(value, depth)
            except Wrong as problem:
                raise problem.at(place) from None
    raise Wrong("no Description")


def _vmsd(value: object, depth: int) -> StaticVmsd:
    description = pairs(value, "a Description")
    if depth > limits.VMSTATE_DEPTH:
        raise Wrong(f"structures nested more than {limits.VMSTATE_DEPTH} deep")
    fields: Sequence[StaticField] = ()
    subsections: Sequence[StaticVmsd] = ()
    for place, (key, part) in enumerate(description):
        try:
            if key == "Fields":
                fields = _unique(_fields(part, depth))
            elif key == "Subsections":
                subsections = _subsections(part, depth)
        except Wrong as problem:
            raise problem.at(place) from None
    return StaticVmsd(
        string(description.first("name"), "name of a VMSD"),
        integer(description.first("version_id"), -_MAX, _MAX, "version_id"),
        integer(description.first("minimum_version_id"), -_MAX, _MAX, "minimum_version_id"),
        fields,
        subsections,
    )


def _subsections(value: object, depth: int) -> list[StaticVmsd]:
    found = []
    for index, item in items(value, "Subsections"):
        try:
            found.append(_vmsd(item, depth + 1))
        except Wrong as problem:
            raise problem.at(index) from None
    return found


def _fields(value: object, depth: int) -> list[StaticField]:
    found = []
    for index, item in items(value, "Fields"):
        try:
            found.append(_field(item, depth))
        except Wrong as problem:
            raise problem.at(index) from None
    return found


def _field(item: Pairs, depth: int) -> StaticField:
    keys = dict(item)
    conditional = keys.get("field_exists")
    if type(conditional) is not bool:
        raise Wrong("field_exists is neither true nor false")
    return StaticField(
        string(keys.get("field"), "name of a field"),
        integer(keys.get("version_id"), -_MAX, _MAX, "version_id"),
        integer(keys.get("size"), 0, _MAX_SIZE, "size of a field"),
        conditional=conditional,
        num=integer(keys["num"], 0, _MAX, "num") if "num" in keys else None,
        vmsd=_described(item, depth + 1) if "Description" in keys else None,
    )


def _unique(fields: Sequence[StaticField]) -> Sequence[StaticField]:
    """The fields, named as QEMU names them in a vmdesc where a name comes more than once."""
    names = [field.name for field in fields]
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    seen: dict[str, int] = {}
    for field in fields:
        if field.name in repeated:
            number = seen.get(field.name, 0)
            seen[field.name] = number + 1
            field.name = f"{field.name}[{number}]"
    return fields
