"""A virtio driver: any device, over PCI (modern and legacy) and virtio-mmio (both versions).

Resets the device, agrees on features, gives every queue a ring, says DRIVER_OK, makes a request where the
device type has one that always ends, and waits for its end. Layouts: Virtual I/O Device (VIRTIO) 1.2,
chapters 2.7, 4.1, 4.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from qmig.testing.remote import Access
from qmig_conformance.matrix.io import LOOK_EVERY, DriverProblem, Io, Pci, Region

VENDOR = 0x1AF4
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
#: VIRTIO_F_VERSION_1
VERSION_1 = 1 << 32
#: Features that this driver understands: all of a device type's own, and of the common ones these.
_KNOWN = (1 << 24) - 1 | VERSION_1
#: CAPABILITY: vendor specific
_CAPABILITY = 9
_COMMON, _NOTIFY = 1, 2
#: Entries that a modern driver asks for.
_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Queue:
    """One ring in guest RAM."""

    index: int
    size: int
    descriptors: int
    available: int
    used: int
    notify: Access


@dataclass(frozen=True, slots=True)
class Request:
    """One descriptor chain of a queue, at its first descriptors, that can be made again."""

    queue: Queue
    what: str


@dataclass(slots=True)
class Driven:
    """What was done with a device, and what to look at again."""

    how: str
    request: Request | None
    #: name, accesses that end with a read
    watched: list[tuple[str, list[Access]]] = field(default_factory=list)


class Transport:
    """The registers of one device."""

    name = ""
    #: whether rings have one address and the device's own size
    legacy = True

    async def features(self, io: Io) -> int:
        raise NotImplementedError

    def accept(self, features: int) -> list[Access]:
        raise NotImplementedError

    def set_status(self, status: int) -> Access:
        raise NotImplementedError

    def status(self) -> Access:
        raise NotImplementedError

    async def queue_size(self, io: Io, index: int) -> int:
        """0: there is no such queue."""
        raise NotImplementedError

    async def give(self, io: Io, queue: Queue) -> Queue:
        """Tells the device where a ring is; the queue with what notifies it."""
        raise NotImplementedError

    def watched(self, queues: Sequence[Queue]) -> list[tuple[str, list[Access]]]:
        raise NotImplementedError


class ModernPci(Transport):
    name = "virtio-pci modern"
    legacy = False

    def __init__(self, common: Region, notify: Region, multiplier: int) -> None:
        self.common, self.notify, self.multiplier = common, notify, multiplier

    async def features(self, io: Io) -> int:
        c = self.common
        low, high = await io.run([c.write(0, 0), c.read(4), c.write(0, 1), c.read(4)])
        return low | high << 32

    def accept(self, features: int) -> list[Access]:
        c = self.common
        return [c.write(8, 0), c.write(12, features), c.write(8, 1), c.write(12, features >> 32)]

    def set_status(self, status: int) -> Access:
        return self.common.write(20, status, 1)

    def status(self) -> Access:
        return self.common.read(20, 1)

    async def queue_size(self, io: Io, index: int) -> int:
        c = self.common
        if index >= await io.last(c.read(18, 2)):
            return 0
        return min(_ENTRIES, await io.last(c.write(22, index, 2), c.read(24, 2)))

    async def give(self, io: Io, queue: Queue) -> Queue:
        c = self.common
        addresses = [(32, queue.descriptors), (40, queue.available), (48, queue.used)]
        offset = await io.last(
            c.write(22, queue.index, 2),
            c.write(24, queue.size, 2),
            *(c.write(at + 4 * half, address >> 32 * half) for at, address in addresses for half in (0, 1)),
            c.write(28, 1, 2),
            c.read(30, 2),
        )
        return _notified(queue, self.notify.write(offset * self.multiplier, queue.index, 2))

    def watched(self, queues: Sequence[Queue]) -> list[tuple[str, list[Access]]]:
        c = self.common
        rows = [("device_status", [self.status()]), ("num_queues", [c.read(18, 2)])]
        for queue in queues:
            select = c.write(22, queue.index, 2)
            for name, at, width in (("size", 24, 2), ("enable", 28, 2), ("desc", 32, 4), ("device", 48, 4)):
                rows.append((f"queue {queue.index} {name}", [select, c.read(at, width)]))
        return rows


class LegacyPci(Transport):
    name = "virtio-pci legacy"

    def __init__(self, region: Region) -> None:
        self.region = region

    async def features(self, io: Io) -> int:
        return await io.last(self.region.read(0))

    def accept(self, features: int) -> list[Access]:
        return [self.region.write(4, features)]

    def set_status(self, status: int) -> Access:
        return self.region.write(18, status, 1)

    def status(self) -> Access:
        return self.region.read(18, 1)

    async def queue_size(self, io: Io, index: int) -> int:
        return await io.last(self.region.write(14, index, 2), self.region.read(12, 2))

    async def give(self, io: Io, queue: Queue) -> Queue:
        await io.run([self.region.write(14, queue.index, 2), self.region.write(8, queue.descriptors >> 12)])
        return _notified(queue, self.region.write(16, queue.index, 2))

    def watched(self, queues: Sequence[Queue]) -> list[tuple[str, list[Access]]]:
        r = self.region
        rows = [("device_status", [self.status()]), ("guest_features", [r.read(4)])]
        for queue in queues:
            select = r.write(14, queue.index, 2)
            rows.append((f"queue {queue.index} size", [select, r.read(12, 2)]))
            rows.append((f"queue {queue.index} pfn", [select, r.read(8)]))
        return rows


class Mmio(Transport):
    name = "virtio-mmio legacy"

    def __init__(self, region: Region) -> None:
        self.region = region

    async def features(self, io: Io) -> int:
        return await io.last(self.region.write(0x14, 0), self.region.read(0x10))

    def accept(self, features: int) -> list[Access]:
        r = self.region
        return [r.write(0x24, 0), r.write(0x20, features), r.write(0x28, 4096)]

    def set_status(self, status: int) -> Access:
        return self.region.write(0x70, status)

    def status(self) -> Access:
        return self.region.read(0x70)

    async def queue_size(self, io: Io, index: int) -> int:
        return await io.last(self.region.write(0x30, index), self.region.read(0x34))

    async def give(self, io: Io, queue: Queue) -> Queue:
        r = self.region
        pfn = queue.descriptors >> 12
        await io.run(
            [r.write(0x30, queue.index), r.write(0x38, queue.size), r.write(0x3C, 4096), r.write(0x40, pfn)]
        )
        return _notified(queue, r.write(0x50, queue.index))

    def watched(self, queues: Sequence[Queue]) -> list[tuple[str, list[Access]]]:
        rows = [("device_status", [self.status()])]
        for queue in queues:
            select = self.region.write(0x30, queue.index)
            rows.append((f"queue {queue.index} pfn", [select, self.region.read(0x40)]))
            rows.append((f"queue {queue.index} size", [select, self.region.read(0x34)]))
        return rows


def _notified(queue: Queue, notify: Access) -> Queue:
    return Queue(queue.index, queue.size, queue.descriptors, queue.available, queue.used, notify)


def transport_of(pci: Pci) -> Transport | None:
    """How to speak to a virtio function; None where its BARs have no place."""
    found: dict[int, Region] = {}
    multiplier = 0
    for capability, at in pci.capabilities():
        kind, bar = pci.config[at + 3], pci.config[at + 4]
        if capability == _CAPABILITY and kind in {_COMMON, _NOTIFY} and bar in pci.bars:
            offset = int.from_bytes(pci.config[at + 8 : at + 12], "little")
            found[kind] = Region(pci.bars[bar].base + offset, pci.bars[bar].port)
            if kind == _NOTIFY:
                multiplier = int.from_bytes(pci.config[at + 16 : at + 20], "little")
    if len(found) == 2:
        return ModernPci(found[_COMMON], found[_NOTIFY], multiplier)
    if pci.device < 0x1040 and 0 in pci.bars and pci.bars[0].size <= 4096:
        return LegacyPci(pci.bars[0])
    return None


def type_of(pci: Pci) -> int:
    """The device type's number."""
    if pci.device >= 0x1040:
        return pci.device - 0x1040
    return int.from_bytes(pci.config[0x2E:0x30], "little")


