"""Handlers of s390x guests that are no VMState: storage attributes, storage keys, clock.

Source: hw/s390x/s390-stattrib.c `cmma_save`, `cmma_load`; hw/s390x/s390-skeys.c
`s390_storage_keys_save`; hw/s390x/tod.c `s390_tod_save`.

Attributes are a live handler. Keys and clock are bodies of FULL sections, which say
themselves where they end (`qmig.legacy.oldstyle`).
Words of 8 bytes hold a page address and, in the low 12 bits, exactly one flag.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final, TypeVar

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import GreedyBytes, Int8ub, Int64ub, Raw, Record, const, wire, wire_if
from qmig.errors import LocalProtocolError
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState

#: s390x has one page size
_FLAGS: Final = 4096 - 1


class StorageAttributeFlag(enum.IntEnum):
    """`STATTR_FLAG_*`."""

    EOS = 0x01
    MORE = 0x02
    ERROR = 0x04
    DONE = 0x08


class StorageKeyFlag(enum.IntEnum):
    """`S390_SKEYS_SAVE_FLAG_*`."""

    EOS = 0x01
    SKEYS = 0x02
    ERROR = 0x04


class TodFlag(enum.IntEnum):
    """`S390_TOD_CLOCK_VALUE_*`."""

    MISSING = 0x00
    PRESENT = 0x01


class _PageBytes(Record):
    """One byte for each of `count` pages."""

    word: int = wire(Int64ub, doc="guest address of the first page | flag 0x02")
    count: int = wire(Int64ub, doc="pages")
    data: Raw = wire(GreedyBytes, doc="1 byte per page")

    @property
    def address(self) -> int:
        """Guest-physical address of the first page."""
        return self.word & ~_FLAGS

    def validate(self) -> None:
        if len(self.data) != self.count:
            raise LocalProtocolError(
                f"{len(self.data)} bytes for {self.count} pages", requirement=self.requirement
            )


class StorageAttributes(_PageBytes):
    """Attributes of pages (CMMA)."""

    requirement: ClassVar[str] = "LEG-ZAR-010"


class StorageAttributesDone(Record):
    """All attributes were sent; only EOS follows."""

    requirement: ClassVar[str] = "LEG-ZAR-011"
    word = const(Int64ub, int(StorageAttributeFlag.DONE))


class StorageAttributesEos(Record):
    """Ends the data of one section."""

    requirement: ClassVar[str] = "LEG-ZAR-012"
    word = const(Int64ub, int(StorageAttributeFlag.EOS))


class StorageKeys(_PageBytes):
    """Storage keys of pages."""

    requirement: ClassVar[str] = "LEG-ZAR-020"


class StorageKeysEnd(Record):
    """Ends the keys: EOS, or ERROR where the source could not read them."""

    requirement: ClassVar[str] = "LEG-ZAR-021"
    word: int = wire(Int64ub, doc="0x01 EOS, 0x04 ERROR (the keys before it are zeros)")


class TodClock(Record):
    """The time-of-day clock; `high` and `low` only when it is present."""

    requirement: ClassVar[str] = "LEG-ZAR-030"
    flag: int = wire(Int8ub, doc="0x00 missing, 0x01 present")
    high: int | None = wire_if("present", Int8ub, default=None, doc="epoch extension")
    low: int | None = wire_if("present", Int64ub, default=None, doc="the clock's 64 bits")

    def validate(self) -> None:
        if not (self.flag == TodFlag.MISSING) == (self.high is None) == (self.low is None):
            raise LocalProtocolError(
                f"flag {self.flag:#x} and the presence of the value do not agree", requirement="LEG-ZAR-031"
            )


P = TypeVar("P", bound=_PageBytes)


def _page_bytes(feed: Feed, kind: type[P], limit: int) -> Steps[P]:
    """One record of bytes per page; its word is at hand."""
    feed.expect(kind.__name__, kind.requirement)
    start = feed.offset
    count = int.from_bytes((yield from feed.need(16))[8:], "big")
    if count > limit:
        raise feed.limit(f"{count} pages in one record, over the limit of {limit}")
    view = yield from feed.take(16 + count)
    record, _ = kind.decode(view)
    return record.place(start, len(view))


class StorageAttributesReader:
    """Data of the `s390-storage_attributes` handler."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads records up to EOS; a section may also end behind DONE."""
        feed = self.feed
        done = False
        while True:
            feed.expect("storage attributes", "LEG-ZAR-001")
            if done and (yield from feed.need(1))[0] == SectionType.SECTION_FOOTER:
                return
            word = int.from_bytes((yield from feed.need(8)), "big")
            flag = word & _FLAGS
            if flag == StorageAttributeFlag.MORE:
                yield (yield from _page_bytes(feed, StorageAttributes, limits.STORAGE_ATTRIBUTES))
            elif word == StorageAttributeFlag.DONE:
                yield (yield from feed.read(StorageAttributesDone))
                done = True
            elif word == StorageAttributeFlag.EOS:
                yield (yield from feed.read(StorageAttributesEos))
                return
            elif flag == StorageAttributeFlag.ERROR:
                raise feed.error("the source says that its data are incomplete", "LEG-ZAR-013")
            else:
                raise feed.error(f"unexpected storage attribute flags {flag:#x}", "LEG-ZAR-002")


def storage_keys(feed: Feed) -> Steps[None]:
    """Reads the body of `s390-skeys` up to its end mark."""
    while True:
        feed.expect("storage keys", "LEG-ZAR-003")
        flag = int.from_bytes((yield from feed.need(8)), "big") & _FLAGS
        if flag == StorageKeyFlag.SKEYS:
            yield (yield from _page_bytes(feed, StorageKeys, limits.STORAGE_KEYS))
        elif flag in (StorageKeyFlag.EOS, StorageKeyFlag.ERROR):
            yield (yield from feed.read(StorageKeysEnd))
            return
        else:
            raise feed.error(f"unexpected storage key flags {flag:#x}")


def tod_clock(feed: Feed) -> Steps[None]:
    """Reads the body of `todclock`."""
    feed.expect("TodClock", TodClock.requirement)
    flag = (yield from feed.need(1))[0]
    yield (yield from feed.read(TodClock, () if flag == TodFlag.MISSING else {"present"}))
