"""Sections: what frames everything behind the header.

Source: migration/savevm.c `save_section_header`, `save_section_footer`.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from qmig import limits
from qmig._wire import CountedString, GreedyBytes, Int8ub, Int32ub, Prefixed, Raw, Record, attr, const, wire


class SectionType(enum.IntEnum):
    """The byte that opens every item of a main stream (`QEMU_VM_*`)."""

    EOF = 0x00
    SECTION_START = 0x01
    SECTION_PART = 0x02
    SECTION_END = 0x03
    SECTION_FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    SECTION_FOOTER = 0x7E


class SectionStart(Record):
    """Opens a live handler (`save_setup`) and binds its section_id; its data follow."""

    requirement: ClassVar[str] = "LEG-SEC-010"
    section_type = const(Int8ub, 0x01, doc="QEMU_VM_SECTION_START")
    section_id: int = wire(Int32ub, doc="number given by the source, bound to idstr from here on")
    idstr: str = wire(CountedString, doc="name of the handler")
    instance_id: int = wire(Int32ub)
    version_id: int = wire(Int32ub)


class SectionPart(Record):
    """More data of a live handler (`save_live_iterate`)."""

    requirement: ClassVar[str] = "LEG-SEC-011"
    section_type = const(Int8ub, 0x02, doc="QEMU_VM_SECTION_PART")
    section_id: int = wire(Int32ub)


class SectionEnd(Record):
    """The last data of a live handler (`save_live_complete_*`)."""

    requirement: ClassVar[str] = "LEG-SEC-012"
    section_type = const(Int8ub, 0x03, doc="QEMU_VM_SECTION_END")
    section_id: int = wire(Int32ub)


class SectionFull(Record):
    """Opens the state of one device; fields follow with no length before them."""

    requirement: ClassVar[str] = "LEG-SEC-013"
    section_type = const(Int8ub, 0x04, doc="QEMU_VM_SECTION_FULL")
    section_id: int = wire(Int32ub)
    idstr: str = wire(CountedString, doc="vmstate id of the device, with its qdev path")
    instance_id: int = wire(Int32ub)
    version_id: int = wire(Int32ub)


class SectionFooter(Record):
    """Closes a section by repeating its id, so that a reader notices drift."""

    requirement: ClassVar[str] = "LEG-SEC-020"
    section_type = const(Int8ub, 0x7E, doc="QEMU_VM_SECTION_FOOTER")
    section_id: int = wire(Int32ub)


class EndOfFile(Record):
    """Ends the stream; only a VMDESCRIPTION may follow."""

    requirement: ClassVar[str] = "LEG-SEC-030"
    section_type = const(Int8ub, 0x00, doc="QEMU_VM_EOF")


class VmDescription(Record):
    """The JSON that describes the device state sent before."""

    requirement: ClassVar[str] = "LEG-SEC-031"
    section_type = const(Int8ub, 0x06, doc="QEMU_VM_VMDESCRIPTION")
    json: bytes = wire(Prefixed(Int32ub, limits.VMDESC), doc="UTF-8, no terminator")


class DeviceState(Record):
    """The body of a SECTION_FULL, as it came; nothing in it says where it ends."""

    requirement: ClassVar[str] = "LEG-SEC-014"
    section_id: int = attr(int)
    boundary: str = attr(str, doc="how its end was found: vmdesc, schema, built-in or footer (inferred)")
    data: Raw = wire(GreedyBytes)


class UnreadState(Record):
    """Device state whose end nothing shows, and whatever follows it."""

    requirement: ClassVar[str] = "LEG-VMS-003"
    data: Raw = wire(GreedyBytes)


class TrailingBytes(Record):
    """Bytes behind the end of the stream, which QEMU ignores."""

    requirement: ClassVar[str] = "LEG-SEC-033"
    data: Raw = wire(GreedyBytes)
