"""Which devices there are, and what each needs around it.

Types and properties come from the builds (`discover`). What a type needs follows from its properties: a
``drive`` property gets a disk, a ``chardev`` something to talk to, and so on. Network devices have no peer:
what they send ends at once, whatever network the host has. Only what no property tells is a table: what
a host must have here, devices on other devices in `composites`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qmig_conformance.matrix.composites import COMPOSITES, NOT_ALONE
from qmig_conformance.matrix.groups import ALONE
from qmig_conformance.matrix.hosts import elsewhere
from qmig_conformance.matrix.model import Board, BuildInfo, Device, State

#: property -> what goes before ``-device``, and the property's value
BACKENDS: Mapping[str, tuple[str, str]] = {
    "drive": ("-blockdev driver=null-co,node-name={id}-disk,read-zeroes=on", "{id}-disk"),
    "chardev": ("-chardev null,id={id}-chr", "{id}-chr"),
    "audiodev": ("-audiodev none,id={id}-snd", "{id}-snd"),
    "cryptodev": ("-object cryptodev-backend-builtin,id={id}-crypt", "{id}-crypt"),
    "canbus": ("-object can-bus,id={id}-can", "{id}-can"),
    "canbus0": ("-object can-bus,id={id}-can0", "{id}-can0"),
    "canbus1": ("-object can-bus,id={id}-can1", "{id}-can1"),
    "fsdev": ("-fsdev local,id={id}-fs,path={{folder}},security_model=none", "{id}-fs"),
}
#: type pattern -> properties without which the type does not start
VALUES: Mapping[str, str] = {
    "virtio-9p-*": "mount_tag=matrix",
    "nvme": "serial=matrix",
    "pcie-root-port": "chassis={number}",
    "ioh3420": "chassis={number}",
    "pci-bridge*": "chassis_nr={number}",
    "pxb": "bus_nr={bus}",
    "pxb-pcie": "bus_nr={bus}",
    "isa-serial": "index=1",
    "usb-mtp": "rootdir={{folder}}",
}
#: type pattern -> tag: types of which a machine has one at most
EXCLUSIVE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "VGA",
            "cirrus-vga",
            "qxl-vga",
            "vmware-svga",
            "virtio-vga*",
            "ati-vga",
            "isa-vga",
            "isa-cirrus-vga",
        ),
        "legacy VGA ranges",
    ),
    # its virtual functions need the slots behind it
    "igb": ALONE,
    "virtio-balloon*": "balloon",
    "pxb*": ALONE,
    "virtio-iommu*": ALONE,
}
_XHCI = "-device qemu-xhci,id={id}-hc,addr={slot}"
#: Devices of one kind go into one machine: what fails together is then found together.
_KINDS = ("virtio-", "usb-", "e1000", "i82", "")


def devices_of(board: Board, builds: Sequence[BuildInfo]) -> list[Device]:
    """The rows for a board: every type of any build that a user can create and that a board can have."""
    builds = [build for build in builds if build.target == board.target]
    found = [device for device in COMPOSITES if device.bus in board.buses and _known(device, builds)]
    for bus in ("pci", "isa", "usb", "mmio"):
        if bus in board.buses:
            found += _plain(bus, builds)
    return sorted(found, key=_kin)


def _known(device: Device, builds: Sequence[BuildInfo]) -> bool:
    return any(all(build.has(type_) for type_ in device.types) for build in builds)


def left_out(board: Board, builds: Sequence[BuildInfo]) -> dict[str, str]:
    """Types that a user can create and that no row is for, and why."""
    builds = [build for build in builds if build.target == board.target]
    types = {
        type_
        for build in builds
        for bus in ("pci", "isa", "usb", "mmio")
        if bus in board.buses
        for type_ in build.types[bus] - build.internal
    }
    return {type_: why for type_ in sorted(types) if (why := elsewhere(type_))}


def _plain(bus: str, builds: Sequence[BuildInfo]) -> Iterator[Device]:
    for type_ in sorted(frozenset().union(*(build.types[bus] for build in builds))):
        having = [build for build in builds if type_ in build.properties]
        if having and not elsewhere(type_) and type_ not in NOT_ALONE:
            yield _device(type_, bus, frozenset.intersection(*(b.properties[type_] for b in having)))


def _device(type_: str, bus: str, properties: frozenset[str]) -> Device:
    before, options = [], [type_, "id={id}"]
    name, types = type_, [type_]
    if bus == "usb":
        before.append(_XHCI)
        options.append("bus={id}-hc.0")
        name = f"{type_} on qemu-xhci"
        types.append("qemu-xhci")
    elif bus == "pci":
        options.append("addr={slot}")
    for property_, (backend, value) in BACKENDS.items():
        if property_ in properties:
            before.append(backend)
            options.append(f"{property_}={value}")
    options += [more for pattern, more in VALUES.items() if fnmatch.fnmatchcase(type_, pattern)]
    # The firmware has little room for option ROMs; the idle machine has them all.
    without_rom = {"netdev", "romfile"} <= properties
    return Device(
        name=name,
        bus=bus,
        arguments=(*before, f"-device {','.join(options)}"),
        types=tuple(types),
        exclusive=_exclusive(type_, bus),
        only={State.INITIALISED: ("-set device.{id}.romfile=",)} if without_rom else {},
    )


def _exclusive(type_: str, bus: str) -> str:
    tag = next((tag for pattern, tag in EXCLUSIVE.items() if fnmatch.fnmatchcase(type_, pattern)), "")
    # an ISA device has fixed ports
    return tag or (type_ if bus == "isa" else "")


def _kin(device: Device) -> tuple[str, int, str, str]:
    kind = next(place for place, kind in enumerate(_KINDS) if device.name.startswith(kind))
    return device.machine + device.memory, kind, device.bus, device.name


def select(devices: Iterable[Device], patterns: Sequence[str], *, by_type: bool = True) -> list[Device]:
    """Those whose name, or with `by_type` one of whose types, matches a pattern; all without patterns."""
    return [
        device
        for device in devices
        if not patterns
        or any(
            fnmatch.fnmatchcase(text, pattern)
            for pattern in patterns
            for text in (device.name, *(device.types if by_type else ()))
        )
    ]
