"""A guest's view of its machine: ports, memory, PCI configuration, and RAM for rings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from qmig.peers.qemu import QemuProcess
from qmig.testing.remote import MOST, Access, Mailbox, RemoteGuest, read, write
from qmig_conformance.matrix.model import Board

#: How often a mailbox is looked at, in seconds; not a limit on anything.
LOOK_EVERY = 0.0003
#: Where drivers put rings and buffers: from here on, so many bytes, relative to the start of RAM.
RINGS, RINGS_SIZE = 4 << 20, 14 << 20
PAGE = 4096
#: Where hw/arm/virt.c has its PCI windows (memory, ports as memory).
_ARM_MEMORY, _ARM_PORTS = 0x10000000, 0x3EFF0000


@dataclass(frozen=True, slots=True)
class Region:
    """Registers of a device: in memory, or in the port space of a machine that has one."""

    base: int
    port: bool = False
    size: int = 0

    def read(self, offset: int, width: int = 4) -> Access:
        return read(self.base + offset, width, port=self.port)

    def write(self, offset: int, value: int, width: int = 4) -> Access:
        return write(self.base + offset, value, width, port=self.port)


class DriverProblem(Exception):
    """A device does not do what a driver must be able to rely on, or the driver is wrong."""


class Io:
    """Makes the guest's CPU do accesses; hands out guest RAM."""

    def __init__(self, vm: QemuProcess, mailbox: Mailbox, program: RemoteGuest, board: Board) -> None:
        self.vm, self.mailbox, self.program, self.board = vm, mailbox, program, board
        self._next = RINGS
        #: guest-physical address of the PCI configuration window; 0: by ports CF8h, CFCh
        self.ecam = 0
        #: guest-physical addresses of the virtio-mmio transports
        self.transports: list[int] = []
        self._memory, self._ports = _ARM_MEMORY, 0x1000

    async def run(self, accesses: Sequence[Access]) -> list[int]:
        """The guest makes these accesses; what was read, in order. Raises QemuDied."""
        answers: list[int] = []
        for start in range(0, len(accesses), MOST):
            self.mailbox.post(accesses[start : start + MOST])
            while (answered := self.mailbox.answers()) is None:
                if self.vm.returncode is not None:
                    await self.vm.execute("query-status")  # raises QemuDied
                await trio.sleep(LOOK_EVERY)
            answers += answered
        return answers

    async def last(self, *accesses: Access) -> int:
        """What the last of these reads."""
        return (await self.run(accesses))[-1]

    # -- memory -------------------------------------------------------------------------------------------

    def allocate(self, size: int, align: int = PAGE) -> int:
        """Guest-physical address of zeroed RAM."""
        at = (self._next + align - 1) // align * align
        if at + size > RINGS + RINGS_SIZE:
            raise DriverProblem("the drivers of one machine need more RAM than there is for them")
        self._next = at + size
        return self.program.ram + at

    def put(self, address: int, data: bytes) -> None:
        self.mailbox.write_memory(address, data)

    def get(self, address: int, length: int) -> bytes:
        return self.mailbox.read_memory(address, length)

    # -- where things are ---------------------------------------------------------------------------------

    async def find_windows(self) -> None:
        """Where the machine has its PCI configuration space and its virtio-mmio transports."""
        ranges = await self.vm.memory_map()
        if self.board.target == "aarch64":
            self.ecam = next(r.address for r in ranges if r.region.startswith("pcie-mmcfg"))
        self.transports = [r.address for r in ranges if r.region == "virtio-mmio"]

    # -- PCI ----------------------------------------------------------------------------------------------

    def config_read(self, slot: int, offset: int, width: int = 4) -> list[Access]:
        if self.ecam:
            return [read(self.ecam + (slot << 15) + offset, width)]
        return [_select(slot, offset), read(0xCFC + offset % 4, width, port=True)]

    def config_write(self, slot: int, offset: int, value: int, width: int = 4) -> list[Access]:
        if self.ecam:
            return [write(self.ecam + (slot << 15) + offset, value, width)]
        return [_select(slot, offset), write(0xCFC + offset % 4, value, width, port=True)]

    async def config(self, slot: int) -> bytes:
        """The first 256 bytes of function 0's configuration space."""
        words = await self.run(joined(self.config_read(slot, at) for at in range(0, 256, 4)))
        return b"".join(word.to_bytes(4, "little") for word in words)

    def window(self, size: int, *, ports: bool) -> int:
        """A bus address for a BAR that no firmware has placed."""
        if ports:
            at = (self._ports + size - 1) // size * size
            self._ports = at + size
        else:
            at = (self._memory + size - 1) // size * size
            self._memory = at + size
        return at

    def region(self, bar: int, *, ports: bool, size: int) -> Region:
        """The registers behind a BAR's value."""
        if ports and self.board.target == "aarch64":
            return Region(_ARM_PORTS + bar, size=size)
        return Region(bar, port=ports, size=size)


def _select(slot: int, offset: int) -> Access:
    return write(0xCF8, 1 << 31 | slot << 11 | offset & 0xFC, port=True)


def joined(parts: Iterable[Sequence[Access]]) -> list[Access]:
    """One list of accesses."""
    return [access for part in parts for access in part]


@dataclass(slots=True)
class Pci:
    """One function 0 on the first bus. `bars` are those that have a place below 4 GiB."""

    slot: int
    vendor: int
    device: int
    config: bytes
    bars: dict[int, Region] = field(default_factory=dict)

    @property
    def class_code(self) -> int:
        """Base class and subclass."""
        return int.from_bytes(self.config[10:12], "little")

    def capabilities(self) -> list[tuple[int, int]]:
        """Id and offset of each."""
        found: list[tuple[int, int]] = []
        at = self.config[0x34] & 0xFC if self.config[6] & 0x10 else 0
        while at >= 0x40 and len(found) < 48:
            found.append((self.config[at], at))
            at = self.config[at + 1] & 0xFC
        return found


async def pci_function(io: Io, slot: int) -> Pci | None:
    """The function in a slot, its BARs placed if no firmware has done that, and switched on."""
    config = await io.config(slot)
    vendor, device = int.from_bytes(config[:2], "little"), int.from_bytes(config[2:4], "little")
    if vendor == 0xFFFF:
        return None
    found = Pci(slot, vendor, device, config)
    command = int.from_bytes(config[4:6], "little")
    await io.run(io.config_write(slot, 4, command & ~7, 2))
    bars = 6 if config[14] & 0x7F == 0 else 2
    index = 0
    while index < bars:
        index += await _bar(io, found, index)
    await io.run(io.config_write(slot, 4, command | 7, 2))
    return found


async def _bar(io: Io, pci: Pci, index: int) -> int:
    """Sizes one BAR, and places it where that was not done; the number of BAR registers it takes."""
    at = 0x10 + 4 * index
    old = int.from_bytes(pci.config[at : at + 4], "little")
    mask = await io.last(*io.config_write(pci.slot, at, 0xFFFFFFFF), *io.config_read(pci.slot, at))
    ports, wide = bool(mask & 1), mask & 7 == 4
    flags = 3 if ports else 15
    size = (~(mask & ~flags) & 0xFFFFFFFF) + 1 if mask & ~flags else 0
    if ports:
        size &= 0xFFFF
    base = old & ~flags
    if size and not base and io.ecam:
        base = io.window(size, ports=ports)
    await io.run(io.config_write(pci.slot, at, base))
    high = int.from_bytes(pci.config[at + 4 : at + 8], "little") if wide else 0
    if size and base and not high:
        pci.bars[index] = io.region(base, ports=ports, size=size)
    return 2 if wide else 1
