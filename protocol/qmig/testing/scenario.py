"""What one migration with a real QEMU build is made of. The table of them: `qmig.testing.scenarios`."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qmig.errors import QmigError
from qmig.testing.guest import Guest, Range, aarch64_image, boot_sector, firmware

MIB: Final = 1 << 20
#: stands for the version of the machine type in `Scenario.machine`
VERSION: Final = "VER"


class Unsupported(QmigError):
    """A build said that it has not got what a scenario needs."""


class Role(enum.Enum):
    """Which of our peers takes part; the build is the other side."""

    SOURCE = "source"
    DESTINATION = "destination"


class Flow(enum.Enum):
    """What happens, seen from the side that steers."""

    LIVE = "the source runs to its end"
    FILE = "into a file, which is read when the source has completed"
    CANCEL = "cancelled on the way, then done again from the start"
    POSTCOPY = "switched to postcopy after the first pass"
    RECOVER = "switched to postcopy, cut, recovered over new connections"
    CPR = "over a CPR channel; the memory itself is handed over"


class Boot(enum.Enum):
    """How the guest program gets into the machine."""

    NONE = "no guest"
    FIRMWARE = "in place of the firmware"
    DISK = "by the machine's firmware, from a disk"
    KERNEL = "as a kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One migration. Sizes in bytes, memory in MiB; `{folder}` in `options` is the machine's own folder."""

    name: str
    what: str
    flow: Flow = Flow.LIVE
    transport: str = "unix"
    #: a socket's connection is encrypted with x509 certificates
    tls: bool = False
    target: str = "x86_64"
    machine: str = "pc-q35-VER"
    memory: int = 16
    #: further arguments of QEMU
    options: tuple[str, ...] = ()
    #: files that have to be there before QEMU starts: name in the folder -> size, all zeros
    files: Mapping[str, int] = field(default_factory=dict)
    boot: Boot = Boot.FIRMWARE
    fill: Range = (2 * MIB, 3 * MIB)
    dirty: Range = (3 * MIB, 3 * MIB + 64 * 4096)
    #: the guest is stopped before
    paused: bool = False
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: passes over the guest's memory before the source is allowed to finish
    passes: int = 0
    #: (node, bitmap): a dirty bitmap that is made, and made dirty, before
    bitmap: tuple[str, str] | None = None
    #: bytes of the file before the stream
    offset: int = 0
    #: the machine type's version is that of the older one of the build and this
    other: str = ""
    #: free huge pages of 2 MiB that the host must have
    huge_pages: int = 0
    #: plays in every run of the tests, not only when all are asked for
    quick: bool = False
    #: why our peer cannot take this side; empty: it can
    not_source: str = ""
    not_destination: str = ""

    def machine_type(self, version: str) -> str:
        """The machine type for a build of this version (`10.0.13`)."""
        own = re.match(r"\d+\.\d+", version)
        if own is None:
            raise ValueError(f"{version!r} is no version of QEMU")
        older = min([own[0], *filter(None, [self.other])], key=lambda text: [int(n) for n in text.split(".")])
        return self.machine.replace(VERSION, older)

    def arguments(self, version: str, folder: Path) -> list[str]:
        """QEMU's arguments, the guest program and the monitor left out."""
        machine = ["-M", self.machine_type(version), "-accel", "tcg", "-m", f"{self.memory}M", "-nodefaults"]
        return [*machine, *(option.replace("{folder}", str(folder)) for option in self.options)]

    def program(self) -> Guest | None:
        """The guest program."""
        makers = {Boot.FIRMWARE: firmware, Boot.DISK: boot_sector, Boot.KERNEL: aarch64_image}
        maker = makers.get(self.boot)
        return maker(fill=self.fill, dirty=self.dirty) if maker else None

    def why_not(self, role: Role) -> str:
        """Why our peer cannot take part in this role; empty if it can."""
        return self.not_source if role is Role.SOURCE else self.not_destination
