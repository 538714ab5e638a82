"""How a source sends a machine: capabilities, parameters and the properties that follow the machine type.

Names are QEMU's: capabilities and parameters as in QAPI, properties as in `-global migration.NAME`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy.multifd import METHODS, MultifdFlag
from qmig.legacy.sync import SyncMode
from qmig.legacy.verify.facts import NEVER, PROPERTIES, Version, machine_version

#: a changed event, none, or several, in place of one: (channel, event) -> events
Change = Callable[[str, Record], Iterable[Record]]


class ZeroPages(enum.Enum):
    """Parameter `zero-page-detection`: what becomes of zero pages where pages travel in multifd packets."""

    NONE = "none"  # sent like any other page
    LEGACY = "legacy"  # records on main
    MULTIFD = "multifd"  # offsets in packets


class PageOrder(enum.Enum):
    """In which order the pages of one piece of a block are sent; receivers must not care."""

    ASCENDING = "ascending"
    DESCENDING = "descending"
    SCATTERED = "scattered"


class Postcopy(enum.Enum):
    """Capability `postcopy-ram`, and whether it is made use of."""

    OFF = "off"
    ADVISED = "advised"  # on, but the migration ends in precopy
    STARTED = "started"


#: methods that payloads can be made with here
COMPRESSIONS: Final = {
    METHODS[flag]: flag for flag in (MultifdFlag.NOCOMP, MultifdFlag.ZLIB, MultifdFlag.ZSTD)
}
#: the machine types whose migrations go back to the packets of 8.x
_OLD_PACKETS: Final[Version] = (8, 2)
#: the first QEMU that waits for the package to be loaded
_POSTCOPY_DEVICE: Final[Version] = (10, 2)
#: QEMU's highest number of channels
_MOST_CHANNELS: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """All that may differ between two migrations of one image. Sizes are in bytes.

    `for_machine` gives those that a source of this machine type would have."""

    #: capability `return-path`; postcopy and switchover-ack need it
    return_path: bool = False
    #: 0: capability `multifd` is off
    multifd_channels: int = 0
    #: `none`, `zlib` or `zstd`
    multifd_compression: str = "none"
    multifd_level: int = 1
    zero_page_detection: ZeroPages = ZeroPages.MULTIFD
    #: per section up to machine types 8.0 (`multifd-flush-after-each-section`)
    sync_mode: SyncMode = SyncMode.PER_ROUND
    #: packets as 5.2 to 8.2 send them: SYNC with `pages_alloc`, a stale `next_packet_size`, no zero pages
    stale_packets: bool = False
    #: property `send-switchover-start`
    switchover_start: bool = True
    #: capability `switchover-ack`, and property `switchover-ack-legacy`
    switchover_ack: bool = False
    switchover_ack_legacy: bool = False
    postcopy: Postcopy = Postcopy.OFF
    #: capability `postcopy-preempt`, and property `x-preempt-pre-7-2`
    postcopy_preempt: bool = False
    preempt_pre_7_2: bool = False
    #: ask for PONG 0x42 before the guest is given up (10.2+)
    postcopy_device: bool = True
    #: capability `xbzrle`: pages that are sent again go as differences
    xbzrle: bool = False
    #: capability `compress` (up to 9.0): every page as a zlib stream
    compress: bool = False
    #: so-manyth pages are sent first with an older content, then as they are; 0: every page once
    rewritten: int = 0
    #: capability `mapped-ram`, for files; `file_offset` is where in the file the stream begins
    mapped_ram: bool = False
    file_offset: int = 0
    page_order: PageOrder = PageOrder.ASCENDING
    #: page size of the source's host, where a block's entry does not name another
    host_page_size: int = 4096
    #: the same for single blocks, by idstr, where the image does not know it (`postcopy-ram` was off)
    backing_page_sizes: Mapping[str, int] = field(default_factory=dict)
    #: of the machine; None: that of the image. `validate_uuid` writes it into the configuration
    uuid: bytes | None = None
    validate_uuid: bool = False
    #: whether the description goes behind the end (`suppress-vmdesc=off`)
    vmdesc: bool = True
    #: guest memory of one event, and of one output to a channel
    chunk: int = 1 << 20
    #: guest memory of one background output in postcopy: what a request has to wait for
    postcopy_chunk: int = 64 << 10
    #: host pages that have to be asked for before pages are sent unasked; a guest that does not touch so many
    #: is waited for
    background_after: int = 0
    change: Change | None = None

    def __post_init__(self) -> None:
        for wrong, why, requirement in _contradictions(self):
            if wrong:
                raise LocalProtocolError(f"settings of a source: {why}", requirement=requirement)

    @classmethod
    def for_machine(
        cls, machine: str | None, *, version: Version | None = None, **given: Any
    ) -> SourceSettings:
        """What the machine type decides, and what is `given`. A machine type without a version (microvm)
        goes with the `version` of QEMU, whose default is the newest."""
        build = version or machine_version(machine) or NEVER
        version = machine_version(machine) or build
        own = {
            "postcopy_device": build >= _POSTCOPY_DEVICE,
            "sync_mode": SyncMode.PER_SECTION
            if _property("multifd-flush-after-each-section", version)
            else SyncMode.PER_ROUND,
            "stale_packets": version <= _OLD_PACKETS,
            "zero_page_detection": ZeroPages.LEGACY if version <= _OLD_PACKETS else ZeroPages.MULTIFD,
            "switchover_start": _property("send-switchover-start", version),
            "switchover_ack_legacy": _property("switchover-ack-legacy", version),
            "preempt_pre_7_2": _property("x-preempt-pre-7-2", version),
        }
        return cls(**{**own, **given})


def _property(name: str, version: Version) -> bool:
    last, old, _ = PROPERTIES[name]
    return old if version <= last else not old


def _contradictions(s: SourceSettings) -> Iterator[tuple[bool, str, str]]:
    """What no source can do: (whether it is asked for, why not, the statement)."""
    multifd, postcopy = bool(s.multifd_channels), s.postcopy is not Postcopy.OFF
    encoded = s.xbzrle or s.compress
    yield not 0 <= s.multifd_channels <= _MOST_CHANNELS, "0 to 255 multifd channels", "LEG-MFD-001"
    yield s.multifd_compression not in COMPRESSIONS, "multifd compression none, zlib, zstd", "LEG-MFD-036"
    yield postcopy and not s.return_path, "postcopy needs a return path", "LEG-CMD-012"
    yield s.switchover_ack and not s.return_path, "switchover-ack needs a return path", "LEG-RPM-061"
    yield s.postcopy_preempt and not postcopy, "preempt needs postcopy", "LEG-PRE-001"
    yield encoded and multifd, "encoded pages and multifd exclude each other", "LEG-RAM-032"
    yield s.xbzrle and s.postcopy is Postcopy.STARTED, "no xbzrle in postcopy", "LEG-RAM-032"
    yield s.mapped_ram and (multifd or s.return_path or encoded), "mapped-ram goes alone", "LEG-MAP-010"
    yield s.rewritten < 0 or s.file_offset < 0, "counts and offsets are not negative", "LEG-GEN-001"