async def drive(io: Io, transport: Transport, device_type: int) -> Driven:
    """From reset to the end of a first request."""
    await io.run([transport.set_status(0)])
    while await io.last(transport.status()):
        await trio.sleep(LOOK_EVERY)
    begun = ACKNOWLEDGE | DRIVER
    await io.run([transport.set_status(ACKNOWLEDGE), transport.set_status(begun)])
    features = await transport.features(io) & _KNOWN
    await io.run(transport.accept(features))
    if not transport.legacy:
        begun |= FEATURES_OK
        status = await io.last(transport.set_status(begun), transport.status())
        if not status & FEATURES_OK:
            raise DriverProblem(f"the device does not take the features {features:#x} that it offers")
    queues: list[Queue] = []
    while size := await transport.queue_size(io, len(queues)):
        queues.append(await transport.give(io, _ring(io, len(queues), size)))
    await io.run([transport.set_status(begun | DRIVER_OK)])
    request = _first_request(io, device_type, queues, features)
    if request is not None:
        await make(io, request, 1)
    if await io.last(transport.status()) & NEEDS_RESET:
        raise DriverProblem("the device asks for a reset")
    done = f", {request.what}" if request else ""
    how = f"{transport.name} driver: {len(queues)} queues, DRIVER_OK{done}"
    return Driven(how, request, transport.watched(queues))


