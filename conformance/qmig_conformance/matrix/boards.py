"""The kinds of machine that devices are put into."""

from __future__ import annotations

from qmig_conformance.matrix.model import Board

#: MiB of RAM: enough for every firmware.
MEMORY = 32
_PCI = frozenset({"pci", "usb", "device"})

BOARDS: tuple[Board, ...] = (
    # i440fx: slot 0 host bridge, 1 PIIX3 and its functions
    Board("pc", "x86_64", "pc", slots=range(2, 28), buses=_PCI | {"isa"}, firmware=True),
    # ICH9 is in slot 31; 28 to 30 are left to it as well
    Board("q35", "x86_64", "q35", slots=range(1, 27), buses=_PCI | {"isa", "express"}, firmware=True),
    # eight virtio-mmio transports without an I/O APIC of its own
    Board("microvm", "x86_64", "microvm", slots=range(8), buses=frozenset({"mmio"})),
    Board("virt", "aarch64", "virt", ("-cpu", "cortex-a57"), range(1, 27), _PCI | {"mmio", "express"}),
)


def board(name: str) -> Board:
    """KeyError for a name that is none."""
    return {one.name: one for one in BOARDS}[name]
