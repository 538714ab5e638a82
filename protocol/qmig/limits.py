"""Bounds on what a reader keeps in memory, each with its reason.

A reader holds at most one incomplete record, so its memory is bounded by the
largest of these plus the chunk its caller gave it.
"""

from __future__ import annotations

from typing import Final

MiB: Final = 1 << 20

#: Longest machine type name. QEMU's own are under 40 bytes; the wire allows 4 GiB.
MACHINE_NAME: Final = 1024
#: Names in `configuration/capabilities`. QEMU 11.1 has 21 capabilities in all.
CAPABILITIES: Final = 256
#: RAM blocks in one list. A machine has tens; every hotplugged DIMM and ROM adds one.
RAM_BLOCKS: Final = 65536
#: Largest target page: the flag bits and the address share one word, and no QEMU
#: target has pages above 64 KiB.
PAGE_SIZE: Final = 65536
#: The JSON at the end. 100 KiB for a small PC, 1 to 2 MiB with hundreds of devices.
VMDESC: Final = 16 * MiB
#: Device state that must be held until the description behind it explains it.
#: virtio-gpu resources and large VGA buffers reach tens of MiB.
DEVICE_STATE: Final = 256 * MiB
#: A postcopy package holds device state only.
PACKAGE: Final = 256 * MiB
#: One received-pages bitmap: 1 bit per target page, so 32 MiB stands for 1 TiB of 4 KiB pages.
RECV_BITMAP: Final = 256 * MiB
#: Payload of one multifd packet: 512 KiB of pages; compressed data may be longer than
#: its input by the codec's bound, and device-state buffers go up to this size.
MULTIFD_PAYLOAD: Final = 64 * MiB
#: RAM page records handed out in one event, in bytes of wire. Bounds the arrays that
#: describe a batch, not the data, which is a view of the caller's chunk.
RAM_BATCH: Final = 256 * MiB
#: Live handlers of one stream: RAM, bitmaps, one per passed-through device.
LIVE_SECTIONS: Final = 4096
