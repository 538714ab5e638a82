"""Schemas: where the state of a device ends, and what is in it.

A schema is the stream's own description, one of another stream of the same machine, a
`-dump-vmstate` file, or what is known of the VMSDs that such files lack. All of them answer
the same two questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from qmig.errors import ProtocolError
from qmig.legacy.vmstate import follow
from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.compiled import tight, variants
from qmig.legacy.vmstate.decode import budget_for, decode_body
from qmig.legacy.vmstate.model import DeviceState, Note, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, members
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.vmdesc import Body, VmDescription, parse_vmdesc

if TYPE_CHECKING:
    from qmig.legacy.vmstate.dumpvmstate import DumpVmstate, StaticVmsd

#: bytes of a window in which the end of a section is searched for, smallest first
_WINDOWS = (1 << 14, 1 << 18, 1 << 22)


class Section(Protocol):
    """The header of a FULL section, as far as a schema needs it."""

    @property
    def section_id(self) -> int: ...
    @property
    def idstr(self) -> str: ...
    @property
    def instance_id(self) -> int: ...
    @property
    def version_id(self) -> int: ...


class DeviceSchema:
    """`origin` is what `DeviceState.basis` and the boundary of a section say."""

    origin = ""

    def candidates(self, section: Section) -> Iterator[Sequence[BodyShape]]:
        """What the section may look like: groups of shapes, each for when nothing in those
        before it fits."""
        raise NotImplementedError

    def ends(self, section: Section, view: memoryview) -> Iterator[int]:
        """Possible lengths of the body at the start of `view`, the most likely first.

        Lengths that the schema fixes or describes come as they are, whatever stands there;
        others only where something plausible follows in `view`.
        """
        told: set[int] = set()
        level = [shape for group in self.candidates(section) for shape in group]
        for shape in level:
            likely = shape.likely if shape.fixed is None else shape.fixed
            if likely is not None and likely not in told:
                told.add(likely)
                yield likely
        while level:
            for shape in level:
                lengths = _searched(shape, section, view) if shape.fixed is None else iter((shape.fixed,))
                for length in lengths:
                    if length not in told:
                        told.add(length)
                        yield length
            level = [looser for shape in level if (looser := shape.loosened()) is not None]

    def decode(self, section: Section, data: memoryview, base_offset: int) -> DeviceState:
        """The fields of a section whose body is `data`. What cannot be decoded is opaque, with a
        note that says why."""
        best: DeviceState | None = None
        for group in self.candidates(section):
            states = [self._decoded(shape, section, data, base_offset) for shape in group]
            whole = [state for state in states if not state.opaque_bytes()]
            if whole:
                closest = min(state.loosened for state in whole)
                return _agreed([state for state in whole if state.loosened == closest])
            best = min([best, *states] if best else states, key=DeviceState.opaque_bytes)
        return best or unknown_device(section, data, base_offset)

    def _decoded(self, shape: BodyShape, section: Section, data: memoryview, base_offset: int) -> DeviceState:
        return decode_body(
            shape,
            data,
            base_offset,
            idstr=section.idstr,
            instance_id=section.instance_id,
            version_id=section.version_id,
            basis=shape.basis or self.origin,
        )


def _agreed(states: Sequence[DeviceState]) -> DeviceState:
    """One of several complete decodings of the same bytes."""
    first = states[0]
    different = 1 + sum(_outline(state) != _outline(first) for state in states[1:])
    if different > 1:
        message = f"{different} declarations of that name fit; the fields are those of one"
        note = Note(NoteKind.AMBIGUOUS, message, first.offset, first.size, "LEG-VMS-085")
        first.notes = [note, *first.notes]
    return first


def _outline(state: DeviceState) -> list[tuple[str, str, int]]:
    return [(path, field.type, field.offset) for path, field in state.walk()]


def unknown_device(section: Section, data: memoryview, base_offset: int) -> DeviceState:
    """A section that nothing describes: all of it opaque."""
    region = Region(data, base_offset, budget=0)
    message = f"nothing describes the state of {section.idstr!a}"
    note = region.note(NoteKind.UNDESCRIBED, message, 0, len(data), "LEG-VMS-003")
    return DeviceState(
        idstr=section.idstr,
        instance_id=section.instance_id,
        vmsd_name=None,
        version_id=section.version_id,
        offset=base_offset,
        size=len(data),
        basis="",
        fields=[region.opaque("undecoded", 0, len(data), note)],
        notes=region.notes,
    )


def _searched(shape: BodyShape, section: Section, view: memoryview) -> Iterator[int]:
    """Lengths that the shape allows and the bytes behind make plausible, those first that
    what stands behind is sure evidence of."""
    unsure: list[int] = []
    for window in _WINDOWS:
        limit = min(window, len(view))
        region = Region(view[:limit], 0, budget=budget_for(limit))
        try:
            ends: Positions = shape.ends(region, (0, 1), limit)
        except Misfit:
            ends = EMPTY
        sure, weak = follow.places(view, section.section_id, limit)
        yield from members(ends, sure)
        unsure += members(ends, weak)
        if limit == len(view):
            break
    yield from unsure


def names_of(idstr: str) -> list[str]:
    """The VMSD names that an idstr may end in: it is the VMSD's own name, with the qdev
    path of the device in front and a slash between (LEG-VMS-081)."""
    parts = idstr.split("/")
    return ["/".join(parts[index:]) for index in range(len(parts))]


class StreamSchema(DeviceSchema):
    """The description of a stream: of the one to be read (`own`), or of another one."""

    def __init__(self, description: VmDescription, *, own: bool, origin: str | None = None) -> None:
        self.origin = origin or ("vmdesc" if own else "schema")
        self.own = own
        self.description = description
        self._devices: dict[tuple[str, int], list[Body]] = {}
        self._named: dict[str, list[Body]] = {}
        # a body's end is asked for, then its fields: its shape is made once
        self._latest: tuple[list[Body], list[BodyShape]] = ([], [])
        for device in description.devices:
            self._devices.setdefault((device.name, device.instance_id), []).append(device.body)
            if device.body.vmsd_name:
                self._named.setdefault(device.body.vmsd_name, []).append(device.body)

    def ends(self, section: Section, view: memoryview) -> Iterator[int]:
        if self.own:  # as described, which needs no shapes: most callers want nothing else
            for body in self._devices.get((section.idstr, section.instance_id), []):
                yield body.total
        yield from super().ends(section, view)

    def candidates(self, section: Section) -> Iterator[Sequence[BodyShape]]:
        exact = self._devices.get((section.idstr, section.instance_id), [])
        if self.own:
            if exact:
                if self._latest[0] is not exact:
                    self._latest = exact, [tight(body) for body in exact]
                yield self._latest[1]
            return
        shapes = variants(exact, described=True) if exact else []
        for name in [body.vmsd_name for body in exact] or names_of(section.idstr):
            alike = self._alike(name, section.version_id)
            shapes += variants(alike) if alike else []
        if shapes:
            yield shapes

    def _alike(self, name: str, version: int) -> list[Body]:
        """All descriptions of a VMSD; those of the version, if there are such."""
        named = self._named.get(name, [])
        return [body for body in named if body.version == version] or named


class DumpSchema(DeviceSchema):
    """A `-dump-vmstate` file, and what is known of the VMSDs that no such file has.

    A name may stand for VMSDs of several device classes, for one that is registered without
    a device, and for one that is only declared inside others; the last is tried when there
    is no other.
    """

    origin = "dump-vmstate"

    def __init__(self, dump: DumpVmstate) -> None:
        self.dump = dump
        self._shapes: dict[tuple[int, int, bool], BodyShape] = {}
        self._builtin = BuiltinSchema()
        self._named = _by_name(dump.classes.values())
        self._nested = _by_name(one for vmsd in dump.classes.values() for one in vmsd.within())

    def _declared(self, section: Section, named: dict[str, list[StaticVmsd]]) -> Sequence[StaticVmsd]:
        for name in names_of(section.idstr):
            declared = named.get(name)
            if declared:
                pci = [vmsd for vmsd in declared if _is_pci(vmsd)]
                return pci if pci and _PCI_PATH.match(section.idstr) else declared
        return ()

    def candidates(self, section: Section) -> Iterator[Sequence[BodyShape]]:
        declared = self._declared(section, self._named)
        if declared:
            yield [self._shape(vmsd, section.version_id, usual=False) for vmsd in declared]
        yield from self._builtin.candidates(section)
        nested = self._declared(section, self._nested)
        if nested and not declared:
            yield [self._shape(vmsd, section.version_id, usual=False) for vmsd in nested]

    def _shape(self, vmsd: StaticVmsd, version: int, *, usual: bool) -> BodyShape:
        from qmig.legacy.vmstate.static import PLAIN, USUAL, static_body

        key = id(vmsd), version, usual
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = static_body(vmsd, version, USUAL if usual else PLAIN)
        return shape

    def _decoded(self, shape: BodyShape, section: Section, data: memoryview, base_offset: int) -> DeviceState:
        state = super()._decoded(shape, section, data, base_offset)
        if not any(note.kind in _UNDECIDED for note in state.notes):
            return state
        for vmsd in self._declared(section, self._named):
            again = self._shape(vmsd, section.version_id, usual=True)
            usual = super()._decoded(again, section, data, base_offset)
            if vmsd.name == shape.vmsd_name and not usual.opaque_bytes():
                message = "more than one reading fits; conditional fields are as real builds send them"
                note = Note(NoteKind.INFERRED, message, base_offset, len(data), "LEG-VMS-086")
                usual.notes = [*usual.notes, note]
                return usual
        return state


def _by_name(vmsds: Iterable[StaticVmsd]) -> dict[str, list[StaticVmsd]]:
    """VMSDs by name; those that are declared alike once."""
    found: dict[str, dict[tuple[object, ...], StaticVmsd]] = {}
    for vmsd in vmsds:
        found.setdefault(vmsd.name, {}).setdefault(vmsd.key(), vmsd)
    return {name: list(alike.values()) for name, alike in found.items()}


#: idstr of a device on a PCI bus
_PCI_PATH = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7][/:]")
_UNDECIDED = frozenset({NoteKind.AMBIGUOUS, NoteKind.BUDGET})


def _is_pci(vmsd: StaticVmsd) -> bool:
    return any(one.name == "PCIDevice" for one in vmsd.within())


class BuiltinSchema(StreamSchema):
    """What is known of the VMSDs that are part of no device class."""

    def __init__(self) -> None:
        from qmig.legacy.vmstate import known

        super().__init__(known.layouts(), own=False, origin="built-in")

    def candidates(self, section: Section) -> Iterator[Sequence[BodyShape]]:
        for name in names_of(section.idstr):
            alike = [body for body in self._named.get(name, []) if body.version == section.version_id]
            if alike:
                shapes = variants(alike)
                for shape in shapes:
                    shape.basis = self.origin
                yield shapes


def schema_from_vmdesc(text: bytes) -> StreamSchema | None:
    """The schema of a stream's own description; None if `text` is none."""
    try:
        return StreamSchema(parse_vmdesc(text), own=True)
    except ProtocolError:
        return None


def schema_from_earlier(text: bytes) -> StreamSchema:
    """The description of another stream of the same machine. Raises as `parse_vmdesc`."""
    return StreamSchema(parse_vmdesc(text), own=False)


def schema_from_dump(text: bytes) -> DumpSchema:
    """A `-dump-vmstate` file. Raises as `parse_dump_vmstate`."""
    from qmig.legacy.vmstate.dumpvmstate import parse_dump_vmstate

    return DumpSchema(parse_dump_vmstate(text))
