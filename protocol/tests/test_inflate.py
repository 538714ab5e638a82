"""Payloads of multifd packets made pages: one stream per channel, exact lengths, bounded output."""

from __future__ import annotations

import sys
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qmig.errors import RemoteProtocolError, UnsupportedFeature
from qmig.legacy.inflate import Inflater
from qmig.legacy.multifd import MultifdFlag, MultifdPacket, MultifdReceiver
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.testing import load_vectors
from qmig.testing.channels import hello, packet

PAGE = b"guest memory " * 315 + b"x"
assert len(PAGE) == 4096


def read(*packets_: bytes) -> list[MultifdPacket]:
    receiver = MultifdReceiver()
    receiver.receive_data(hello() + b"".join(packets_))
    receiver.next_event()
    found = []
    while isinstance(event := receiver.next_event(), MultifdPacket):
        found.append(event)
    assert event is NEED_DATA
    return found


def compressed(method: int, payloads: list[bytes], counts: list[int]) -> list[MultifdPacket]:
    return read(
        *(
            packet(flags=method, normal=[4096 * n for n in range(count)], payload=payload)
            for payload, count in zip(payloads, counts, strict=True)
        )
    )


class Deflate:
    """QEMU's sender: one stream, flushed behind each packet."""

    def __init__(self) -> None:
        self.stream = zlib.compressobj(1)

    def payload(self, data: bytes) -> bytes:
        return self.stream.compress(data) + self.stream.flush(zlib.Z_SYNC_FLUSH)


class Zstd:
    """Likewise."""

    def __init__(self, level: int = 1) -> None:
        self.stream = zstandard.ZstdCompressor(level=level).compressobj()

    def payload(self, data: bytes) -> bytes:
        return self.stream.compress(data) + self.stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


SENDERS = [(int(MultifdFlag.ZLIB), Deflate), (int(MultifdFlag.ZSTD), Zstd)]


def test_without_compression_nothing_is_copied() -> None:
    (only,) = read(packet(normal=[0, 4096], payload=PAGE * 2))
    assert Inflater().pages(only) is only.payload


def test_a_packet_without_pages_makes_nothing_and_fixes_no_method() -> None:
    empty, full = read(
        packet(flags=1, next_packet_size=99), packet(flags=2, normal=[0], payload=Deflate().payload(PAGE))
    )
    inflater = Inflater()
    assert inflater.pages(empty) == b""
    assert inflater.pages(full) == PAGE


