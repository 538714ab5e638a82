"""The devices that the matrix has unless more are asked for: what guests of the last ten years are given."""

from __future__ import annotations

#: patterns for names or types (`catalog.select` without types)
COMMON: tuple[str, ...] = (
    # virtio
    "virtio-net-pci",
    "virtio-blk-pci",
    "virtio-scsi-pci + scsi-hd + scsi-cd",
    "virtio-serial-pci + virtconsole + virtserialport",
    "virtio-balloon-pci",
    "virtio-rng-pci",
    "virtio-gpu-pci",
    "virtio-keyboard-pci",
    "virtio-tablet-pci",
    "virtio-9p-pci",
    "virtio-crypto-pci",
    "virtio-mem-pci",
    # network
    "e1000",
    "e1000e",
    "rtl8139",
    "vmxnet3",
    "pcnet",
    "i82550",
    # disks
    "nvme",
    "ich9-ahci + ide-hd + ide-cd",
    "lsi53c895a + scsi-hd + scsi-cd",
    "am53c974 + scsi-hd + scsi-cd",
    "megasas + scsi-hd + scsi-cd",
    "mptsas1068 + scsi-hd + scsi-cd",
    "pvscsi + scsi-hd + scsi-cd",
    "sdhci-pci",
    # USB
    "qemu-xhci",
    "usb-kbd on qemu-xhci",
    "usb-storage on qemu-xhci",
    "usb-ehci + usb-tablet",
    "piix3-usb-uhci + usb-mouse",
    # display, sound
    "VGA",
    "bochs-display",
    "secondary-vga",
    "qxl",
    "intel-hda + hda-duplex + hda-output + hda-micro",
    "AC97",
    "ES1370",
    # buses and the rest
    "pcie-root-port + virtio-net-pci",
    "pci-bridge + e1000",
    "pci-serial",
    "i6300esb",
    "pvpanic-pci",
    "ivshmem-plain",
    "isa-ipmi-kcs + ipmi-bmc-sim",
    "isa-parallel",
    "sb16",
    "vmcoreinfo",
    "vmgenid",
    "pc-dimm",
)
