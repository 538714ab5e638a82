"""libvirt save files: both byte orders, and payloads unpacked in bounded pieces."""

import bz2
import contextlib
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._wire import Record
from qmig.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedStream,
    UnsupportedFeature,
)
from qmig.legacy.containers import (
    LIBVIRT_MAGIC,
    LIBVIRT_PARTIAL,
    LibvirtFormat,
    LibvirtSave,
    LibvirtSaveData,
    LibvirtSaveHeader,
    LibvirtSaveHeaderBig,
    LibvirtSaveReceiver,
)
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.unpack import Unpacker
from qmig.testing.streams import PLAIN, read, same, to_bytes

XML = b"<domain type='kvm'/>\0"
COOKIE = b"<qemu/>\0"
CONTENT = XML + COOKIE + bytes(100)


def head(*, big: bool = False, **changes: object) -> bytes:
    values: dict[str, object] = {
        "magic": LIBVIRT_MAGIC, "version": 2, "data_len": len(CONTENT), "was_running": 1, "format": 0,
        "cookie_offset": len(XML), "unused": bytes(56), **changes,
    }  # fmt: skip
    kind = LibvirtSaveHeaderBig if big else LibvirtSaveHeader
    return kind(**values).encode()  # type: ignore[arg-type]


def receive(data: bytes, step: int = 0, offset: int = 0) -> tuple[LibvirtSaveReceiver, list[Record]]:
    receiver = LibvirtSaveReceiver(offset=offset)
    events: list[Record] = []
    step = step or len(data)
    for start in range(0, len(data), step):
        receiver.receive_data(data[start : start + step])
        while isinstance(event := receiver.next_event(), Record):
            if isinstance(event, LibvirtSaveData):
                event = LibvirtSaveData(data=bytes(event.data)).place(event.offset, event.size)
            events.append(event)
    return receiver, events


def saved(data: bytes, step: int = 0, offset: int = 0) -> LibvirtSave:
    save = receive(data, step, offset)[0].save
    assert save is not None
    return save


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("step", [0, 1, 13])
def test_head_and_where_the_payload_begins(big: bool, step: int) -> None:
    data = head(big=big) + CONTENT
    receiver, events = receive(data, step, offset=7)
    assert b"".join(event.encode() for event in events) == data
    save = receiver.save
    assert save is not None
    assert (save.xml, save.cookie) == (XML[:-1], COOKIE[:-1])
    assert (save.payload, save.complete, save.format) == (7 + 92 + len(CONTENT), True, LibvirtFormat.RAW)
    assert receiver.next_event() is CLOSED


def test_the_stream_behind_the_head_is_read_where_it_stands() -> None:
    """Offsets of events are those of the file."""
    stream = to_bytes(PLAIN)
    receiver, _ = receive(head(format=6) + CONTENT + stream)
    assert receiver.save is not None
    assert receiver.save.format is LibvirtFormat.SPARSE
    rest = bytes(receiver.rest())
    assert rest == stream
    events, error = read(rest, offset=receiver.save.payload)
    assert error is None
    assert same(events, PLAIN)
    assert events[0].offset == 92 + len(CONTENT)


def test_layout() -> None:
    data = head(format=5)
    assert len(data) == 92
    assert data[:40] == LIBVIRT_MAGIC + bytes.fromhex("02000000 81000000 01000000 05000000 15000000 00000000")


def test_version_1_has_no_format_and_no_cookie() -> None:
    save = saved(head(version=1, format=3, cookie_offset=0) + CONTENT)
    assert (save.format, save.cookie) == (LibvirtFormat.RAW, None)


def test_an_unfinished_file_says_so() -> None:
    assert not saved(head(magic=LIBVIRT_PARTIAL) + CONTENT).complete


@pytest.mark.parametrize(
    ("changes", "error", "requirement"),
    [
        ({"version": 0}, RemoteProtocolError, "LEG-LBV-003"),
        ({"version": 3}, RemoteProtocolError, "LEG-LBV-003"),
        ({"format": 7}, UnsupportedFeature, "LEG-LBV-004"),
        ({"data_len": 0, "cookie_offset": 0}, RemoteProtocolError, "LEG-LBV-005"),
        ({"cookie_offset": len(CONTENT) + 1}, RemoteProtocolError, "LEG-LBV-005"),
        ({"data_len": limits.LIBVIRT_DATA + 1}, LimitExceeded, "LEG-LBV-001"),
        ({"data_len": (1 << 32) - 1}, LimitExceeded, "LEG-LBV-001"),
    ],
)
def test_wrong_heads(changes: dict[str, object], error: type[RemoteProtocolError], requirement: str) -> None:
    with pytest.raises(error) as problem:
        receive(head(**changes) + CONTENT)  # type: ignore[arg-type]
    assert problem.value.requirement == requirement


