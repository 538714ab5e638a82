"""Internal snapshots of a qcow2 image: where the state of the machine lies.

Source: docs/interop/qcow2.txt (7.2 to 11.1), block/qcow2-snapshot.c for bounds.

Everything here is a generator of `Read` requests: whoever drives it sends the bytes of
each. `run` does so with a function that reads.

Rule 1: no number of the image is trusted: tables are bounded by `qmig.limits`, and what
they point at together is at most the file (a cluster belongs to one place), so neither
memory nor time exceeds the file.
Rule 2: a snapshot's L1 table covers the disk at that time, then, from the next whole L1
entry on, the machine's state.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import ClassVar, Final, NamedTuple, TypeVar

from qmig import limits
from qmig._wire import GreedyBytes, Int16ub, Int32ub, Int64ub, Raw, Record, const, wire
from qmig.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedStream,
    UnsupportedFeature,
    localised,
)

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Read(NamedTuple):
    """A request: `length` bytes at `offset` of the image."""

    offset: int
    length: int


class Extent(NamedTuple):
    """A piece of the state: `length` bytes of it, which lie at `offset` of the image.

    `kind` is "data"; or "zero", with nothing in the image; or "compressed", where
    `packed` bytes at `offset` expand to one cluster, which begins with those of the state."""

    kind: str
    length: int
    offset: int = 0
    packed: int = 0


#: What the functions here are: they yield requests, and return a result.
Reads = Generator[Read, Raw, T]

_INCOMPATIBLE_KNOWN: Final = 0x1F
_EXTERNAL_DATA: Final = 0x04
_COMPRESSION_TYPE: Final = 0x08
_EXTENDED_L2: Final = 0x10
_OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62
_SUBCLUSTERS: Final = 32
#: entries of an L1 table read at a time
_L1_PIECE: Final = 8192
#: highest offset a file can have
_LAST: Final = (1 << 63) - 1


class Qcow2Header(Record):
    """The fields that both versions have."""

    requirement: ClassVar[str] = "LEG-QCO-001"
    magic = const(Int32ub, 0x514649FB, doc='"QFI" 0xfb')
    version: int = wire(Int32ub, doc="2 or 3")
    backing_file_offset: int = wire(Int64ub)
    backing_file_size: int = wire(Int32ub)
    cluster_bits: int = wire(Int32ub, doc="log2 of the cluster size")
    disk_size: int = wire(Int64ub, doc="bytes of the virtual disk")
    crypt_method: int = wire(Int32ub, doc="0 none, 1 AES, 2 LUKS")
    l1_size: int = wire(Int32ub, doc="entries")
    l1_table_offset: int = wire(Int64ub)
    refcount_table_offset: int = wire(Int64ub)
    refcount_table_clusters: int = wire(Int32ub)
    nb_snapshots: int = wire(Int32ub)
    snapshots_offset: int = wire(Int64ub)


class Qcow2Features(Record):
    """What version 3 adds directly behind."""

    requirement: ClassVar[str] = "LEG-QCO-002"
    incompatible: int = wire(
        Int64ub, doc="0 dirty, 1 corrupt, 2 external data, 3 compression type, 4 extended L2"
    )
    compatible: int = wire(Int64ub)
    autoclear: int = wire(Int64ub)
    refcount_order: int = wire(Int32ub)
    header_length: int = wire(Int32ub, doc="104 or more; byte 104 of the header is the compression type")


class Qcow2SnapshotEntry(Record):
    """Fixed part of an entry of the snapshot table."""

    requirement: ClassVar[str] = "LEG-QCO-010"
    l1_table_offset: int = wire(Int64ub)
    l1_size: int = wire(Int32ub, doc="entries")
    id_size: int = wire(Int16ub)
    name_size: int = wire(Int16ub)
    date_sec: int = wire(Int32ub)
    date_nsec: int = wire(Int32ub)
    vm_clock_nsec: int = wire(Int64ub)
    vm_state_size: int = wire(Int32ub, doc="bytes; not used where the extra data have a longer one")
    extra_data_size: int = wire(Int32ub)


class Qcow2SnapshotExtra(Record):
    """The extra data that are defined; each is there if the size says so."""

    requirement: ClassVar[str] = "LEG-QCO-011"
    vm_state_size_large: int = wire(Int64ub, doc="bytes of the state, in place of the short field")
    disk_size: int = wire(Int64ub, doc="bytes of the virtual disk at that time")
    more: Raw = wire(GreedyBytes, doc="of later versions: icount")


class Image(NamedTuple):
    """What the header says, checked. Sizes in bytes; `file_size` is the file's."""

    header: Qcow2Header
    file_size: int
    cluster_size: int
    #: bytes of one entry of an L2 table: 8, extended 16
    l2_entry: int
    #: 0 zlib, 1 zstd
    compression: int

    @property
    def l2_entries(self) -> int:
        return self.cluster_size // self.l2_entry

    @property
    def l1_span(self) -> int:
        """Bytes that one entry of an L1 table stands for."""
        return self.l2_entries * self.cluster_size