def _ring(io: Io, index: int, size: int) -> Queue:
    """The layout that legacy devices compute for themselves; modern ones are told."""
    available = 16 * size
    used = (available + 6 + 2 * size + 4095) // 4096 * 4096
    base = io.allocate(used + 6 + 8 * size)
    return Queue(index, size, base, base + available, base + used, Access(0, 0))  # type: ignore[arg-type]


async def make(io: Io, request: Request, number: int) -> None:
    """Puts the chain on the ring the `number`-th time and waits until the device has used it."""
    queue = request.queue
    io.put(queue.available + 4 + 2 * ((number - 1) % queue.size), struct.pack("<H", 0))
    io.put(queue.available + 2, struct.pack("<H", number))
    await io.run([queue.notify])
    while struct.unpack("<H", io.get(queue.used + 2, 2))[0] != number:
        if io.vm.returncode is not None:
            await io.vm.execute("query-status")  # raises QemuDied
        await trio.sleep(LOOK_EVERY)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A request: which queue, what the device reads, how many bytes it may write."""

    queue: int
    reads: tuple[bytes, ...]
    writes: tuple[int, ...]
    what: str


_FRAME = b"\xff" * 6 + b"\x52\x54\0\0\0\x01" + b"\x88\xb5" + bytes(46)
_VERSION = b"9P2000.L"
#: device type -> a request that ends whatever the device is connected to
_CHAINS = {
    2: _Chain(0, (struct.pack("<IIQ", 0, 0, 0),), (512, 1), "a sector read"),
    3: _Chain(3, (struct.pack("<IHH", 0, 0, 1),), (), "DEVICE_READY said"),
    4: _Chain(0, (), (64,), "64 random bytes read"),
    5: _Chain(1, (struct.pack("<I", 0x400),), (), "a page deflated"),
    8: _Chain(
        2, (bytes([1]) + bytes(18) + bytes([0x12, 0, 0, 0, 36]) + bytes(27),), (108, 36), "INQUIRY made"
    ),
    9: _Chain(
        0, (struct.pack("<IBHIH", 21, 100, 0xFFFF, 8192, 8) + _VERSION,), (256,), "the 9P version agreed on"
    ),
    16: _Chain(0, (struct.pack("<IIQIB3x", 0x0100, 0, 0, 0, 0),), (408,), "display information read"),
    18: _Chain(1, (struct.pack("<HHI", 0x11, 0, 1),), (), "a LED switched"),
    24: _Chain(0, (struct.pack("<H6xQH6x", 3, 0, 1),), (16,), "a block's state asked for"),
    27: _Chain(0, (struct.pack("<I", 0),), (4,), "a flush made"),
}  # fmt: skip
_MULTIPORT, _MRG_RXBUF = 1 << 1, 1 << 15


def _first_request(io: Io, device_type: int, queues: Sequence[Queue], features: int) -> Request | None:
    chain = _CHAINS.get(device_type)
    if device_type == 1:
        header = 12 if features & (VERSION_1 | _MRG_RXBUF) else 10
        chain = _Chain(1, (bytes(header), _FRAME), (), "a frame sent")
    if device_type == 3 and not features & _MULTIPORT:
        chain = _Chain(1, (b"matrix",), (), "a line written")
    if chain is None or chain.queue >= len(queues):
        return None
    queue = queues[chain.queue]
    pieces = [(data, len(data), 0) for data in chain.reads] + [(b"", size, 2) for size in chain.writes]
    for place, (data, size, flags) in enumerate(pieces):
        buffer = io.allocate(size, 16)
        io.put(buffer, data)
        more = place + 1 < len(pieces)
        io.put(
            queue.descriptors + 16 * place,
            struct.pack("<QIHH", buffer, size, flags | more, place + 1 if more else 0),
        )
    return Request(queue, chain.what)


async def mmio_at(io: Io, address: int) -> tuple[Transport, int] | None:
    """The virtio-mmio device at an address and its type; None where the transport is empty."""
    region = Region(address)
    magic, version, device_type = await io.run([region.read(0), region.read(4), region.read(8)])
    if magic != 0x74726976 or not device_type:
        return None
    if version != 1:
        raise DriverProblem(f"virtio-mmio version {version}")
    return Mmio(region), device_type