def test_a_head_of_something_else_or_cut() -> None:
    with pytest.raises(RemoteProtocolError):
        receive(b"LibvirtQemudSavf" + head()[16:])
    with pytest.raises(LocalProtocolError):
        head(magic=b"QEVM" * 4)
    data = head() + CONTENT
    for end in range(1, len(data), 3):
        receiver, _ = receive(data[:end])
        assert receiver.next_event() is NEED_DATA
        assert bytes(receiver.rest()) == b""
        receiver.receive_data(b"")
        with pytest.raises(TruncatedStream):
            receiver.next_event()


PACK: dict[LibvirtFormat, Callable[[bytes], bytes]] = {
    LibvirtFormat.GZIP: gzip.compress,
    LibvirtFormat.BZIP2: bz2.compress,
    LibvirtFormat.XZ: lzma.compress,
    LibvirtFormat.ZSTD: lambda data: zstandard.ZstdCompressor().compress(data),
}
PACKED = list(PACK)
PLAIN_BYTES = to_bytes(PLAIN)


def unpack(format: LibvirtFormat, data: bytes, step: int = 0) -> tuple[bytes, Unpacker]:
    unpacker = Unpacker(format, offset=500)
    step = step or max(1, len(data))
    out = b""
    for start in range(0, len(data), step):
        out += b"".join(map(bytes, unpacker.feed(data[start : start + step])))
    unpacker.finish()
    return out, unpacker


@pytest.mark.parametrize("format", PACKED)
@pytest.mark.parametrize("step", [0, 1, 100])
def test_payloads_are_unpacked(format: LibvirtFormat, step: int) -> None:
    packed = PACK[format](PLAIN_BYTES)
    out, unpacker = unpack(format, packed, step)
    assert out == PLAIN_BYTES
    assert (unpacker.offset, unpacker.trailing) == (500 + len(packed), 0)


@pytest.mark.parametrize("format", [LibvirtFormat.RAW, LibvirtFormat.SPARSE])
def test_raw_payloads_pass(format: LibvirtFormat) -> None:
    data = b"x" * (limits.INFLATE_PIECE + 1)
    unpacker = Unpacker(format)
    assert [len(piece) for piece in unpacker.feed(data)] == [limits.INFLATE_PIECE, 1]
    unpacker.finish()
    assert unpacker.offset == len(data)


@pytest.mark.parametrize("format", PACKED)
def test_packed_files_one_behind_the_other_and_what_trails(format: LibvirtFormat) -> None:
    packed = PACK[format](b"one") + PACK[format](b"two")
    for step in (0, 1):
        out, unpacker = unpack(format, packed + bytes(9), step)
        assert out == b"onetwo"
        assert (unpacker.trailing, unpacker.offset) == (9, 500 + len(packed) + 9)


@pytest.mark.parametrize("format", PACKED)
def test_a_bomb_comes_in_bounded_pieces(format: LibvirtFormat) -> None:
    packed = PACK[format](bytes(64 * limits.MiB))
    assert len(packed) < 100_000
    total = largest = 0
    for piece in Unpacker(format).feed(packed):
        total += len(piece)
        largest = max(largest, len(piece))
    assert total == 64 * limits.MiB
    assert largest <= (16 * limits.MiB if format is LibvirtFormat.ZSTD else limits.INFLATE_PIECE)


@pytest.mark.parametrize("format", PACKED)
def test_damaged_and_cut_payloads(format: LibvirtFormat) -> None:
    packed = PACK[format](PLAIN_BYTES)
    with pytest.raises(RemoteProtocolError) as problem:
        unpack(format, b"\xff" * 100)
    assert (problem.value.requirement, problem.value.offset) == ("LEG-LBV-021", 500)
    for end in range(0, len(packed), 7):
        with pytest.raises(TruncatedStream):
            unpack(format, packed[:end])


@given(st.sampled_from(PACKED), st.data())
def test_flipped_bits_end_in_our_errors(format: LibvirtFormat, data: st.DataObject) -> None:
    packed = bytearray(PACK[format](PLAIN_BYTES))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RemoteProtocolError):
        unpack(format, bytes(packed))


def test_what_nothing_here_unpacks_is_named() -> None:
    with pytest.raises(UnsupportedFeature, match="lzop"):
        Unpacker(LibvirtFormat.LZOP)