class Snapshot(NamedTuple):
    """One internal snapshot."""

    id: str
    name: str
    #: bytes; 0: a snapshot of the disk only
    vm_state_size: int
    #: of the virtual disk, bytes
    disk_size: int
    date_sec: int
    vm_clock_nsec: int
    l1_table_offset: int
    l1_size: int


def run(steps: Reads[T], read: Callable[[int, int], Raw]) -> T:
    """Drives a generator with `read(offset, length)`, which may return less at the file's end."""
    try:
        request = next(steps)
        while True:
            request = steps.send(read(request.offset, request.length))
    except StopIteration as end:
        result: T = end.value
        return result


def open_image(file_size: int) -> Reads[Image]:
    """Reads and checks the header. `file_size` is the length of the file in bytes."""
    header = yield from _record(Qcow2Header, 0)
    if header.version not in (2, 3):
        raise _bad(f"version {header.version}", "LEG-QCO-003", 4)
    if not 9 <= header.cluster_bits <= 21:
        raise _bad(f"cluster_bits {header.cluster_bits}, 9 to 21 are possible", "LEG-QCO-003", 20)
    incompatible = compression = 0
    if header.version == 3:
        features = yield from _record(Qcow2Features, header.size)
        incompatible = features.incompatible
        if incompatible & _COMPRESSION_TYPE:
            view = yield from _read(104, 1, "Qcow2Header", "LEG-QCO-002")
            compression = view[0]
    unknown = incompatible & ~_INCOMPATIBLE_KNOWN
    if unknown or compression > 1:
        raise _unsupported(f"incompatible features {unknown:#x}, compression type {compression}", 72)
    if incompatible & _EXTERNAL_DATA:
        raise _unsupported("data in another file: such an image has no internal snapshots", 72)
    if header.crypt_method:
        raise _unsupported(f"encrypted (method {header.crypt_method}): the state is too", 32)
    return Image(
        header=header,
        file_size=file_size,
        cluster_size=1 << header.cluster_bits,
        l2_entry=16 if incompatible & _EXTENDED_L2 else 8,
        compression=compression,
    )


def read_snapshots(image: Image) -> Reads[list[Snapshot]]:
    """Reads the snapshot table."""
    header = image.header
    if header.nb_snapshots > limits.QCOW2_SNAPSHOTS:
        raise _limit(f"{header.nb_snapshots} snapshots", 60)
    found = []
    at = header.snapshots_offset
    end = at + limits.QCOW2_SNAPSHOT_TABLE
    for _ in range(header.nb_snapshots):
        snapshot, at = yield from _snapshot(image, at)
        found.append(snapshot)
        if at > end:
            raise _limit(f"snapshot table over {limits.QCOW2_SNAPSHOT_TABLE} bytes", header.snapshots_offset)
    return found


def _snapshot(image: Image, at: int) -> Reads[tuple[Snapshot, int]]:
    entry = yield from _record(Qcow2SnapshotEntry, at)
    if entry.extra_data_size > limits.QCOW2_SNAPSHOT_EXTRA:
        raise _limit(f"{entry.extra_data_size} bytes of extra data", at + 36)
    tail = at + entry.size
    size = entry.extra_data_size + entry.id_size + entry.name_size
    data = yield from _read(tail, size, "Qcow2SnapshotEntry", Qcow2SnapshotEntry.requirement)
    extra, names = data[: entry.extra_data_size], data[entry.extra_data_size :]
    state, disk = entry.vm_state_size, image.header.disk_size
    if len(extra) >= 8:
        state = int.from_bytes(extra[:8], "big")
    if len(extra) >= 16:
        disk = int.from_bytes(extra[8:16], "big")
    snapshot = Snapshot(
        id=_text(names[: entry.id_size]),
        name=_text(names[entry.id_size :]),
        vm_state_size=state,
        disk_size=disk,
        date_sec=entry.date_sec,
        vm_clock_nsec=entry.vm_clock_nsec,
        l1_table_offset=entry.l1_table_offset,
        l1_size=entry.l1_size,
    )
    return snapshot, (tail + size + 7) & ~7


