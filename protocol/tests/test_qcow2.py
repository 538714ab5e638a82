"""qcow2: real and made-up images, every kind of cluster, and numbers that lie."""

import contextlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy import qcow2
from qmig.legacy.qcow2 import Extent, Image, Qcow2Features, Qcow2Header, Read, Snapshot
from qmig.testing import load_vectors
from qmig.testing.streams import read as read_stream

BITS = 14
CLUSTER = 1 << BITS
STATE = bytes(range(1, 252)) * 200  # 50200 bytes: four clusters, the last one in part


def part(number: int) -> bytes:
    return STATE[number * CLUSTER : (number + 1) * CLUSTER].ljust(CLUSTER, b"\0")


class Builder:
    """An image with one snapshot: cluster 0 header, 1 snapshots, 2 L1 table, 3 L2 table, then data."""

    def __init__(self, version: int = 3, incompatible: int = 0, compression: int = 0) -> None:
        self.version, self.incompatible, self.compression = version, incompatible, compression
        self.clusters = [bytearray(CLUSTER) for _ in range(4)]
        self.entry = 16 if incompatible & 0x10 else 8
        self.span = CLUSTER // self.entry * CLUSTER
        self.header: dict[str, Any] = {
            "version": version, "backing_file_offset": 0, "backing_file_size": 0, "cluster_bits": BITS,
            "disk_size": 3 * self.span - 1, "crypt_method": 0, "l1_size": 0, "l1_table_offset": 0,
            "refcount_table_offset": 0, "refcount_table_clusters": 0, "nb_snapshots": 1,
            "snapshots_offset": CLUSTER,
        }  # fmt: skip
        self.l1_size = 4
        self.state_size = len(STATE)
        self.extra = b""
        self.l2: list[bytes] = []

    def cluster(self, data: bytes) -> int:
        self.clusters.append(bytearray(data.ljust(CLUSTER, b"\0")))
        return (len(self.clusters) - 1) * CLUSTER

    def add(self, entry: int, bitmap: int = 0) -> None:
        self.l2.append(struct.pack(">QQ", entry, bitmap)[: self.entry])

    def add_compressed(self, packed: bytes, shift: int = 0) -> None:
        offset = self.cluster(b"\xee" * shift + packed) + shift
        sectors = (shift % 512 + len(packed) - 1) // 512
        self.add(1 << 62 | sectors << (62 - (BITS - 8)) | offset)

    def build(self) -> bytes:
        header = Qcow2Header(**self.header).encode()
        if self.version == 3:
            features = Qcow2Features(
                incompatible=self.incompatible, compatible=0, autoclear=0, refcount_order=4, header_length=112
            )
            header += features.encode() + bytes([self.compression])
        self.clusters[0][: len(header)] = header
        state = 0 if self.extra else self.state_size
        entry = struct.pack(
            ">QIHHIIQII", 2 * CLUSTER, self.l1_size, 1, 4, 1700000000, 5, 77, state, len(self.extra)
        )
        table = entry + self.extra + b"1" + b"name"
        self.clusters[1][: len(table)] = table
        if self.l2:
            self.clusters[2][24:32] = struct.pack(">Q", 1 << 63 | 3 * CLUSTER)
            l2 = b"".join(self.l2)
            self.clusters[3][: len(l2)] = l2
        return b"".join(self.clusters)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def load(data: bytes) -> tuple[Image, list[Snapshot]]:
    image = qcow2.run(qcow2.open_image(len(data)), reader(data))
    return image, qcow2.run(qcow2.read_snapshots(image), reader(data))


def state_of(data: bytes, **options: int) -> bytes:
    image, (snapshot,) = load(data)
    return b"".join(map(bytes, qcow2.vmstate_chunks(image, snapshot, reader(data), **options)))


def extents(data: bytes) -> list[Extent]:
    image, (snapshot,) = load(data)
    steps = qcow2.vmstate_extents(image, snapshot)
    found = []
    item: Any = next(steps, None)
    while item is not None:
        answer = reader(data)(*item) if isinstance(item, Read) else None
        found += [item] if isinstance(item, Extent) else []
        try:
            item = steps.send(answer)
        except StopIteration:
            break
    return found


def standard(builder: Builder) -> Builder:
    for number in range(4):
        builder.add(builder.cluster(part(number)))
    return builder


@pytest.mark.parametrize("version", [2, 3])
def test_clusters_in_a_row_are_one_extent(version: int) -> None:
    data = standard(Builder(version)).build()
    assert extents(data) == [Extent("data", len(STATE), 4 * CLUSTER)]
    assert state_of(data) == STATE
    assert state_of(data, piece=1000) == STATE