@pytest.mark.parametrize(("method", "sender"), SENDERS)
@given(contents=st.lists(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=3), max_size=5))
def test_one_stream_over_all_packets(
    method: int, sender: type[Deflate | Zstd], contents: list[list[bytes]]
) -> None:
    pages = [b"".join((seed * 4096)[:4096] for seed in group) for group in contents]
    stream = sender()
    inflater = Inflater()
    for event, expected in zip(
        compressed(
            method, [stream.payload(group) for group in pages], [len(group) // 4096 for group in pages]
        ),
        pages,
        strict=True,
    ):
        assert inflater.pages(event) == expected


@pytest.mark.parametrize(("method", "sender"), SENDERS)
def test_a_full_packet_of_pages_that_do_not_compress(method: int, sender: type[Deflate | Zstd]) -> None:
    """524288 bytes, four blocks of zstd: all of it comes out of its own packet."""
    stream = sender()
    data = [bytes((i * j * 2654435761 >> 13) & 255 for i in range(4096)) * 128 for j in range(1, 4)]
    inflater = Inflater()
    for event, expected in zip(
        compressed(method, [stream.payload(d) for d in data], [128] * 3), data, strict=True
    ):
        assert inflater.pages(event) == expected


@pytest.mark.parametrize(("method", "sender"), SENDERS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_pages(method: int, sender: type[Deflate | Zstd], change: int) -> None:
    (event,) = compressed(method, [sender().payload(PAGE * 2)], [2 + change])
    with pytest.raises(RemoteProtocolError) as caught:
        Inflater().pages(event)
    assert caught.value.requirement == "LEG-MFD-046"
    assert caught.value.offset == 64 + 1344
    assert ("more than 4096" if change < 0 else "8192 bytes, 12288") in caught.value.message


@pytest.mark.parametrize(("method", "sender"), SENDERS)
def test_a_packet_left_out_is_noticed_by_damage(method: int, sender: type[Deflate | Zstd]) -> None:
    stream = sender()
    stream.payload(PAGE)
    (event,) = compressed(method, [stream.payload(PAGE)], [1])
    with pytest.raises(RemoteProtocolError) as caught:
        Inflater().pages(event)
    assert caught.value.requirement in {"LEG-MFD-041", "LEG-MFD-042"}


@pytest.mark.parametrize("method", [2, 4])
@given(st.binary(max_size=200))
def test_garbage_raises_our_error_or_is_too_short(method: int, payload: bytes) -> None:
    (event,) = compressed(method, [payload], [128])
    with pytest.raises(RemoteProtocolError):
        Inflater().pages(event)


BOMB = 1 << 26


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        pytest.param(2, zlib.compress(bytes(BOMB), 9), id="zlib"),
        pytest.param(4, zstandard.ZstdCompressor(level=19).compress(bytes(BOMB)), id="zstd"),
        # a frame of 64 MiB in RLE blocks: 4 bytes for each 128 KiB
        pytest.param(4, b"\x28\xb5\x2f\xfd\x00\x80" + b"\x02\x00\x10\x00" * 512, id="zstd-rle"),
    ],
)
def test_a_bomb_makes_no_more_than_one_packet(method: int, payload: bytes) -> None:
    (event,) = compressed(method, [payload], [128])
    inflater = Inflater()
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="more than 524288"):
        inflater.pages(event)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_the_end_of_a_zlib_stream() -> None:
    whole = zlib.compress(PAGE)
    for payloads, message in [
        ([whole + b"more"], "4 bytes behind the end"),
        ([whole, whole], "has ended before"),
    ]:
        inflater = Inflater()
        *good, bad = compressed(2, payloads, [1] * len(payloads))
        assert [inflater.pages(event) for event in good] == [PAGE] * len(good)
        with pytest.raises(RemoteProtocolError, match=message):
            inflater.pages(bad)


def test_the_method_does_not_change() -> None:
    first, second = read(packet(normal=[0], payload=PAGE), packet(flags=2, normal=[0], payload=b"zlib"))
    inflater = Inflater()
    inflater.pages(first)
    with pytest.raises(RemoteProtocolError, match="compression zlib, none expected") as caught:
        inflater.pages(second)
    assert caught.value.requirement == "LEG-MFD-034"


@pytest.mark.parametrize(
    ("method", "name", "requirement"),
    [
        (8, "qpl", "LEG-MFD-043"),
        (0x10, "uadk", "LEG-MFD-044"),
        (0x20, "qatzip", "LEG-MFD-045"),
        (0x0E, r"unknown \(0xe\)", "LEG-MFD-036"),
    ],
)
def test_methods_that_cannot_be_undone_are_named(method: int, name: str, requirement: str) -> None:
    (event,) = compressed(method, [b"opaque"], [1])
    with pytest.raises(UnsupportedFeature, match=f"compression {name}: ") as caught:
        Inflater().pages(event)
    assert caught.value.requirement == requirement


def test_zstd_without_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (event,) = compressed(4, [b"frame"], [1])
    with pytest.raises(UnsupportedFeature, match="install zstandard") as caught:
        Inflater().pages(event)
    assert caught.value.requirement == "LEG-MFD-042"


def test_recorded_channels_make_whole_pages() -> None:
    methods = set()
    for vector in load_vectors(reader="stream"):
        for name, channel in vector.channels.items():
            if not name.startswith("multifd-"):
                continue
            receiver = MultifdReceiver()
            receiver.receive_data(channel.read())
            receiver.receive_data(b"")
            inflater = Inflater()
            while (event := receiver.next_event()) is not CLOSED:
                if isinstance(event, MultifdPacket):
                    assert len(inflater.pages(event)) == event.normal_pages * 4096
                    methods.add(event.method_name)
    assert methods == {"none", "zlib", "zstd"}