def find_snapshot(snapshots: Iterable[Snapshot], which: str) -> Snapshot | None:
    """The snapshot of this id, else of this name (as QEMU's `-loadvm` looks for it)."""
    known = list(snapshots)
    by_id = next((snapshot for snapshot in known if snapshot.id == which), None)
    return by_id or next((snapshot for snapshot in known if snapshot.name == which), None)


def vmstate_extents(image: Image, snapshot: Snapshot) -> Generator[Read | Extent, Raw | None, None]:
    """Where the snapshot's state lies, in order: yields requests, and `Extent`s between them.

    Answer each `Read` by sending its bytes, each `Extent` by sending None. Neighbours
    are joined, as far as one L2 table goes."""
    first = -(-snapshot.disk_size // image.l1_span)
    tables = -(-snapshot.vm_state_size // image.l1_span)
    if snapshot.l1_size * 8 > limits.QCOW2_L1:
        raise _limit(f"L1 table of {snapshot.l1_size} entries", snapshot.l1_table_offset)
    if first + tables > snapshot.l1_size:
        raise _bad(
            f"state of {snapshot.vm_state_size} bytes behind a disk of {snapshot.disk_size}, "
            f"L1 table of {snapshot.l1_size} entries",
            "LEG-QCO-012",
            snapshot.l1_table_offset,
        )
    left = snapshot.vm_state_size
    budget = image.file_size  # bytes that tables and clusters may take together
    holes = limits.QCOW2_HOLES
    for at in range(first, first + tables, _L1_PIECE):
        count = min(_L1_PIECE, first + tables - at)
        view = yield from _read(snapshot.l1_table_offset + 8 * at, 8 * count, "L1 table", "LEG-QCO-020")
        for (entry,) in struct.iter_unpack(">Q", bytes(view)):
            offset = entry & _OFFSET
            size = min(left, image.l1_span)
            left -= size
            found = [Extent("zero", size)]
            if offset:
                table = yield from _read(offset, image.cluster_size, "L2 table", "LEG-QCO-021")
                budget -= image.cluster_size
                found = _l2_extents(image, bytes(table), size)
            for extent in found:
                budget -= extent.length if extent.kind == "data" else extent.packed
                holes -= extent.length if extent.kind == "zero" else 0
                if budget < 0:
                    raise _bad("tables and clusters together exceed the file", "LEG-QCO-022", offset)
                if holes < 0:
                    raise _limit(f"over {limits.QCOW2_HOLES} unallocated bytes in a state", offset)
                yield extent


def _l2_extents(image: Image, table: bytes, size: int) -> list[Extent]:
    """Extents of one L2 table, of which `size` bytes are wanted."""
    found: list[Extent] = []
    for index in range(-(-size // image.cluster_size)):
        at = index * image.l2_entry
        entry = int.from_bytes(table[at : at + 8], "big")
        length = min(image.cluster_size, size - index * image.cluster_size)
        if entry & _COMPRESSED:
            bits = 62 - (image.header.cluster_bits - 8)
            offset = entry & ((1 << bits) - 1)
            sectors = ((entry & (_COMPRESSED - 1)) >> bits) + 1
            found.append(Extent("compressed", length, offset, sectors * 512 - offset % 512))
        elif image.l2_entry == 16:
            bitmap = int.from_bytes(table[at + 8 : at + 16], "big")
            _subclusters(image, entry & _OFFSET, bitmap, length, found)
        else:
            offset = 0 if entry & 1 and image.header.version == 3 else entry & _OFFSET
            _add(found, offset, length)
    return found


def _subclusters(image: Image, offset: int, bitmap: int, length: int, found: list[Extent]) -> None:
    """Extents of a cluster with extended L2 entry: bit n, and bit 32 + n where it reads as zeros."""
    part = image.cluster_size // _SUBCLUSTERS
    for number in range(-(-length // part)):
        present = bitmap >> number & 1 and not bitmap >> (number + _SUBCLUSTERS) & 1
        _add(found, offset + number * part if present else 0, min(part, length - number * part))


def _add(found: list[Extent], offset: int, length: int) -> None:
    """Adds data at an offset (0: zeros), joined with what it continues."""
    kind = "data" if offset else "zero"
    last = found[-1] if found else None
    if last is not None and last.kind == kind and (not offset or last.offset + last.length == offset):
        found[-1] = last._replace(length=last.length + length)
    else:
        found.append(Extent(kind, length, offset))


def vmstate_chunks(
    image: Image, snapshot: Snapshot, read: Callable[[int, int], Raw], *, piece: int = limits.MiB
) -> Iterator[Raw]:
    """The snapshot's state as a stream of bytes, in pieces of at most `piece` bytes (or a cluster)."""
    steps = vmstate_extents(image, snapshot)
    item = next(steps, None)
    while item is not None:
        answer: Raw | None = None
        if isinstance(item, Read):
            answer = read(item.offset, item.length)
        elif item.kind == "compressed":
            yield expand(image, read(item.offset, item.packed), item)
        else:
            for at in range(0, item.length, piece):
                size = min(piece, item.length - at)
                yield bytes(size) if item.kind == "zero" else _whole(read, item.offset + at, size)
        try:
            item = steps.send(answer)
        except StopIteration:
            return


def _whole(read: Callable[[int, int], Raw], offset: int, size: int) -> Raw:
    data = read(offset, size)
    if len(data) < size:
        raise _truncated(offset, size, len(data), "cluster", "LEG-QCO-021")
    return data


def expand(image: Image, data: Raw, extent: Extent) -> bytes:
    """The wanted bytes of a compressed cluster. Raises `RemoteProtocolError` if it is damaged."""
    if image.compression:
        import zstandard

        error: type[Exception] = zstandard.ZstdError
        reader = zstandard.ZstdDecompressor(max_window_size=limits.INFLATE_WINDOW).stream_reader(bytes(data))
        inflate = reader.read
    else:
        import zlib

        error = zlib.error
        inflate = functools.partial(zlib.decompressobj(wbits=-12).decompress, data)
    try:
        output: bytes = inflate(image.cluster_size)
    except error as problem:
        raise _bad(f"compressed cluster: {problem}", "LEG-QCO-023", extent.offset) from None
    if len(output) < image.cluster_size:
        raise _bad(f"compressed cluster expands to {len(output)} bytes", "LEG-QCO-023", extent.offset)
    return output[: extent.length]


def _record(kind: type[R], offset: int) -> Reads[R]:
    view = yield from _read(offset, kind.minimum(), kind.__name__, kind.requirement)
    try:
        record, size = kind.decode(memoryview(view))
    except LocalProtocolError as error:
        raise localised(error, offset=offset, record=kind.__name__) from None
    return record.place(offset, size)


def _read(offset: int, length: int, record: str, requirement: str) -> Reads[Raw]:
    """Exactly these bytes."""
    if offset + length > _LAST:
        raise _bad(f"{length} bytes at {offset:#x}: beyond any file", requirement, offset)
    data = yield Read(offset, length)
    if len(data) < length:
        raise _truncated(offset, length, len(data), record, requirement)
    return data[:length]


def _text(raw: Raw) -> str:
    return bytes(raw).decode("utf-8", "surrogateescape")


def _bad(message: str, requirement: str, offset: int) -> RemoteProtocolError:
    return RemoteProtocolError(message, requirement=requirement, offset=offset, record="qcow2")


def _limit(message: str, offset: int) -> LimitExceeded:
    return LimitExceeded(message, requirement="LEG-QCO-013", offset=offset, record="qcow2")


def _unsupported(message: str, offset: int) -> UnsupportedFeature:
    return UnsupportedFeature(message, requirement="LEG-QCO-004", offset=offset, record="qcow2")


def _truncated(offset: int, length: int, have: int, record: str, requirement: str) -> TruncatedStream:
    return TruncatedStream(
        f"input ends at {offset + have:#x}, {length - have} bytes short",
        requirement=requirement,
        offset=offset,
        record=record,
    )
