"""Devices that need other devices around them, and those that no bus lists."""

from __future__ import annotations

from collections.abc import Sequence

from qmig_conformance.matrix.model import Device

_DIMM = "slots=4,maxmem=1G"
_DISK = "-blockdev driver=null-co,node-name={id}-disk,read-zeroes=on"


def _row(
    types: Sequence[str],
    bus: str,
    *arguments: str,
    name: str = "",
    exclusive: str = "",
    machine: str = "",
    memory: str = "",
) -> Device:
    return Device(name or " + ".join(types), bus, arguments, tuple(types), exclusive, machine, memory)


def _scsi(controller: str) -> Device:
    return _row(
        (controller, "scsi-hd", "scsi-cd"),
        "pci",
        _DISK,
        f"-device {controller},id={{id}},addr={{slot}}",
        "-device scsi-hd,bus={id}.0,scsi-id=0,drive={id}-disk",
        "-device scsi-cd,bus={id}.0,scsi-id=1",
    )


def _usb(controller: str, device: str) -> Device:
    return _row(
        (controller, device),
        "pci",
        f"-device {controller},id={{id}}-hc,addr={{slot}}",
        f"-device {device},bus={{id}}-hc.0",
    )


def _audio(controller: str) -> Device:
    codecs = ("hda-duplex", "hda-output", "hda-micro")
    return _row(
        (controller, *codecs),
        "pci",
        "-audiodev none,id={id}-snd",
        f"-device {controller},id={{id}},addr={{slot}}",
        *(f"-device {codec},bus={{id}}.0,audiodev={{id}}-snd" for codec in codecs),
    )


def _ipmi(interface: str, bus: str) -> Device:
    place = ",addr={slot}" if bus == "pci" else ""
    return _row(
        (interface, "ipmi-bmc-sim"),
        bus,
        "-device ipmi-bmc-sim,id={id}-bmc",
        f"-device {interface},bmc={{id}}-bmc{place}",
        exclusive="ipmi",
    )


def _dimm(type_: str, size: str, bus: str, more: str = "", machine: str = "") -> Device:
    return _row(
        (type_,),
        bus,
        f"-object memory-backend-ram,id={{id}}-mem,size={size}",
        f"-device {type_},id={{id}},memdev={{id}}-mem{more}",
        machine=machine,
        memory=_DIMM,
    )


COMPOSITES: tuple[Device, ...] = (
    *map(_scsi, ("virtio-scsi-pci", "lsi53c895a", "am53c974", "megasas", "megasas-gen2")),
    *map(_scsi, ("mptsas1068", "pvscsi")),
    _row(
        ("ich9-ahci", "ide-hd", "ide-cd"), "pci", _DISK, "-device ich9-ahci,id={id},addr={slot}",
        "-device ide-hd,bus={id}.0,drive={id}-disk", "-device ide-cd,bus={id}.1",
    ),
    _row(
        ("virtio-serial-pci", "virtconsole", "virtserialport"), "pci",
        "-chardev null,id={id}-c1", "-chardev null,id={id}-c2",
        "-device virtio-serial-pci,id={id},addr={slot}",
        "-device virtconsole,bus={id}.0,chardev={id}-c1", "-device virtserialport,bus={id}.0,chardev={id}-c2",
    ),
    _row(
        ("virtio-blk-pci",), "pci", "-object iothread,id={id}-io", _DISK,
        "-device virtio-blk-pci,id={id},addr={slot},iothread={id}-io,drive={id}-disk",
        name="virtio-blk-pci with iothread",
    ),
    _row(
        ("virtio-net-pci",), "pci", "-device virtio-net-pci,id={id},addr={slot},mq=on,vectors=6",
        name="virtio-net-pci with mq=on",
    ),
    *map(_audio, ("intel-hda", "ich9-intel-hda")),
    _usb("usb-ehci", "usb-tablet"),
    _usb("piix3-usb-uhci", "usb-mouse"),
    _usb("pci-ohci", "usb-kbd"),
    _row(
        ("pcie-root-port", "virtio-net-pci"), "express",
        "-device pcie-root-port,id={id},addr={slot},chassis={number}",
        "-device virtio-net-pci,bus={id},romfile=",
    ),
    _row(
        ("pci-bridge", "e1000"), "pci", "-device pci-bridge,id={id},addr={slot},chassis_nr={number}",
        "-device e1000,bus={id},addr=1,romfile=",
    ),
    _row(
        ("pcie-root-port", "x3130-upstream", "xio3130-downstream"), "express",
        "-device pcie-root-port,id={id},addr={slot},chassis={number}",
        "-device x3130-upstream,id={id}-up,bus={id}",
        "-device xio3130-downstream,id={id}-down,bus={id}-up,chassis={number},slot=1",
    ),
    _ipmi("isa-ipmi-kcs", "isa"),
    _ipmi("isa-ipmi-bt", "isa"),
    _ipmi("pci-ipmi-kcs", "pci"),
    _ipmi("pci-ipmi-bt", "pci"),
    _row(
        ("ivshmem-plain",), "pci", "-object memory-backend-ram,id={id}-mem,size=1M",
        "-device ivshmem-plain,id={id},addr={slot},memdev={id}-mem,master=on",
    ),
    _row(
        ("acpi-erst",), "pci",
        "-object memory-backend-file,id={id}-mem,size=64K,share=on,mem-path={{folder}}/erst",
        "-device acpi-erst,id={id},addr={slot},memdev={id}-mem",
    ),
    _row(("vmcoreinfo",), "device", "-device vmcoreinfo"),
    # a fixed identifier: both sides are the same virtual machine
    _row(("vmgenid",), "device", "-device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"),
    _row(("intel-iommu",), "express", "-device intel-iommu", exclusive="alone"),
    _row(("amd-iommu",), "express", "-device amd-iommu", exclusive="alone"),
    _dimm("pc-dimm", "128M", "device"),
    _dimm("nvdimm", "128M", "device", machine="nvdimm=on"),
    _dimm("virtio-mem-pci", "128M", "pci", ",addr={slot},requested-size=32M"),
    _dimm("virtio-pmem-pci", "128M", "pci", ",addr={slot}"),
)  # fmt: skip

#: Types that only a row above can start.
NOT_ALONE = frozenset(
    {
        *("isa-ipmi-kcs", "isa-ipmi-bt", "pci-ipmi-kcs", "pci-ipmi-bt", "ivshmem-plain", "acpi-erst"),
        *("virtio-mem-pci", "virtio-pmem-pci", "virtio-mem", "virtio-pmem"),
        *("xio3130-downstream", "x3130-upstream"),
    }
)
