"""What the `type` of a field means on the wire.

The names are those that QEMU's `VMStateInfo` objects carry and the description shows.
Source: migration/vmstate-types.c; the device-private ones at the file named in
`spec/registries/vmstate-types.toml`.
"""

from __future__ import annotations

import enum
import struct
from typing import Final


class VMStateType(enum.StrEnum):
    """Every `type` whose encoding is known; any other is bytes of the described size."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    INT32_EQUAL = "int32 equal"
    UINT8_EQUAL = "uint8 equal"
    UINT16_EQUAL = "uint16 equal"
    UINT32_EQUAL = "uint32 equal"
    UINT64_EQUAL = "int64 equal"
    INT32_LE = "int32 le"
    TIMER = "timer"
    FLOAT64 = "float64"
    CPU_DOUBLE_U = "CPU_Double_U"
    BUFFER = "buffer"
    UNUSED_BUFFER = "unused_buffer"
    BITMAP = "bitmap"
    G_BYTE_ARRAY = "GByteArray"
    FD = "fd"
    NULLPTR = "nullptr"
    PTR_MARKER = "ptr-marker"
    STRUCT = "struct"
    VSTRUCT = "vstruct"
    TMP = "tmp"
    QTAILQ = "qtailq"
    QLIST = "qlist"
    GTREE = "gtree"
    PCI_CONFIG = "pci config"
    PCI_IRQ_STATE = "pci irq state"
    POWERED_OFF = "powered_off"
    CPSR = "cpsr"
    FPSCR = "fpscr"
    SCSI_REQUESTS = "scsi-requests"
    VIRTIO = "virtio"
    MSIX = "msix state"


#: An element of an array of pointers that is NULL, and one that is not (11.0+, where both are marked).
PTR_NULL: Final = 0x30
PTR_VALID: Final = 0x31
#: What opens an element of a list, and what ends the list.
ELEMENT: Final = 1
LIST_END: Final = 0
#: Opens a subsection (`QEMU_VM_SUBSECTION`).
SUBSECTION: Final = 5

Value = int | bool | float | bytes | str | tuple[int | bool | float, ...] | None

_INTEGERS: Final = {
    VMStateType.BOOL: "?",
    VMStateType.INT8: "b",
    VMStateType.INT16: "h",
    VMStateType.INT32: "i",
    VMStateType.INT64: "q",
    VMStateType.UINT8: "B",
    VMStateType.UINT16: "H",
    VMStateType.UINT32: "I",
    VMStateType.UINT64: "Q",
    VMStateType.INT32_EQUAL: "i",
    VMStateType.UINT8_EQUAL: "B",
    VMStateType.UINT16_EQUAL: "H",
    VMStateType.UINT32_EQUAL: "I",
    VMStateType.UINT64_EQUAL: "Q",
    VMStateType.INT32_LE: "i",
    VMStateType.TIMER: "Q",
    VMStateType.FLOAT64: "d",
    VMStateType.CPU_DOUBLE_U: "d",
    VMStateType.NULLPTR: "B",
    VMStateType.PTR_MARKER: "B",
    VMStateType.POWERED_OFF: "?",
    VMStateType.CPSR: "I",
    VMStateType.FPSCR: "I",
}
#: type -> (struct code, bytes) of the types that are one number
SCALARS: Final[dict[str, tuple[str, int]]] = {
    str(name): (code, struct.calcsize(">" + code)) for name, code in _INTEGERS.items()
}
#: type -> code of the numbers that fill a field of any length
WORDS: Final[dict[str, str]] = {VMStateType.BITMAP: "Q", VMStateType.PCI_IRQ_STATE: "I"}
#: types with one nested description that stands for one body
NESTED: Final = frozenset({VMStateType.STRUCT, VMStateType.VSTRUCT, VMStateType.TMP})
LISTS: Final = frozenset({VMStateType.QTAILQ, VMStateType.QLIST})
MARKERS: Final = frozenset({VMStateType.NULLPTR, VMStateType.PTR_MARKER})


def decode_value(type_: str, data: memoryview, count: int | None) -> Value:
    """The value of a field of `type_` that fills `data`; with `count`, of an array of so many.

    Numbers come as int, bool or float, arrays of them and words as tuples, everything else
    as bytes. An element size that the type does not have gives bytes too.
    """
    scalar = SCALARS.get(type_)
    if scalar is not None:
        code, size = scalar
        if count is None and len(data) == size:
            number: int | bool | float = struct.unpack(">" + code, data)[0]
            return number
        if count is not None and len(data) == size * count:
            return struct.unpack(f">{count}{code}", data)
    words = WORDS.get(type_)
    if words is not None and count is None and len(data) % struct.calcsize(">" + words) == 0:
        return struct.unpack(f">{len(data) // struct.calcsize('>' + words)}{words}", data)
    if type_ == VMStateType.G_BYTE_ARRAY and count is None and len(data) >= 4:
        return bytes(data[4:])
    return bytes(data)


def text_of(data: bytes) -> str | None:
    """The text that a buffer evidently holds: printable ASCII, then nothing but NULs."""
    head = data.rstrip(b"\0")
    if head and head.isascii() and head.decode("ascii").isprintable():
        return head.decode("ascii")
    return None
