"""The CPR state: what a live update hands over before the main stream begins.

Source: migration/cpr.c `cpr_state_save`, hw/vfio/cpr.c, migration/vmstate-types.c `put_fd`.

Rule 1: descriptors do not travel in the bytes. In cpr-transfer a service byte stands
for each, which carries the descriptor beside it (SCM_RIGHTS); the caller gives those
to `receive_data`, and each goes to the next service byte. In cpr-exec the number
itself is written, since the process keeps its descriptors.
Rule 2: the two forms are told apart by the first byte: a descriptor number that
begins with 0x20 would be over 500 million.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar, Final, cast

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import (
    CountedString,
    Field,
    Int8ub,
    Int32sb,
    Int32ub,
    PrefixedString,
    Record,
    attr,
    const,
    wire,
    wire_if,
)
from qmig.errors import LocalProtocolError
from qmig.legacy.receiver import Channel
from qmig.legacy.sections import TrailingBytes
from qmig.legacy.state import StreamState

#: "QCPR"
CPR_MAGIC: Final = 0x51435052
CPR_VERSION: Final = 1
VFIO_DEVICES: Final = "CprState/vfio devices"


class CprMark(enum.IntEnum):
    """Bytes that structure the state."""

    LIST_END = 0x00
    ELEMENT = 0x01
    SUBSECTION = 0x05
    FD_SERVICE = 0x20  # a descriptor is in its ancillary data


_NAME: Final = PrefixedString(Int32ub, limits.CPR_NAME)


def _given(doc: str) -> int | None:
    """A value that the reader adds, None if it has none."""
    field = cast(Field, attr(int, doc=doc))
    field.default = None
    return cast(Any, field)  # type: ignore[no-any-return]


class CprHeader(Record):
    """Magic and version; the body of VMSD `CprState` follows."""

    requirement: ClassVar[str] = "LEG-CPR-001"
    magic = const(Int32ub, CPR_MAGIC, doc='"QCPR"')
    version: int = wire(Int32ub, doc="1")


class _Named(Record):
    """An element whose name is counted with its terminator."""

    def validate(self) -> None:
        name: str = self.name  # type: ignore[attr-defined]
        if not name or name.find("\0") != len(name) - 1:
            raise LocalProtocolError(
                f"name {name!a} does not end with its only NUL", requirement="LEG-CPR-012"
            )


class CprFd(_Named):
    """One descriptor of the list. Exactly one of `service` and `number` is there."""

    requirement: ClassVar[str] = "LEG-CPR-010"
    present = const(Int8ub, int(CprMark.ELEMENT), doc="one more element")
    name: str = wire(_NAME, doc="owner: a RAMBlock idstr, a device path…; with its NUL")
    id: int = wire(Int32sb, doc="tells several descriptors of one owner apart")
    service: int | None = wire_if("service", Int8ub, default=None, doc="0x20, cpr-transfer")
    number: int | None = wire_if("number", Int32sb, default=None, doc="the descriptor, cpr-exec")
    descriptor: int | None = _given("what came beside the service byte")

    def validate(self) -> None:
        super().validate()
        if (self.service is None) == (self.number is None) or self.service not in (None, CprMark.FD_SERVICE):
            raise LocalProtocolError(
                f"service byte {self.service} and number {self.number}", requirement="LEG-CPR-011"
            )


class CprVfioDevice(_Named):
    """One VFIO device with an IOMMUFD backend."""

    requirement: ClassVar[str] = "LEG-CPR-021"
    present = const(Int8ub, int(CprMark.ELEMENT), doc="one more element")
    name: str = wire(_NAME, doc="name of the device, with its NUL")
    devid: int = wire(Int32sb)
    ioas_id: int = wire(Int32ub)
    hwpt_id: int = wire(Int32ub)


class CprListEnd(Record):
    """Ends a list."""

    requirement: ClassVar[str] = "LEG-CPR-013"
    present = const(Int8ub, int(CprMark.LIST_END))


class CprSubsection(Record):
    """Opens the list of VFIO devices (10.1+)."""

    requirement: ClassVar[str] = "LEG-CPR-020"
    section_type = const(Int8ub, int(CprMark.SUBSECTION), doc="QEMU_VM_SUBSECTION")
    name: str = wire(CountedString, doc="CprState/vfio devices")
    version_id: int = wire(Int32ub, doc="1")


class CprReceiver(Channel):
    """Reads a CPR state: the `cpr` channel of cpr-transfer, or the file of cpr-exec."""

    def __init__(self, state: StreamState | None = None, *, offset: int = 0) -> None:
        self.state = state or StreamState()
        self._descriptors: deque[int] = deque()
        feed = Feed(offset)
        super().__init__(feed, self._stream(feed))

    def receive_data(self, data: bytes | bytearray | memoryview, descriptors: Iterable[int] = ()) -> None:
        """Takes the next bytes; `b""` is their end. `descriptors` came beside them, in
        this order; they are only passed on, as `CprFd.descriptor`."""
        self._descriptors.extend(descriptors)
        super().receive_data(data)

    @property
    def surplus(self) -> tuple[int, ...]:
        """Descriptors that no service byte has taken yet. Whoever gave them closes them."""
        return tuple(self._descriptors)

    def _stream(self, feed: Feed) -> Steps[None]:
        header = yield from feed.read(CprHeader)
        if header.version != CPR_VERSION:
            raise feed.error(f"version {header.version}, expected {CPR_VERSION}", "LEG-CPR-002")
        yield header
        yield from self._elements(feed, CprFd)
        while not (yield from feed.at_end()):
            if (yield from feed.need(1))[0] != CprMark.SUBSECTION:
                break
            opening = yield from feed.read(CprSubsection)
            if opening.name != VFIO_DEVICES or opening.version_id != 1:
                raise feed.error(
                    f"unknown subsection {opening.name!a} version {opening.version_id}", "LEG-CPR-022"
                )
            yield opening
            yield from self._elements(feed, CprVfioDevice)
        while not (yield from feed.at_end()):
            start, rest = feed.offset, feed.drain()
            yield TrailingBytes(data=rest).place(start, len(rest))

    def _elements(self, feed: Feed, kind: type[CprFd | CprVfioDevice]) -> Steps[None]:
        count = 0
        while (yield from _more(feed, kind)):
            count += 1
            if count > limits.CPR_ENTRIES:
                raise feed.limit(f"more than {limits.CPR_ENTRIES} elements")
            if kind is CprFd:
                yield (yield from self._fd(feed))
            else:
                yield (yield from feed.read(kind))
        yield (yield from feed.read(CprListEnd))

    def _fd(self, feed: Feed) -> Steps[CprFd]:
        feed.expect("CprFd", CprFd.requirement)
        size = int.from_bytes((yield from feed.need(5))[1:], "big")
        if size > limits.CPR_NAME:
            raise feed.limit(f"a name of {size} bytes")
        form = (yield from feed.need(10 + size))[9 + size]
        if form == CprMark.FD_SERVICE:
            record = yield from feed.read(CprFd, {"service"})
            if self._descriptors:
                values = {**record.values(), "descriptor": self._descriptors.popleft()}
                return CprFd(**values).place(record.offset, record.size)
            return record
        if form not in (0x00, 0xFF):
            raise feed.error(f"service byte {form:#x}, expected {CprMark.FD_SERVICE:#x}", "LEG-CPR-011")
        return (yield from feed.read(CprFd, {"number"}))


def _more(feed: Feed, kind: type[Record]) -> Steps[bool]:
    """Whether another element follows."""
    feed.expect(kind.__name__, kind.requirement)
    mark = (yield from feed.need(1))[0]
    if mark not in (CprMark.LIST_END, CprMark.ELEMENT):
        raise feed.error(f"list mark {mark:#x}, expected 0 or 1", "LEG-CPR-013")
    return bool(mark)
