"""The pair matrix: which device, idle or initialised, moves from which build to which.

    qmig conformance matrix                                   # all builds of the prefix
    qmig conformance matrix --qemu A --qemu B --board pc --device 'virtio-*'

Each source state is saved once and loaded by every build that has its machine type; many devices share a
machine, and a group that fails is taken apart until the devices that fail are found (`groups.search`).
Devices are initialised by a guest CPU that makes the accesses of the drivers in `drivers`
(`qmig.testing.remote`).
"""
