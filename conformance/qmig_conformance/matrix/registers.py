"""What a guest writes into devices that are not virtio: one row per kind of device.

No row is a whole driver. Each switches its device on and gives it what a driver gives first: rings, lists,
base addresses, a first command. Registers in `watch` can be read without changing anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qmig.testing.remote import Access, read, write
from qmig_conformance.matrix.io import Io, Pci, Region

#: Bytes of zeroed RAM that every row gets.
_ROOM = 0x8000


@dataclass(frozen=True, slots=True)
class Ram:
    """An address in the row's RAM."""

    offset: int
    #: low bits
    flags: int = 0


#: offset, value, width
Write = tuple[int, "int | Ram", int]
#: offset, width
Watch = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one kind of PCI device is programmed."""

    what: str
    bar: int
    writes: tuple[Write, ...]
    watch: tuple[Watch, ...] = ()
    #: what stands in the row's RAM, made from its address
    ram: Callable[[int], dict[int, bytes]] = lambda base: {}


@dataclass(slots=True)
class Poked:
    """What was done, and what to look at again."""

    how: str
    watched: list[tuple[str, list[Access]]] = field(default_factory=list)


def _w(width: int, *pairs: tuple[int, int | Ram]) -> tuple[Write, ...]:
    return tuple((offset, value, width) for offset, value in pairs)


def _r(width: int, *offsets: int) -> tuple[Watch, ...]:
    return tuple((offset, width) for offset in offsets)


_FRAME = b"\xff" * 6 + b"\x52\x54\0\0\0\x02" + b"\x88\xb5" + bytes(46)
_TERMINATED = struct.pack("<I", 1) * 1024


def _e1000_ram(base: int) -> dict[int, bytes]:
    # one legacy descriptor: address, length, EOP | IFCS | RS
    return {0x1000: struct.pack("<QHBBBBH", base + 0x2000, len(_FRAME), 0, 0x0B, 0, 0, 0), 0x2000: _FRAME}


def _nvme_ram(base: int) -> dict[int, bytes]:
    # Identify controller, into 0x2000
    return {0: struct.pack("<BBHIQQQQI", 6, 0, 1, 0, 0, 0, base + 0x2000, 0, 1)}


def _xhci_ram(base: int) -> dict[int, bytes]:
    return {
        0x1000: struct.pack("<QII", 0, 0, 23 << 10 | 1),  # No Op command, cycle 1
        0x2000: struct.pack("<QII", base + 0x3000, 16, 0),  # event ring segment
    }


def _pcnet_ram(base: int) -> dict[int, bytes]:
    block = struct.pack("<HBB6sHQII", 0, 0, 0, b"\x52\x54\0\0\0\x03", 0, 0, base + 0x100, base + 0x200)
    return {0: block}


_E1000 = Row(
    what="receive and transmit rings, a frame sent",
    bar=0,
    writes=_w(
        4, (0x2800, Ram(0)), (0x2804, 0), (0x2808, 0x1000), (0x2810, 0), (0x2818, 0),
        (0x3800, Ram(0x1000)), (0x3804, 0), (0x3808, 0x1000), (0x3810, 0), (0x3818, 0),
        (0x2828, 1 << 25), (0x3828, 1 << 25), (0x0100, 2), (0x0400, 0x0001010A), (0x3818, 1),
    ),
    watch=_r(4, 0x2800, 0x2808, 0x3800, 0x3808, 0x3810, 0x3818, 0x0100, 0x0400, 0x5400, 0x5404),
    ram=_e1000_ram,
)  # fmt: skip
_EEPRO100 = Row(
    what="CU, RU and statistics addresses", bar=0,
    writes=((4, 0, 4), (2, 0x60, 1), (4, 0, 4), (2, 0x06, 1), (4, Ram(0x100), 4), (2, 0x40, 1)),
    watch=_r(4, 4),
)  # fmt: skip
_DISPI = Row(
    what="640x480x32 by the DISPI registers", bar=2,
    writes=_w(2, (0x508, 0), (0x502, 640), (0x504, 480), (0x506, 32), (0x508, 0x41)),
    watch=_r(2, 0x502, 0x504, 0x506, 0x508),
)  # fmt: skip
_SERIAL = Row(
    what="divisor, 8N1, FIFO, a byte sent", bar=0,
    writes=_w(1, (3, 0x83), (0, 1), (1, 0), (3, 3), (2, 1), (4, 3), (0, 0x78)),
    watch=_r(1, 3, 4),
)  # fmt: skip
_LSI = Row(
    what="DSA and scratch registers", bar=1,
    writes=_w(4, (0x10, Ram(0)), (0x34, 0x600DF111)), watch=_r(4, 0x10, 0x34),
)  # fmt: skip
_ESP = Row(
    what="DMA address and count", bar=0,
    writes=_w(4, (0x44, 16), (0x48, Ram(0))), watch=_r(4, 0x44, 0x48),
)  # fmt: skip

#: (vendor, device) -> row
BY_ID: dict[tuple[int, int], Row] = {
    **{(0x8086, device): _E1000 for device in (0x100E, 0x100F, 0x1004, 0x10D3, 0x10C9)},
    **{(0x8086, device): _EEPRO100 for device in (0x1229, 0x1209, 0x2449, 0x1030, 0x1059, 0x1031, 0x1050)},
    **{(0x1B36, device): _SERIAL for device in (2, 3, 4)},
    (0x1234, 0x1111): _DISPI,
    (0x1000, 0x0012): _LSI,
    (0x1000, 0x0001): _LSI,
    (0x1022, 0x2020): _ESP,
    (0x10EC, 0x8139): Row(
        what="receive ring, a frame sent", bar=1,
        writes=((0x37, 0x0C, 1), (0x30, Ram(0), 4), (0x44, 0x0F, 4), (0x20, Ram(0x4000), 4), (0x10, 60, 4)),
        watch=((0x30, 4), (0x20, 4), (0x37, 1), (0x44, 4)),
    ),
    (0x1022, 0x2000): Row(
        what="initialisation block, started", bar=0,
        writes=_w(2, (0x12, 20), (0x16, 2), (0x12, 1), (0x10, Ram(0)), (0x12, 2), (0x10, Ram(0, -16)), (0x12,
        0),
                  (0x10, 1), (0x10, 2)),
        ram=_pcnet_ram,
    ),
    (0x10EC, 0x8029): Row(
        what="receive pages, started", bar=0,
        writes=_w(1, (0, 0x21), (0x0E, 0x49), (1, 0x46), (2, 0x80), (3, 0x46), (0, 0x61), (7, 0x47), (0,
        0x22)), watch=_r(1, 0, 3),
    ),
    (0x1011, 0x0019): Row(
        what="receive and transmit lists", bar=1,
        writes=_w(4, (0x18, Ram(0)), (0x20, Ram(0x1000)), (0x30, 0x2002)), watch=_r(4, 0x18, 0x20, 0x30),
    ),
    (0x15AD, 0x07B0): Row(
        what="shared memory's address and MAC address", bar=1,
        writes=_w(4, (0x10, Ram(0)), (0x18, 0), (0x28, 0x00005452), (0x30, 0x0400)), watch=_r(4, 0x28, 0x30),
    ),
    (0x1274, 0x5000): Row(
        what="DAC frame address", bar=0, writes=_w(4, (0x0C, 0x0C), (0x30, Ram(0)), (0x34, 0xFF)),
        watch=_r(4, 0x0C, 0x30, 0x34),
    ),
    (0x8086, 0x2415): Row(
        what="buffer descriptor list", bar=1, writes=((0x10, Ram(0), 4), (0x15, 0, 1)), watch=_r(4, 0x10),
    ),
    (0x1B36, 0x0007): Row(
        what="power, clock and SDMA address", bar=0,
        writes=((0x2C, 1, 2), (0x29, 0x0F, 1), (0x00, Ram(0), 4)), watch=((0x00, 4), (0x29, 1)),
    ),
    (0x8086, 0x25AB): Row(
        what="timer preload unlocked and written", bar=0,
        writes=((0x0C, 0x80, 2), (0x0C, 0x86, 2), (0x00, 0xFFFF, 4)),
    ),
}  # fmt: skip
#: (base class and subclass, programming interface) -> row
BY_CLASS: dict[tuple[int, int], Row] = {
    (0x0108, 2): Row(
        what="admin queues, enabled, Identify made", bar=0,
        writes=_w(4, (0x14, 0), (0x24, 0x001F001F), (0x28, Ram(0)), (0x2C, 0), (0x30, Ram(0x1000)), (0x34, 0),
                  (0x14, 0x00460001), (0x1000, 1)),
        watch=_r(4, 0x14, 0x1C, 0x24, 0x28, 0x30), ram=_nvme_ram,
    ),
    (0x0106, 1): Row(
        what="command list and FIS area of port 0, started", bar=5,
        writes=_w(4, (0x04, 0x80000000), (0x118, 0), (0x100, Ram(0)), (0x108, Ram(0x400)), (0x118, 0x10),
                  (0x118, 0x11)),
        watch=_r(4, 0x04, 0x100, 0x108, 0x118),
    ),
    (0x0C03, 0x30): Row(
        what="command and event rings, running, No Op made", bar=0,
        writes=_w(4, (0x40, 2), (0x70, Ram(0)), (0x74, 0), (0x58, Ram(0x1000, 1)), (0x5C, 0), (0x78, 8),
                  (0x1028, 1), (0x1030, Ram(0x2000)), (0x1034, 0), (0x1038, Ram(0x3000)), (0x103C, 0),
                  (0x40, 5), (0x2000, 0)),
        watch=_r(4, 0x40, 0x70, 0x78, 0x1028, 0x1030), ram=_xhci_ram,
    ),
    (0x0C03, 0x20): Row(
        what="periodic list, running", bar=0,
        writes=_w(4, (0x20, 2), (0x34, Ram(0)), (0x38, Ram(0x1000)), (0x60, 1), (0x20, 0x00080011)),
        watch=_r(4, 0x20, 0x34, 0x38, 0x60), ram=lambda base: {0: _TERMINATED},
    ),
    (0x0C03, 0x10): Row(
        what="HCCA, operational", bar=0, writes=_w(4, (0x18, Ram(0)), (0x04, 0x80)), watch=_r(4, 0x18, 0x04),
    ),
    (0x0C03, 0x00): Row(
        what="frame list, running", bar=4,
        writes=((0x08, Ram(0), 4), (0x00, 1, 2)), watch=((0x08, 4), (0x00, 2)),
        ram=lambda base: {0: _TERMINATED},
    ),
    (0x0403, 0): Row(
        what="CORB and RIRB, a verb sent", bar=0,
        writes=((0x08, 1, 4), (0x40, Ram(0), 4), (0x4E, 2, 1), (0x50, Ram(0x1000), 4), (0x5A, 1, 2), (0x5C,
        2, 1),
                (0x4C, 2, 1), (0x48, 1, 2)),
        watch=_r(4, 0x08, 0x40, 0x50), ram=lambda base: {4: struct.pack("<I", 0x000F0000)},
    ),
}  # fmt: skip


async def drive(io: Io, pci: Pci) -> Poked:
    """Programs a PCI function by its row; without one, reads what its BARs begin with."""
    row = BY_ID.get((pci.vendor, pci.device)) or BY_CLASS.get((pci.class_code, pci.config[9]))
    if row is None or row.bar not in pci.bars:
        reads = [region.read(0) for region in pci.bars.values()]
        await io.run(reads)
        return Poked(f"memory, ports and bus mastering switched on, {len(reads)} BARs read")
    region = pci.bars[row.bar]
    base = io.allocate(_ROOM)
    for offset, data in row.ram(base).items():
        io.put(base + offset, data)
    await io.run([region.write(offset, _value(value, base), width) for offset, value, width in row.writes])
    return Poked(f"guest driver: {row.what}", _watched(region, row.watch))


def _value(value: int | Ram, base: int) -> int:
    if isinstance(value, int):
        return value
    at = base + value.offset
    return at >> -value.flags if value.flags < 0 else at | value.flags


def _watched(region: Region, watch: Sequence[Watch]) -> list[tuple[str, list[Access]]]:
    return [(f"register {offset:#x}", [region.read(offset, width)]) for offset, width in watch]


#: ISA type -> what is written to which port, what can be read again
_PORTS: dict[str, tuple[str, tuple[tuple[int, int], ...], tuple[int, ...]]] = {
    "isa-serial": (
        "COM2: divisor, 8N1, FIFO, a byte sent",
        ((0x2FB, 0x83), (0x2F8, 1), (0x2F9, 0), (0x2FB, 3), (0x2FA, 1), (0x2FC, 3), (0x2F8, 0x78)),
        (0x2FB, 0x2FC),
    ),
    "isa-parallel": ("data and control written", ((0x378, 0x55), (0x37A, 0x0C)), (0x378, 0x37A)),
    "isa-debugcon": ("a byte written", ((0xE9, 0x78),), ()),
    "sb16": ("DSP reset, mixer written", ((0x226, 1), (0x226, 0), (0x224, 0x22), (0x225, 0xCC)), (0x225,)),
    "adlib": ("an operator written", ((0x388, 0x20), (0x389, 0x01)), ()),
    "cs4231a": ("an index written", ((0x534, 0x06), (0x535, 0x80)), (0x534, 0x535)),
    "ne2k_isa": (
        "receive pages, started",
        ((0x300, 0x21), (0x30E, 0x49), (0x301, 0x46), (0x302, 0x80), (0x303, 0x46), (0x300, 0x22)),
        (0x300, 0x303),
    ),
    "isa-ide": ("sector count written", ((0x1F2, 0x55),), (0x1F2,)),
    "isa-fdc": ("motor on, reset left", ((0x3F2, 0x1C),), (0x3F2,)),
    "isa-ipmi-kcs": ("a write begun", ((0xCA3, 0x61),), (0xCA3,)),
    "isa-ipmi-bt": ("read and write pointers cleared", ((0xE4, 0x03),), ()),
    "ib700": ("the timer stopped", ((0x441, 0),), ()),
    "isa-applesmc": ("a key asked for", ((0x304, 0x10), (0x300, 0x52)), ()),
}  # fmt: skip

#: virtio-mmio device type name -> its number in the specification
VIRTIO_TYPES = {
    "virtio-net-device": 1, "virtio-blk-device": 2, "virtio-serial-device": 3, "virtio-rng-device": 4,
    "virtio-balloon-device": 5, "virtio-scsi-device": 8, "virtio-9p-device": 9, "virtio-gpu-device": 16,
    "virtio-rtc-device": 17, "virtio-keyboard-device": 18, "virtio-mouse-device": 18,
    "virtio-tablet-device": 18, "virtio-multitouch-device": 18, "virtio-crypto-device": 20,
    "virtio-iommu-device": 23, "virtio-sound-device": 25,
}  # fmt: skip


async def ports(io: Io, types: Sequence[str]) -> Poked:
    """Programs a device without a PCI function."""
    row = next((_PORTS[type_] for type_ in types if type_ in _PORTS), None)
    if row is None or io.board.target != "x86_64":
        return Poked("a running guest; the device has no registers of its own" if row is None else "nothing")
    what, writes, watch = row
    await io.run([write(port, value, 1, port=True) for port, value in writes])
    return Poked(f"guest driver: {what}", [(f"port {port:#x}", [read(port, 1, port=True)]) for port in watch])
