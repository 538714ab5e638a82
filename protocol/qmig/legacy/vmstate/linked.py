"""Fields whose length or presence an earlier field of the same body tells, and those whose own
first bytes do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig.legacy.vmstate.model import Field
from qmig.legacy.vmstate.positions import Positions, has, normal, union
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import Shape, Sized
from qmig.legacy.vmstate.types import VMStateType

_CAPABILITY_LIST: Final = 0x10  # bit of the status register
_PACKETS: Final = 1024  # more than QEMU queues for an endpoint
_EXPRESS: Final = 0x10  # id of the PCI Express capability
_MSIX: Final = 0x11


class Linked(Shape):
    """What `make` gives for the value of the field `control` (of `width` bytes) in front; `free`
    where the place of that is not certain."""

    __slots__ = ("control", "free", "make", "width")

    def __init__(self, control: str, width: int, make: Callable[[int], Shape], free: Shape) -> None:
        super().__init__(free.name, None)
        self.control = control
        self.width = width
        self.make = make
        self.free = free

    def _shape(self, region: Region) -> Shape:
        place = region.known.get(self.control)
        if place is None:
            return self.free
        return self.make(int.from_bytes(region.data[place : place + self.width], "big"))

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        return self._shape(region).ends(region, starts, end)

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        return self._shape(region).starts(region, goal, starts, end)

    def explain(self, region: Region, start: int, end: int) -> Field | None:
        return self._shape(region).explain(region, start, end)


class Own(Shape):
    """A field that says how long it is: `length` tells from the bytes at a place, None if they
    cannot be such a field."""

    __slots__ = ("length", "type")

    def __init__(self, name: str, type_: str, length: Callable[[memoryview, int], int | None]) -> None:
        super().__init__(name, None)
        self.type = type_
        self.length = length

    def _end(self, region: Region, place: int, end: int) -> int | None:
        size = self.length(region.data, place)
        return place + size if size is not None and place + size <= end else None

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        found: Positions = (0, 0)
        for place in region.some(starts):
            reach = self._end(region, place, end)
            if reach is not None:
                found = union(found, (reach, 1))
        return found

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        mask = 0
        for place in region.some(starts):
            reach = self._end(region, place, end)
            if reach is not None and has(goal, reach):
                mask |= 1 << (place - starts[0])
        return normal(starts[0], mask)

    def explain(self, region: Region, start: int, end: int) -> Field:
        if self._end(region, start, end) != end:
            raise Misfit(f"{self.name!a} is not of the length that it says", start)
        return region.field(self.name, self.type, start, end)


def _capability(config: memoryview, number: int) -> int | None:
    """Where in a configuration space a capability is."""
    pointer = config[0x34] if config[6] & _CAPABILITY_LIST else 0
    for _ in range(48):
        if not 0x40 <= pointer <= 0xFC:
            break
        if config[pointer] == number:
            return pointer
        pointer = config[pointer + 1]
    return None


def pci_config_size(data: memoryview, place: int) -> int | None:
    """256, or 4096 for a device with the PCI Express capability (hw/pci/pci.c)."""
    if place + 256 > len(data):
        return None
    return 256 if _capability(data[place : place + 256], _EXPRESS) is None else 4096


class Msix(Sized):
    """`msix state`: 16 bytes and a pending bit for each vector; nothing without MSI-X
    (hw/pci/msix.c). The configuration space in front says how many vectors there are."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, VMStateType.MSIX, _MSIX_SIZES)

    def _sized(self, region: Region) -> Sized:
        if region.config is None:
            return self
        config = region.data[region.config : region.config + 256]
        pointer = _capability(config, _MSIX)
        vectors = 0
        if pointer is not None:
            vectors = (int.from_bytes(config[pointer + 2 : pointer + 4], "little") & 0x7FF) + 1
        return Sized(self.name, self.type, (msix_size(vectors),))

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        sized = self._sized(region)
        return super().ends(region, starts, end) if sized is self else sized.ends(region, starts, end)

    def starts(self, region: Region, goal: Positions, starts: Positions, end: int) -> Positions:
        sized = self._sized(region)
        return (
            super().starts(region, goal, starts, end)
            if sized is self
            else sized.starts(region, goal, starts, end)
        )


def msix_size(vectors: int) -> int:
    return 16 * vectors + (vectors + 7) // 8


_MSIX_SIZES: Final = tuple(msix_size(vectors) for vectors in range(2049))


def _u32(data: memoryview, place: int) -> int | None:
    return int.from_bytes(data[place : place + 4], "big") if place + 4 <= len(data) else None


def counted_size(data: memoryview, place: int) -> int | None:
    """A u32 with a number of bytes, and the bytes."""
    length = _u32(data, place)
    return None if length is None else 4 + length


def packet_ids_size(data: memoryview, place: int) -> int | None:
    """A u32 with a number of u64 (hw/usb/redirect.c)."""
    length = _u32(data, place)
    return None if length is None else 4 + 8 * length


def packets_size(data: memoryview, place: int) -> int | None:
    """A u32 with a number of packets: u32 length, s32 status, bytes (hw/usb/redirect.c)."""
    count = _u32(data, place)
    size = 4
    if count is None or count > _PACKETS:
        return None
    for _ in range(count):
        length = _u32(data, place + size)
        if length is None:
            return None
        size += 8 + length
    return size


#: types that say their own length
OWN_LENGTH: Final[dict[str, Callable[[memoryview, int], int | None]]] = {
    VMStateType.G_BYTE_ARRAY: counted_size,
    "usb-redir-parser": counted_size,
    "usb-redir-packet-id-q": packet_ids_size,
    "usb-redir-bufpq": packets_size,
}


class PciConfig(Own):
    """The configuration space of a PCIDevice: one of two conditional fields, of which the
    second is for PCI Express."""

    __slots__ = ("express",)

    def __init__(self, conventional: str, express: str) -> None:
        super().__init__(conventional, VMStateType.PCI_CONFIG, pci_config_size)
        self.express = express

    def ends(self, region: Region, starts: Positions, end: int) -> Positions:
        if starts[1] == 1:
            region.config = starts[0]
        return super().ends(region, starts, end)

    def explain(self, region: Region, start: int, end: int) -> Field:
        region.config = start
        field = super().explain(region, start, end)
        if field.size == 4096:
            field.name = self.express
        return field