def test_what_the_snapshot_tells() -> None:
    builder = standard(Builder())
    builder.extra = struct.pack(">QQQ", len(STATE), 2 * builder.span + 1, 9)
    _, (snapshot,) = load(builder.build())
    assert snapshot == Snapshot(
        id="1", name="name", vm_state_size=len(STATE), disk_size=2 * builder.span + 1, date_sec=1700000000,
        vm_clock_nsec=77, l1_table_offset=2 * CLUSTER, l1_size=4,
    )  # fmt: skip
    assert state_of(builder.build()) == STATE


def test_the_state_begins_behind_the_disk_of_that_time() -> None:
    """The disk was resized since: the snapshot's own size counts, in whole L1 entries."""
    builder = standard(Builder())
    builder.extra = struct.pack(">QQ", len(STATE), 3 * builder.span)
    builder.header["disk_size"] = 1 << 50
    assert state_of(builder.build()) == STATE
    builder.extra = struct.pack(">QQ", len(STATE), 2 * builder.span)
    assert state_of(builder.build()) == bytes(len(STATE))  # an L1 entry of 0: reads as zeros
    assert [extent.kind for extent in extents(builder.build())] == ["zero"]


def test_clusters_apart_unallocated_and_zero() -> None:
    builder = Builder()
    second, first = builder.cluster(part(1)), builder.cluster(part(0))
    builder.add(first)
    builder.add(1 << 63 | second)
    builder.add(0)
    builder.add(1 | second)  # reads as zeros, whatever it points at
    data = builder.build()
    assert [extent.kind for extent in extents(data)] == ["data", "data", "zero"]
    assert state_of(data) == STATE[: 2 * CLUSTER] + bytes(len(STATE) - 2 * CLUSTER)
    old = Builder(2)
    old.add(old.cluster(part(0)) | 1)  # version 2 has no zero flag
    old.state_size = 100
    assert state_of(old.build()) == STATE[:100]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("incompatible", "compression", "pack"),
    [(0, 0, deflated), (8, 1, lambda data: zstandard.ZstdCompressor().compress(data))],
)
def test_compressed_clusters(incompatible: int, compression: int, pack: Callable[[bytes], bytes]) -> None:
    builder = Builder(3, incompatible, compression)
    for number, shift in enumerate([0, 700, 512, 5]):
        builder.add_compressed(pack(part(number)), shift)
    data = builder.build()
    found = extents(data)
    assert {extent.kind for extent in found} == {"compressed"}
    assert [extent.offset % CLUSTER for extent in found] == [0, 700, 512, 5]
    assert state_of(data) == STATE
    broken = data.replace(pack(part(1))[:20], b"\xff" * 20)
    with pytest.raises(RemoteProtocolError) as problem:
        state_of(broken)
    assert problem.value.requirement == "LEG-QCO-023"
    short = Builder(3, incompatible, compression)
    short.add_compressed(pack(b"short"))
    with pytest.raises(RemoteProtocolError, match="compressed cluster"):
        state_of(short.build())


