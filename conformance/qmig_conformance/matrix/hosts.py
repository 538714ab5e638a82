"""Devices that no machine here can have: they need something of the host, or another machine."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

#: type pattern -> what of the host, or of a machine that is not a board here, it needs
ELSEWHERE: Mapping[str, str] = {
    "vfio-*": "needs a host device",
    "vhost-*": "needs a vhost backend of the host or another process",
    "virtio-input-host-*": "needs an input device of the host",
    "usb-host": "needs a USB device of the host",
    "u2f-passthru": "needs a U2F key of the host",
    "pvrdma": "needs an RDMA device of the host",
    "ivshmem-doorbell": "needs an ivshmem server",
    "tpm-*": "needs a TPM emulator in another process",
    "xen-*": "needs Xen",
    "*-xen": "needs Xen",
    "igd-*": "needs a host device",
    "x-pci-proxy-dev": "needs another process",
    "cxl-*": "needs a machine with cxl=on",
    "pxb-cxl": "needs a machine with cxl=on",
    "kvm-*": "needs KVM",
    "hyperv-*": "needs KVM",
    "aspeed.*": "belongs to another machine",
    "designware-*": "belongs to another machine",
    "gpex-root": "is the host bridge itself",
    "igbvf": "is made by igb",
}


def elsewhere(type_: str) -> str:
    """Why no board here can have this type; empty if one may."""
    return next((why for pattern, why in ELSEWHERE.items() if fnmatch.fnmatchcase(type_, pattern)), "")
