"""The migrations that are played with real QEMU builds, once for all users: the live tests of both peers, the
conformance suite, the table in the docs.

    for scenario in select(role=Role.DESTINATION):
        argv = scenario.arguments(qemu.version, folder)

Names are those of the recordings they would make. What a build cannot do it says itself (`Unsupported`, in
its own words: no such capability, parameter, property or machine type), so no table of versions is kept here.
What one of our peers cannot play stands with its reason in `not_source` or `not_destination`, and what
neither of them can in `EXCLUDED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from qmig.testing.guest import ARM_RAM
from qmig.testing.scenario import MIB, Boot, Flow, Role, Scenario

# -- building blocks -----------------------------------------------------------------------------------

RETURN_PATH: Final = {"return-path": True}
MULTIFD: Final = {"multifd": True}
POSTCOPY: Final = {"postcopy-ram": True}
PREEMPT: Final = {**POSTCOPY, **RETURN_PATH, "postcopy-preempt": True}
MAPPED: Final = {"mapped-ram": True}

SERIAL: Final = ("-device", "isa-serial")
VIRTIO: Final = (
    "-device", "virtio-net-pci,mac=52:54:00:00:00:01,romfile=",
    "-device", "virtio-rng-pci",
)  # fmt: skip
MANY: Final = (
    "-device", "e1000,mac=52:54:00:00:00:02,romfile=",
    "-device", "virtio-net-pci,mac=52:54:00:00:00:01,romfile=",
    "-device", "virtio-balloon-pci",
    "-device", "isa-serial",
    "-device", "qemu-xhci,id=xhci",
    "-device", "usb-tablet,bus=xhci.0",
    "-vga", "std",
)  # fmt: skip
TWO_NODES: Final = (
    "-object", "memory-backend-ram,id=m0,size=8M", "-object", "memory-backend-ram,id=m1,size=8M",
    "-numa", "node,memdev=m0", "-numa", "node,memdev=m1",
)  # fmt: skip
SHARED_FILE: Final = (
    "-object", "memory-backend-file,id=mem,size=16M,mem-path={folder}/ram,share=on",
    "-machine", "memory-backend=mem",
)  # fmt: skip
HUGE: Final = (
    "-object", "memory-backend-memfd,id=mem,size=16M,hugetlb=on,hugetlbsize=2M",
    "-machine", "memory-backend=mem",
)  # fmt: skip
DISK: Final = (
    "-blockdev", "driver=file,filename={folder}/disk.raw,node-name=q0,locking=off",
    "-device", "virtio-blk-pci,drive=q0,share-rw=on",
)  # fmt: skip
#: memory that the guest goes on dirtying while postcopy runs
BUSY: Final = (3 * MIB, 4 * MIB)
BUSY_HUGE: Final = (3 * MIB, 13 * MIB)

#: what keeps a source from finishing before it has made its passes, and what lets it finish then
SLOW: Final[Mapping[str, Any]] = {"downtime-limit": 1, "max-bandwidth": 2 * MIB}
FAST: Final[Mapping[str, Any]] = {"downtime-limit": 2000, "max-bandwidth": 1024 * MIB}
#: pages come slowly enough behind the switch that some have to be asked for
POSTCOPY_SPEED: Final[Mapping[str, Any]] = {"max-postcopy-bandwidth": 4 * MIB}
#: slow enough to be cut in the middle
RECOVER_SPEED: Final[Mapping[str, Any]] = {"max-postcopy-bandwidth": MIB // 2}

_BITMAP: Final[dict[str, Any]] = {
    "bitmap": ("q0", "bm0"), "options": DISK, "files": {"disk.raw": 4 * MIB},
}  # fmt: skip


def _plain() -> Iterator[Scenario]:
    yield Scenario(
        name="precopy-plain-q35", what="the defaults, many devices", options=MANY, boot=Boot.DISK, quick=True
    )
    yield Scenario(
        name="precopy-plain-pc", what="i440fx", machine="pc-i440fx-VER", options=SERIAL, boot=Boot.DISK,
        memory=8,
    )  # fmt: skip
    yield Scenario(name="precopy-plain-microvm", what="microvm", machine="microvm", memory=8)
    yield Scenario(
        name="precopy-plain-none", what="no machine", machine="none", memory=8, boot=Boot.NONE,
        not_source="no CPU that could be seen running",
    )  # fmt: skip
    yield Scenario(name="precopy-sink", what="nobody answers", options=VIRTIO)
    yield Scenario(name="precopy-paused", what="a stopped guest", options=SERIAL, paused=True, memory=8)
    yield Scenario(
        name="precopy-rounds", what="several passes", options=VIRTIO, passes=4,
        dirty=(3 * MIB, 3 * MIB + MIB // 2),
    )  # fmt: skip
    yield Scenario(
        name="precopy-vmdesc-off", what="no description", memory=8, options=("-machine", "suppress-vmdesc=on")
    )
    yield Scenario(
        name="precopy-netrom-q35", what="a ROM of a network card", boot=Boot.DISK,
        options=("-device", "virtio-net-pci,mac=52:54:00:00:00:01"),
    )  # fmt: skip
    for off in ("configuration", "section-footer"):
        yield Scenario(
            name="precopy-no-" + {"configuration": "config", "section-footer": "footer"}[off],
            what=f"migration.send-{off}=off", memory=8, options=("-global", f"migration.send-{off}=off"),
        )  # fmt: skip
    yield Scenario(
        name="precopy-no-globalstate", what="migration.store-global-state=off", memory=8,
        options=("-global", "migration.store-global-state=off"),
    )  # fmt: skip
    yield Scenario(name="precopy-two-ramblocks", what="two NUMA nodes", options=TWO_NODES)
    yield Scenario(
        name="precopy-arm-virt", what="aarch64", machine="virt-VER", target="aarch64", boot=Boot.KERNEL,
        memory=32, options=("-cpu", "cortex-a57"), fill=(ARM_RAM + 2 * MIB, ARM_RAM + 3 * MIB),
        dirty=(ARM_RAM + 3 * MIB, ARM_RAM + 3 * MIB + 64 * 4096), quick=True,
    )  # fmt: skip
    for old in ("2.3", "2.12"):
        yield Scenario(
            name=f"precopy-pc-{old}", what="an old machine type", machine=f"pc-i440fx-{old}", options=SERIAL,
            memory=8,
        )  # fmt: skip


def _transports() -> Iterator[Scenario]:
    for transport, caps in (("tcp", RETURN_PATH), ("fd", RETURN_PATH), ("exec", {})):
        yield Scenario(
            name=f"precopy-{transport}", what=f"over {transport}:", options=SERIAL, memory=8,
            transport=transport, capabilities=caps, quick=True,
        )  # fmt: skip
    yield Scenario(
        name="precopy-file", what="into a file", flow=Flow.FILE, transport="file", options=SERIAL, quick=True
    )
    yield Scenario(name="mapped-ram", what="pages at fixed offsets", flow=Flow.FILE, transport="file",
                   capabilities=MAPPED, options=SERIAL, quick=True)  # fmt: skip
    yield Scenario(
        name="mapped-ram-multifd", what="pages at fixed offsets, several writers", flow=Flow.FILE,
        transport="file", capabilities={**MAPPED, **MULTIFD}, parameters={"multifd-channels": 2},
        options=SERIAL,
    )  # fmt: skip
    yield Scenario(
        name="mapped-ram-offset", what="pages at fixed offsets behind a file's beginning", flow=Flow.FILE,
        transport="file", capabilities=MAPPED, memory=8, offset=MIB,
    )  # fmt: skip
    yield Scenario(
        name="tls-x509", what="TLS", tls=True, transport="tcp", memory=8, capabilities=RETURN_PATH, quick=True
    )
    yield Scenario(
        name="tls-x509-multifd", what="TLS on every channel", tls=True, transport="tcp", memory=8,
        capabilities={**MULTIFD, **RETURN_PATH}, parameters={"multifd-channels": 2},
    )  # fmt: skip


def _capabilities() -> Iterator[Scenario]:
    yield Scenario(
        name="return-path", what="return path", capabilities=RETURN_PATH, options=VIRTIO, quick=True
    )
    yield Scenario(
        name="pause-before-switchover", what="waits before the switchover", memory=8, options=SERIAL,
        capabilities={"pause-before-switchover": True, **RETURN_PATH},
    )  # fmt: skip
    yield Scenario(
        name="switchover-ack", what="the destination agrees to the switchover", memory=8, options=VIRTIO,
        capabilities={"switchover-ack": True, **RETURN_PATH},
    )  # fmt: skip
    yield Scenario(
        name="switchover-ack-legacy", what="agreement as machine types up to 11.0 have it", memory=8,
        capabilities={"switchover-ack": True, **RETURN_PATH}, other="10.0",
    )  # fmt: skip
    yield Scenario(
        name="validate-uuid", what="the machine's uuid is sent", memory=8,
        capabilities={"validate-uuid": True},
        options=("-uuid", "00112233-4455-6677-8899-aabbccddeeff"),
    )  # fmt: skip
    yield Scenario(
        name="ignore-shared", what="shared memory is not sent", capabilities={"x-ignore-shared": True},
        options=SHARED_FILE, files={"ram": 16 * MIB},
    )  # fmt: skip
    yield Scenario(
        name="release-ram", what="sent memory is released", memory=8,
        capabilities={"release-ram": True, **RETURN_PATH},
    )  # fmt: skip
    yield Scenario(
        name="zero-blocks", what="capability zero-blocks", memory=8, capabilities={"zero-blocks": True}
    )
    yield Scenario(
        name="dirty-bitmaps", what="a dirty bitmap", memory=8, capabilities={"dirty-bitmaps": True}, **_BITMAP
    )
    yield Scenario(
        name="block-migration", what="a disk is sent", memory=8, capabilities={"block": True},
        options=("-drive", "file={folder}/disk.raw,format=raw,if=none,id=dk",
                 "-device", "virtio-blk-pci,drive=dk"),
        files={"disk.raw": 4 * MIB},
    )  # fmt: skip
    yield Scenario(
        name="background-snapshot", what="memory as it was at the start", transport="exec",
        capabilities={"background-snapshot": True}, options=SERIAL,
        not_source="a snapshot of a running guest is no migration that a destination could tell from others",
    )  # fmt: skip


def _encodings() -> Iterator[Scenario]:
    busy = (3 * MIB, 3 * MIB + 128 * 4096)
    yield Scenario(
        name="xbzrle", what="differences of pages after the first pass", capabilities={"xbzrle": True},
        parameters={"xbzrle-cache-size": 4 * MIB}, passes=4, options=SERIAL, dirty=busy, quick=True,
    )  # fmt: skip
    threads = {"compress-threads": 2}
    yield Scenario(
        name="compress", what="zlib per page", capabilities={"compress": True}, options=SERIAL,
        parameters={**threads, "compress-level": 1}, quick=True,
    )  # fmt: skip
    yield Scenario(
        name="compress-xbzrle", what="zlib per page, then differences", memory=8, passes=4, dirty=busy,
        capabilities={"compress": True, "xbzrle": True}, parameters=threads,
    )  # fmt: skip
    yield Scenario(
        name="nozero", what="no search for zero pages", memory=8, options=SERIAL,
        parameters={"zero-page-detection": "none"},
    )  # fmt: skip


def _multifd() -> Iterator[Scenario]:
    plain = Scenario(name="", what="", capabilities=MULTIFD, options=SERIAL)
    for method, channels in (
        ("none", 1), ("none", 2), ("none", 4), ("none", 16), ("zlib", 2), ("zstd", 3),
        ("qpl", 2), ("uadk", 2), ("qatzip", 2),
    ):  # fmt: skip
        yield replace(
            plain,
            name=f"multifd-{method}-{channels}",
            what=f"{channels} channels, compression {method}",
            parameters={"multifd-channels": channels, "multifd-compression": method},
            quick=(method, channels) in (("none", 4), ("zlib", 2), ("zstd", 3)),
        )
    yield replace(
        plain, name="multifd-rounds-2", what="2 channels, several passes", passes=4, options=VIRTIO,
        capabilities={**MULTIFD, **RETURN_PATH}, parameters={"multifd-channels": 2}, dirty=BUSY, quick=True,
    )  # fmt: skip
    for setting in ("legacy", "none"):
        yield replace(
            plain, name="multifd-" + {"legacy": "legacy-zero", "none": "nozero"}[setting], memory=8,
            what=f"zero-page-detection {setting}",
            parameters={"multifd-channels": 2, "zero-page-detection": setting},
        )  # fmt: skip


def _postcopy() -> Iterator[Scenario]:
    plain = Scenario(
        name="postcopy", what="postcopy", flow=Flow.POSTCOPY, capabilities=POSTCOPY, dirty=BUSY,
        options=VIRTIO, parameters=POSTCOPY_SPEED, quick=True,
    )  # fmt: skip
    recover = replace(plain, flow=Flow.RECOVER, options=SERIAL, parameters=RECOVER_SPEED)
    yield plain
    yield replace(
        plain,
        name="postcopy-preempt",
        what="postcopy with preempt channel",
        capabilities=PREEMPT,
        options=SERIAL,
    )
    yield replace(
        recover, name="postcopy-recover", what="postcopy, recovered", capabilities={**POSTCOPY, **RETURN_PATH}
    )
    yield replace(
        recover, name="postcopy-preempt-recover", what="postcopy with preempt channel, recovered",
        capabilities=PREEMPT, dirty=(3 * MIB, 8 * MIB), quick=False,
    )  # fmt: skip
    yield Scenario(
        name="postcopy-unused", what="postcopy announced, not used", memory=8, options=SERIAL,
        capabilities=POSTCOPY,
    )  # fmt: skip
    yield replace(
        plain, name="postcopy-bitmaps", what="postcopy of memory and of a dirty bitmap", memory=12,
        quick=False, capabilities={**POSTCOPY, "dirty-bitmaps": True}, **_BITMAP,
    )  # fmt: skip
    yield replace(
        plain, name="multifd-postcopy", what="multifd, then postcopy", options=SERIAL, quick=False,
        capabilities={**POSTCOPY, **MULTIFD, **RETURN_PATH},
        parameters={**POSTCOPY_SPEED, "multifd-channels": 2},
    )  # fmt: skip
    huge = replace(plain, options=HUGE, dirty=BUSY_HUGE, huge_pages=16, quick=False)
    yield replace(huge, name="postcopy-hugepages", what="postcopy of pages of 2 MiB")
    yield replace(
        huge, name="postcopy-preempt-hugepages", what="postcopy of pages of 2 MiB with preempt channel",
        capabilities=PREEMPT,
    )  # fmt: skip


def _repeated() -> Iterator[Scenario]:
    yield Scenario(
        name="precopy-twice", what="cancelled, then done again", flow=Flow.CANCEL, memory=12, options=SERIAL,
        not_source="a destination that loses its source in precopy ends, and there is nobody to come back to",
    )  # fmt: skip
    for other in ("5.2", "7.2", "10.0", "11.1"):
        yield Scenario(
            name=f"cross-q35-to-{other}", what=f"a machine type that {other} has too", other=other,
            options=VIRTIO, capabilities=RETURN_PATH,
        )  # fmt: skip
        yield Scenario(
            name=f"cross-pc-to-{other}", what=f"an i440fx that {other} has too", other=other, options=SERIAL,
            machine="pc-i440fx-VER", memory=8, boot=Boot.DISK,
        )  # fmt: skip
        yield Scenario(
            name=f"cross-q35-multifd-to-{other}", what=f"multifd with a machine type that {other} has too",
            other=other, options=SERIAL, capabilities={**MULTIFD, **RETURN_PATH},
            parameters={"multifd-channels": 2},
        )  # fmt: skip


SCENARIOS: Final[tuple[Scenario, ...]] = tuple(
    scenario
    for family in (_plain, _transports, _capabilities, _encodings, _multifd, _postcopy, _repeated)
    for scenario in family()
)

_NO_PSK: Final = "the standard library has no PSK before Python 3.13"

#: Recordings' names that no peer of ours can play, and why.
EXCLUDED: Final[Mapping[str, str]] = {
    "snapshot-save": "nobody is connected: the same program writes and reads the image",
    "cpr-reboot": "nobody is connected: the host is started anew, the memory stays in a file",
    "tls-psk": f"{_NO_PSK}; tls-x509 is played instead",
    "tls-psk-nohostname": f"{_NO_PSK}; tls-x509 is played instead",
    "tls-psk-multifd": f"{_NO_PSK}; tls-x509-multifd is played instead",
    "cpr-transfer": "the memory itself is handed over as descriptors, and the monitor of a real destination"
    " answers only when it has them",
}


def scenario(name: str) -> Scenario:
    """The scenario of this name."""
    return next(found for found in SCENARIOS if found.name == name)


def select(*, role: Role | None = None, target: str = "", quick: bool = False) -> Iterator[Scenario]:
    """Scenarios that our peer can play in this role, for builds of this target; with `quick` only those for
    every run."""
    for found in SCENARIOS:
        wrong = (target and found.target != target) or (quick and not found.quick)
        if not wrong and not (role and found.why_not(role)):
            yield found
