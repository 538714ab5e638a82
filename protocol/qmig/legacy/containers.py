"""The head of a libvirt save file, behind which a migration stream stands.

Source: libvirt src/qemu/qemu_saveimage.h and qemu_saveimage.c (9.0 to 11.x).

Rule 1: libvirt writes its header in the host's byte order. As libvirt itself, a reader
takes it as little-endian, and as big-endian if the version is then impossible.
Rule 2: the migration stream begins right behind header and data, at
`LibvirtSaveData.payload`, in every format; in format `sparse` the offsets inside the
mapped-ram stream are those of the file, so its reader is told where it stands.
Rule 3: what the algorithms yield is handed out in bounded pieces (`qmig.legacy.unpack`).
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import Bytes, GreedyBytes, Int32ub, Int32ul, Raw, Record, wire
from qmig.errors import LocalProtocolError, UnsupportedFeature
from qmig.legacy.receiver import Channel

LIBVIRT_MAGIC: Final = b"LibvirtQemudSave"
#: a save that was not finished
LIBVIRT_PARTIAL: Final = b"LibvirtQemudPart"
LIBVIRT_VERSION: Final = 2


class LibvirtFormat(enum.IntEnum):
    """`virQEMUSaveFormat`: what the payload is packed with. 1 to 5 need header version 2."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6


class _LibvirtHeader(Record):
    """Checks that both byte orders share."""

    def validate(self) -> None:
        magic: bytes = self.magic  # type: ignore[attr-defined]
        if magic not in (LIBVIRT_MAGIC, LIBVIRT_PARTIAL):
            raise LocalProtocolError(f"magic {magic!a}", requirement="LEG-LBV-001")


class LibvirtSaveHeader(_LibvirtHeader):
    """Header of a libvirt save file, written by a little-endian host."""

    requirement: ClassVar[str] = "LEG-LBV-001"
    magic: bytes = wire(Bytes(16), doc="LibvirtQemudSave; LibvirtQemudPart while it is being written")
    version: int = wire(Int32ul, doc="2; 1 has no format")
    data_len: int = wire(Int32ul, doc="bytes between this header and the stream")
    was_running: int = wire(Int32ul, doc="1: the guest ran")
    format: int = wire(Int32ul, doc="`LibvirtFormat`")
    cookie_offset: int = wire(Int32ul, doc="where the cookie begins in the data; 0: none")
    unused: bytes = wire(Bytes(56))


class LibvirtSaveHeaderBig(_LibvirtHeader):
    """Header of a libvirt save file, written by a big-endian host."""

    requirement: ClassVar[str] = "LEG-LBV-002"
    magic: bytes = wire(Bytes(16), doc="LibvirtQemudSave; LibvirtQemudPart while it is being written")
    version: int = wire(Int32ub, doc="2; 1 has no format")
    data_len: int = wire(Int32ub, doc="bytes between this header and the stream")
    was_running: int = wire(Int32ub, doc="1: the guest ran")
    format: int = wire(Int32ub, doc="`LibvirtFormat`")
    cookie_offset: int = wire(Int32ub, doc="where the cookie begins in the data; 0: none")
    unused: bytes = wire(Bytes(56))


class LibvirtSaveData(Record):
    """Domain XML, cookie and padding between the header and the stream."""

    requirement: ClassVar[str] = "LEG-LBV-010"
    data: Raw = wire(GreedyBytes, doc="XML and NUL; cookie and NUL; zeros")

    @property
    def payload(self) -> int:
        """Absolute offset of the stream, packed or not."""
        return self.offset + self.size


class LibvirtSave:
    """What the head of a libvirt save file says."""

    def __init__(self, header: LibvirtSaveHeader | LibvirtSaveHeaderBig, data: LibvirtSaveData) -> None:
        self.header = header
        split = header.cookie_offset or header.data_len
        content = bytes(data.data)
        #: domain XML and save cookie (XML too), without their terminators; None where absent
        self.xml = content[:split].partition(b"\0")[0]
        self.cookie = content[split:].partition(b"\0")[0] if header.cookie_offset else None
        #: absolute offset of the payload
        self.payload = data.payload
        #: `LibvirtFormat` of the payload; version 1 knows only RAW
        self.format = LibvirtFormat(header.format if header.version >= LIBVIRT_VERSION else 0)

    @property
    def complete(self) -> bool:
        """Whether libvirt finished the file."""
        return self.header.magic == LIBVIRT_MAGIC


class LibvirtSaveReceiver(Channel):
    """Reads the head of a libvirt save file; when it is CLOSED, `save` is set and `rest()`
    gives the bytes already received of the payload."""

    def __init__(self, *, offset: int = 0) -> None:
        self.save: LibvirtSave | None = None
        self._input = Feed(offset)
        super().__init__(self._input, self._head(self._input))

    def rest(self) -> memoryview:
        """Received bytes behind the head (only when it is whole)."""
        return self._input.drain() if self.save is not None else memoryview(b"")

    def _head(self, feed: Feed) -> Steps[None]:
        feed.expect("LibvirtSaveHeader", LibvirtSaveHeader.requirement)
        view = yield from feed.need(20)
        little = int.from_bytes(view[16:20], "little") <= LIBVIRT_VERSION
        header: LibvirtSaveHeader | LibvirtSaveHeaderBig
        if little:
            header = yield from feed.read(LibvirtSaveHeader)
        else:
            header = yield from feed.read(LibvirtSaveHeaderBig)
        if not 1 <= header.version <= LIBVIRT_VERSION:
            raise feed.error(f"version {header.version}, expected 1 or {LIBVIRT_VERSION}", "LEG-LBV-003")
        if header.version >= LIBVIRT_VERSION and header.format > max(LibvirtFormat):
            raise UnsupportedFeature(
                f"save format {header.format}",
                requirement="LEG-LBV-004",
                offset=header.offset,
                record="LibvirtSaveHeader",
            )
        if header.data_len > limits.LIBVIRT_DATA:
            raise feed.limit(f"{header.data_len} bytes of XML")
        if not header.data_len or header.cookie_offset > header.data_len:
            raise feed.error(
                f"data_len {header.data_len}, cookie_offset {header.cookie_offset}", "LEG-LBV-005"
            )
        yield header
        feed.expect("LibvirtSaveData", LibvirtSaveData.requirement)
        start = feed.offset
        data = LibvirtSaveData(data=(yield from feed.take(header.data_len))).place(start, header.data_len)
        self.save = LibvirtSave(header, data)
        yield data
