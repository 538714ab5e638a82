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
#: Window of a zstd frame on a multifd channel: what level 20 uses, and QEMU's receiver takes.
#: The memory is touched only as far as the data reach back.
ZSTD_WINDOW: Final = 128 * MiB
#: RAM page records handed out in one event, in bytes of wire. Bounds the arrays that
#: describe a batch, not the data, which is a view of the caller's chunk.
RAM_BATCH: Final = 256 * MiB
#: Live handlers of one stream: RAM, bitmaps, one per passed-through device.
LIVE_SECTIONS: Final = 4096
#: Bits of one dirty-bitmap chunk; QEMU sends 1 KiB and refuses more than this.
BITMAP_BITS: Final = 10 * 1024
#: VFIO device data are handed out in pieces; QEMU's own buffers are 1 MiB.
VFIO_PIECE: Final = 1 * MiB
#: VFIO configuration state inside a live section (QEMU 5.2), whose end must be searched:
#: 4 KiB of PCI configuration space and at most 2048 MSI-X entries of 16 bytes and 2048 pending bits.
VFIO_CONFIG: Final = 65536
#: s390 storage attributes of one record, 1 byte per page; QEMU sends at most 512 KiB.
STORAGE_ATTRIBUTES: Final = 1 * MiB
#: s390 storage keys of one record, 1 byte per page: a guest of 1 TiB.
STORAGE_KEYS: Final = 256 * MiB
#: Domain XML, cookie and padding of a libvirt save file; libvirt adds 64 KiB to what it needs.
LIBVIRT_DATA: Final = 16 * MiB
#: One piece of decompressed payload of a libvirt save file.
INFLATE_PIECE: Final = 1 * MiB
#: Dictionary memory of a payload's decompressor: xz -9 needs 65 MiB, zstd's own default bound is 128 MiB.
INFLATE_WINDOW: Final = 128 * MiB
#: qcow2 snapshots; QEMU's own bounds for their number, the table's size, and an entry's extra data.
QCOW2_SNAPSHOTS: Final = 65536
QCOW2_SNAPSHOT_TABLE: Final = 64 * MiB
QCOW2_SNAPSHOT_EXTRA: Final = 1024
#: qcow2 L1 table, QEMU's own bound.
QCOW2_L1: Final = 32 * MiB
#: Unallocated bytes inside a snapshot's state. savevm leaves none; tables of zeros cost nothing to forge.
QCOW2_HOLES: Final = 1024 * MiB
#: Name in a CPR state (object or RAMBlock path); QEMU's idstr are under 256 bytes.
CPR_NAME: Final = 4096
#: File descriptors and devices in a CPR state: RAM blocks, vhost and VFIO vectors.
CPR_ENTRIES: Final = 65536
#: Values in one JSON text. A description has one per 8 bytes; this many take 200 MB at worst.
JSON_VALUES: Final = 2 * MiB
#: Structures inside structures in a description. QEMU's deepest is under 10.
VMSTATE_DEPTH: Final = 48
#: Fields made of one device; arrays of numbers are one each. A large machine has 10,000 in all.
VMSTATE_FIELDS: Final = 1 << 18
#: Device state in which a reading is searched for; more is kept undecoded. QEMU's largest are
#: under 3 MiB where there is anything to search.
VMSTATE_SEARCH: Final = 16 * MiB
#: One RAM block: as much as any target can address.
RAM_BLOCK: Final = 1 << 52
