"""Sections of passed-through devices (`vfio`, `<qdev path>/vfio`): tags of 8 bytes.

Source: hw/vfio/migration.c `vfio_save_setup`, `vfio_save_block`, `vfio_load_state`.

Rule 1: the loader goes by tags alone; a section ends where it returns.
Rule 2: device data have a length and no bound: they are handed out in pieces, so a
length field costs nothing.
Rule 3: the configuration (a VMState) has no length. In the FULL section of 6.0+ the
vmdesc gives its end. In the END section of 5.2 its end is inferred: the first
END_OF_STATE that a tag or the section's end follows, and the record says so.
"""

from __future__ import annotations

import enum
import re
from typing import ClassVar, Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import GreedyBytes, Int64ub, Raw, Record, attr, const, wire
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState


class VfioTag(enum.IntEnum):
    """`VFIO_MIG_FLAG_*`."""

    END_OF_STATE = 0xFFFFFFFFEF100001
    DEV_CONFIG_STATE = 0xFFFFFFFFEF100002
    DEV_SETUP_STATE = 0xFFFFFFFFEF100003
    DEV_DATA_STATE = 0xFFFFFFFFEF100004
    DEV_INIT_DATA_SENT = 0xFFFFFFFFEF100005
    DEV_CONFIG_LOAD_READY = 0xFFFFFFFFEF100006


class VfioEndOfState(Record):
    """Ends the section, or the state begun by the tag before."""

    requirement: ClassVar[str] = "LEG-VFI-010"
    tag = const(Int64ub, 0xFFFFFFFFEF100001)


class VfioSetupState(Record):
    """The device is in the state that precedes its data; END_OF_STATE follows at once."""

    requirement: ClassVar[str] = "LEG-VFI-011"
    tag = const(Int64ub, 0xFFFFFFFFEF100003)


class VfioDataState(Record):
    """Device data follow, as `VfioData`."""

    requirement: ClassVar[str] = "LEG-VFI-012"
    tag = const(Int64ub, 0xFFFFFFFFEF100004)
    length: int = wire(Int64ub, doc="bytes of data")


class VfioData(Record):
    """A piece of device data, opaque to QEMU."""

    requirement: ClassVar[str] = "LEG-VFI-012"
    data: Raw = wire(GreedyBytes)


class VfioInitDataSent(Record):
    """Ends a PART: the device's initial data were all sent (8.1+)."""

    requirement: ClassVar[str] = "LEG-VFI-013"
    tag = const(Int64ub, 0xFFFFFFFFEF100005)


class VfioConfigLoadReady(Record):
    """Ends a FULL: the configuration, sent by multifd, may be loaded now (10.1+)."""

    requirement: ClassVar[str] = "LEG-VFI-014"
    tag = const(Int64ub, 0xFFFFFFFFEF100006)


class VfioConfigState(Record):
    """The device's configuration and the END_OF_STATE behind it."""

    requirement: ClassVar[str] = "LEG-VFI-015"
    boundary: str = attr(str, doc="how its end was found: given (by the body's length) or inferred")
    tag = const(Int64ub, 0xFFFFFFFFEF100002)
    config: Raw = wire(GreedyBytes, doc="VMState, without length: `VFIOPCIDevice` for PCI devices")


_END: Final = re.compile(re.escape(int(VfioTag.END_OF_STATE).to_bytes(8, "big")))
#: first byte of what may stand behind END_OF_STATE: a tag, a footer, or the next item
_FOLLOWERS: Final = frozenset(
    {
        0xFF,
        SectionType.SECTION_FOOTER,
        SectionType.EOF,
        SectionType.SECTION_START,
        SectionType.SECTION_PART,
        SectionType.SECTION_END,
        SectionType.SECTION_FULL,
        SectionType.COMMAND,
    }
)


class VfioReader:
    """Data of a VFIO device's handler."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads tags up to the one behind which QEMU's loader returns."""
        feed = self.feed
        ended = False
        while not ended:
            feed.expect("VFIO tag", "LEG-VFI-001")
            tag = int.from_bytes((yield from feed.need(8)), "big")
            if tag == VfioTag.DEV_DATA_STATE:
                yield from self._data()
            elif tag == VfioTag.DEV_CONFIG_STATE:
                ended = yield from self._config()
            elif tag == VfioTag.DEV_SETUP_STATE:
                yield (yield from feed.read(VfioSetupState))
                yield (yield from feed.read(VfioEndOfState))
                ended = True
            elif tag in _LAST:
                yield (yield from feed.read(_LAST[tag]))
                ended = True
            else:
                raise feed.error(f"unknown tag {tag:#x}", "LEG-VFI-002")

    def _data(self) -> Steps[None]:
        header = yield from self.feed.read(VfioDataState)
        yield header
        left = header.length
        self.feed.expect("VfioData", VfioData.requirement)
        while left:
            start = self.feed.offset
            size = min(left, limits.VFIO_PIECE)
            data = yield from self.feed.take(size)
            yield VfioData(data=data).place(start, size)
            left -= size

    def _config(self) -> Steps[bool]:
        """Reads a configuration whose end is inferred; whether the section ends behind it."""
        feed = self.feed
        feed.expect("VfioConfigState", VfioConfigState.requirement)
        start = feed.offset
        at = 8
        while True:
            window = yield from feed.need(at + 9)
            found = _END.search(feed.window(), at)
            if found is None:
                at = max(at, len(feed.window()) - 8)
            elif feed.window()[found.end() : found.end() + 1]:
                at = found.start() + 1
                if feed.window()[found.end()] in _FOLLOWERS:
                    break
            else:
                at = found.start()
            if at > limits.VFIO_CONFIG:
                raise feed.limit(f"no end of the configuration within {limits.VFIO_CONFIG} bytes")
        window = yield from feed.need(found.end() + 1)
        more = window[found.end()] == 0xFF
        view = yield from feed.take(found.end() - 8)
        record, _ = VfioConfigState.decode(view, boundary="inferred")
        yield record.place(start, len(view))
        yield (yield from feed.read(VfioEndOfState))
        return not more


_LAST: Final[dict[int, type[Record]]] = {
    VfioTag.END_OF_STATE: VfioEndOfState,
    VfioTag.DEV_INIT_DATA_SENT: VfioInitDataSent,
    VfioTag.DEV_CONFIG_LOAD_READY: VfioConfigLoadReady,
}


def full_body(feed: Feed) -> Steps[None]:
    """Reads the body of a VFIO device's FULL section, whose end is the feed's end.

    It is END_OF_STATE or CONFIG_LOAD_READY alone when multifd carries the
    configuration, else CONFIG_STATE, the configuration, END_OF_STATE."""
    feed.expect("VFIO tag", "LEG-VFI-016")
    while not feed.eof:
        yield None
    view = yield from feed.need(8)
    tag = int.from_bytes(view, "big")
    if tag in _LAST:
        yield (yield from feed.read(_LAST[tag]))
    elif tag == VfioTag.DEV_CONFIG_STATE:
        start = feed.offset
        yield from feed.need(16)
        view = yield from feed.take(feed.available - 8)
        record, _ = VfioConfigState.decode(view, boundary="given")
        yield record.place(start, len(view))
        yield (yield from feed.read(VfioEndOfState))
    else:
        raise feed.error(f"tag {tag:#x} in a FULL section", "LEG-VFI-016")