def test_extended_entries_have_subclusters() -> None:
    builder = Builder(3, 0x10)
    offset = builder.cluster(part(0))
    builder.add(offset, 0xFFFFFFFF)
    builder.add(builder.cluster(part(1)), 0x0000FFFF | 0xFFFF0000 << 32)
    builder.add_compressed(deflated(part(2)))
    builder.add(builder.cluster(part(3)), 0xFFFFFFFF | 1 << 32)  # the first part reads as zeros
    wanted = bytearray(STATE)
    wanted[CLUSTER + CLUSTER // 2 : 2 * CLUSTER] = bytes(CLUSTER // 2)
    wanted[3 * CLUSTER : 3 * CLUSTER + CLUSTER // 32] = bytes(min(CLUSTER // 32, len(STATE) - 3 * CLUSTER))
    assert state_of(builder.build()) == wanted[: len(STATE)]


def test_a_snapshot_of_the_disk_only() -> None:
    builder = Builder()
    builder.state_size = 0
    assert state_of(builder.build()) == b""
    assert extents(builder.build()) == []


def change(**header: int) -> bytes:
    builder = standard(Builder())
    builder.header.update(header)
    return builder.build()


@pytest.mark.parametrize(
    ("data", "error", "requirement"),
    [
        (b"QFI\xfa" + change()[4:], RemoteProtocolError, "LEG-QCO-001"),
        (change(version=4), RemoteProtocolError, "LEG-QCO-003"),
        (change(cluster_bits=8), RemoteProtocolError, "LEG-QCO-003"),
        (change(cluster_bits=22), RemoteProtocolError, "LEG-QCO-003"),
        (change(cluster_bits=1 << 31), RemoteProtocolError, "LEG-QCO-003"),
        (change(crypt_method=2), UnsupportedFeature, "LEG-QCO-004"),
        (standard(Builder(3, 4)).build(), UnsupportedFeature, "LEG-QCO-004"),
        (standard(Builder(3, 0x20)).build(), UnsupportedFeature, "LEG-QCO-004"),
        (standard(Builder(3, 8, 2)).build(), UnsupportedFeature, "LEG-QCO-004"),
        (change(nb_snapshots=limits.QCOW2_SNAPSHOTS + 1), LimitExceeded, "LEG-QCO-013"),
        (change(nb_snapshots=5), TruncatedStream, "LEG-QCO-010"),
        (change(snapshots_offset=(1 << 64) - 1), RemoteProtocolError, "LEG-QCO-010"),
        (change()[:100], TruncatedStream, "LEG-QCO-002"),
        (change()[:50], TruncatedStream, "LEG-QCO-001"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_read(data: bytes, error: type[RemoteProtocolError], requirement: str) -> None:
    if requirement == "LEG-QCO-010" and error is TruncatedStream:
        data = data[: CLUSTER + 60]
    with pytest.raises(error) as problem:
        load(data)
    assert problem.value.requirement == requirement
    assert type(problem.value) is error


def test_a_table_of_names_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QCOW2_SNAPSHOT_TABLE", 40)
    with pytest.raises(LimitExceeded):
        load(change())
    builder = standard(Builder())
    builder.extra = bytes(limits.QCOW2_SNAPSHOT_EXTRA + 1)
    with pytest.raises(LimitExceeded):
        load(builder.build())


def test_a_state_larger_than_its_table() -> None:
    builder = standard(Builder())
    builder.state_size = 2 * builder.span
    for size in (2 * builder.span, (1 << 32) - 1):
        builder.state_size = size
        with pytest.raises(RemoteProtocolError) as problem:
            extents(builder.build())
        assert problem.value.requirement == "LEG-QCO-012"
    builder.l1_size = limits.QCOW2_L1 // 8 + 1
    with pytest.raises(LimitExceeded):
        extents(builder.build())


def test_tables_that_point_at_the_same_place_again_and_again() -> None:
    """Otherwise a small file would be an endless state."""
    builder = Builder()
    offset = builder.cluster(part(0))
    for _ in range(CLUSTER // 8):
        builder.add(offset)
    builder.state_size = builder.span
    with pytest.raises(RemoteProtocolError) as problem:
        extents(builder.build())
    assert problem.value.requirement == "LEG-QCO-022"


def test_holes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QCOW2_HOLES", 3 * CLUSTER)
    builder = Builder()
    builder.add(builder.cluster(part(0)))
    assert len(state_of(builder.build())) == len(STATE)
    builder.state_size = 4 * CLUSTER + 1
    with pytest.raises(LimitExceeded):
        extents(builder.build())
    empty = Builder()  # no L2 table at all
    empty.state_size = 3 * CLUSTER + 1
    with pytest.raises(LimitExceeded):
        extents(empty.build())


def test_clusters_beyond_the_file() -> None:
    builder = Builder()
    builder.add(builder.cluster(part(0)))
    data = builder.build()
    builder.state_size = CLUSTER
    for cut, requirement in (
        (CLUSTER, "LEG-QCO-021"),
        (CLUSTER + 100, "LEG-QCO-021"),
        (3 * CLUSTER - 24, "LEG-QCO-020"),
    ):
        image, (snapshot,) = load(data)
        chunks = qcow2.vmstate_chunks(image, snapshot, reader(data[: len(data) - cut]))
        with pytest.raises(TruncatedStream) as problem:
            list(chunks)
        assert problem.value.requirement == requirement


def test_snapshots_are_found_by_id_then_name() -> None:
    def named(id: str, name: str) -> Snapshot:
        return Snapshot(id, name, 0, 0, 0, 0, 0, 0)

    known = [named("1", "2"), named("2", "x"), named("3", "x")]
    assert qcow2.find_snapshot(known, "2") == known[1]
    assert qcow2.find_snapshot(known, "x") == known[1]
    assert qcow2.find_snapshot(iter(known), "y") is None


def test_a_real_image_holds_two_streams() -> None:
    (vector,) = load_vectors("legacy/containers#qcow2-two-snapshots")
    data = vector.data()
    image, snapshots = load(data)
    assert [snapshot.name for snapshot in snapshots] == ["one", "two"]
    for snapshot in snapshots:
        events, error = read_stream(b"".join(map(bytes, qcow2.vmstate_chunks(image, snapshot, reader(data)))))
        assert error is None
        assert type(events[-1]).__name__ == "VmDescription"


def everything(data: bytes) -> None:
    image, snapshots = load(data)
    for snapshot in snapshots:
        for _ in qcow2.vmstate_chunks(image, snapshot, reader(data)):
            pass


@given(st.data())
def test_changed_bytes_end_in_our_errors(data: st.DataObject) -> None:
    (vector,) = load_vectors("legacy/containers#qcow2-two-snapshots")
    image = bytearray(vector.data())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 120) | st.integers(0, len(image) - 1))
        image[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        everything(bytes(image[: data.draw(st.integers(0, len(image)))]))
