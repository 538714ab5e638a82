"""Initialises the devices of a machine, and compares what the guest sees after it has moved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from qmig.testing.remote import Access
from qmig_conformance.matrix import registers, virtio
from qmig_conformance.matrix.io import Io, Pci, joined, pci_function
from qmig_conformance.matrix.model import Group, Placed

#: Bits of the configuration space that say what happens now: INTx in the status register.
_MOMENTARY = {6: 0x08}


@dataclass(slots=True)
class Prepared:
    """What was done with a device. `watched`: name, accesses that end with a read, what was read."""

    how: str
    #: slot whose configuration space is `config`; 0: the device has none
    slot: int = 0
    config: bytes = b""
    request: virtio.Request | None = None
    watched: list[tuple[str, list[Access], int]] = field(default_factory=list)


async def initialise(io: Io, group: Group, done: dict[str, Prepared]) -> AsyncIterator[str]:
    """Drives every device of the machine; yields the id of each before its turn. What was done goes to
    `done`. Raises QemuDied, DriverProblem."""
    await io.find_windows()
    for placed in group:
        yield placed.id
        done[placed.id] = await _one(io, placed)
    yield ""
    await _transports(io, group, done)
    # Last: a driver may have changed what another one's configuration space says.
    for prepared in done.values():
        if prepared.slot:
            prepared.config = await io.config(prepared.slot)


async def _one(io: Io, placed: Placed) -> Prepared:
    behind = "firmware, then " if io.board.firmware else ""
    if placed.device.bus in {"pci", "express", "usb"} and any("{slot}" in a for a in placed.device.arguments):
        pci = await pci_function(io, placed.slot)
        if pci is None:
            return Prepared(f"{behind}nothing: no function answers in slot {placed.slot:#x}")
        prepared = await _function(io, pci)
        prepared.how = behind + prepared.how
        return prepared
    driven = await registers.ports(io, placed.device.types)
    return Prepared(behind + driven.how, watched=await _seen(io, driven.watched))


async def _function(io: Io, pci: Pci) -> Prepared:
    transport = virtio.transport_of(pci) if pci.vendor == virtio.VENDOR else None
    if transport is not None:
        driven = await virtio.drive(io, transport, virtio.type_of(pci))
        return Prepared(driven.how, pci.slot, request=driven.request, watched=await _seen(io, driven.watched))
    poked = await registers.drive(io, pci)
    return Prepared(poked.how, pci.slot, watched=await _seen(io, poked.watched))


async def _transports(io: Io, group: Group, done: dict[str, Prepared]) -> None:
    """virtio-mmio: QEMU fills its transports from the last to the first, in the order of its arguments or
    against it, so a device is told by its type."""
    waiting = [placed for placed in group if placed.device.bus == "mmio"]
    for address in io.transports if waiting else ():
        found = await virtio.mmio_at(io, address)
        if found is None:
            continue
        driven = await virtio.drive(io, *found)
        seen = Prepared(driven.how, request=driven.request, watched=await _seen(io, driven.watched))
        owner = next(
            placed for placed in waiting if registers.VIRTIO_TYPES[placed.device.types[0]] == found[1]
        )
        waiting.remove(owner)
        done[owner.id] = seen


async def _seen(io: Io, watched: list[tuple[str, list[Access]]]) -> list[tuple[str, list[Access], int]]:
    return [(name, accesses, await io.last(*accesses)) for name, accesses in watched]


async def compare(
    io: Io, group: Group, prepared: Mapping[str, Prepared], differing: dict[str, str]
) -> AsyncIterator[str]:
    """Looks at every device again and makes its request once more; yields the id of each before its turn.
    What the guest sees now and did not see before goes to `differing`. Raises QemuDied."""
    await io.find_windows()
    for placed in group:
        yield placed.id
        before = prepared[placed.id]
        # Registers whose place is gone are not touched: an Arm guest that does ends in an abort.
        found = await _config(io, before) or await _watched(io, before)
        if found:
            differing[placed.id] = "; ".join(found)
        elif before.request is not None:
            await virtio.make(io, before.request, 2)


async def _config(io: Io, before: Prepared) -> list[str]:
    if not before.slot:
        return []
    now = await io.config(before.slot)
    return [
        f"configuration space {at:#x}: was {old:#04x}, is {new:#04x}"
        for at, (old, new) in enumerate(zip(before.config, now, strict=True))
        if (old ^ new) & ~_MOMENTARY.get(at, 0)
    ]


async def _watched(io: Io, before: Prepared) -> list[str]:
    now = await io.run(joined(accesses for _, accesses, _ in before.watched))
    reads = [sum(access.operation.reads for access in accesses) for _, accesses, _ in before.watched]
    last = [now[sum(reads[: place + 1]) - 1] for place in range(len(reads))]
    return [
        f"{name}: was {old:#x}, is {new:#x}"
        for (name, _, old), new in zip(before.watched, last, strict=True)
        if old != new
    ]
