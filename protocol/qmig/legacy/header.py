"""File header and configuration: the first bytes of every main stream.

Source: migration/savevm.c `qemu_savevm_state_header`, `vmstate_configuration`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from qmig import limits
from qmig._wire import (
    Bytes,
    CountedString,
    Int8ub,
    Int32ub,
    PrefixedArray,
    PrefixedString,
    Record,
    const,
    wire,
)

#: "QEVM"
FILE_MAGIC: Final = 0x5145564D
FILE_VERSION: Final = 3
#: version 2 was the "compat" format; no build of ours writes or reads it
FILE_VERSION_COMPAT: Final = 2


class FileHeader(Record):
    """Magic and format version."""

    requirement: ClassVar[str] = "LEG-HDR-001"
    magic = const(Int32ub, FILE_MAGIC, doc='"QEVM"')
    version: int = wire(Int32ub, doc="3; 2 is the obsolete compat format")


class Configuration(Record):
    """The machine type name; subsections may follow. No footer follows."""

    requirement: ClassVar[str] = "LEG-HDR-010"
    section_type = const(Int8ub, 0x07, doc="QEMU_VM_CONFIGURATION")
    machine: str = wire(PrefixedString(Int32ub, limits.MACHINE_NAME), doc="resolved machine type name")


class Subsection(Record):
    """What opens every subsection, here and in device state; a body follows."""

    requirement: ClassVar[str] = "LEG-VMS-040"
    section_type = const(Int8ub, 0x05, doc="QEMU_VM_SUBSECTION")
    name: str = wire(CountedString, doc="begins with the name of the parent VMSD")
    version_id: int = wire(Int32ub)


class ConfigurationPageBits(Record):
    """Body of `configuration/target-page-bits`."""

    requirement: ClassVar[str] = "LEG-HDR-020"
    target_page_bits: int = wire(Int32ub, doc="log2 of the target page size")


class ConfigurationCapabilities(Record):
    """Body of `configuration/capabilities`: the validated capabilities that are on."""

    requirement: ClassVar[str] = "LEG-HDR-021"
    capabilities: tuple[str, ...] = wire(
        PrefixedArray(Int32ub, CountedString, limits.CAPABILITIES), doc="QAPI names"
    )


class ConfigurationUuid(Record):
    """Body of `configuration/uuid`."""

    requirement: ClassVar[str] = "LEG-HDR-022"
    uuid: bytes = wire(Bytes(16), doc="the machine's `-uuid`, raw")


#: subsection name -> record of its body
CONFIGURATION_SUBSECTIONS: Final[dict[str, type[Record]]] = {
    "configuration/target-page-bits": ConfigurationPageBits,
    "configuration/capabilities": ConfigurationCapabilities,
    "configuration/uuid": ConfigurationUuid,
}
