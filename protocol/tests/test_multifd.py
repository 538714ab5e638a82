"""Multifd channels: each version's packets, every check of QEMU's receiver, cuts, chunking, page sizes."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy import multifd as m
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.state import RamBlock, StreamState
from qmig.testing import load_vectors
from qmig.testing.channels import Seen, device_state, drive, hello, packet, sync
from qmig.testing.damage import replace

PAGE = bytes(range(256)) * 16
PAGES = PAGE + PAGE[::-1]
#: each form once: 9.2+ SYNC, pages, zero pages, compressed, stale size, SYNC with pages, device state
CHANNEL = [
    hello(3, uuid=bytes(range(16))),
    sync(packet_num=1),
    packet(normal=[0, 0x2000], zero=[0x1000], payload=PAGES, packet_num=2),
    packet(zero=[0x3000], packet_num=3),
    packet(flags=2, normal=[0x4000], payload=b"zlib", packet_num=4),
    packet(packet_num=4, next_packet_size=777),
    packet(flags=1, normal=[0x5000], payload=PAGE, packet_num=5),
    device_state(b"state of a device"),
    sync(packet_num=6),
]
DATA = b"".join(CHANNEL)


def state(page_size: int | None = None) -> StreamState:
    known = StreamState(page_size=page_size)
    known.blocks["pc.ram"] = RamBlock("pc.ram", 0x100000, None, None)
    return known


def packets(data: bytes, known: StreamState | None = None) -> list[Record]:
    events: list[Record] = []
    seen, error = drive(m.MultifdReceiver(known or state()), hello() + data, keep=events)
    assert error is None
    assert b"".join(part.wire for part in seen) == hello() + data
    return events[1:]


def failure(data: bytes, known: StreamState | None = None) -> RemoteProtocolError:
    """The error that ends a channel with this packet, which has to stand at its offset."""
    seen, error = drive(m.MultifdReceiver(known or state()), hello() + sync() + data)
    assert [part.name for part in seen] == ["MultifdHello", "MultifdPacket"]
    assert error is not None
    assert error.offset == len(hello() + sync())
    return error


def only(data: bytes, known: StreamState | None = None) -> m.MultifdPacket:
    (event,) = packets(data, known)
    assert isinstance(event, m.MultifdPacket)
    return event


def test_a_channel_is_its_events() -> None:
    seen, error = drive(m.MultifdReceiver(state()), DATA)
    assert error is None
    assert [part.wire for part in seen] == CHANNEL
    assert [part.offset for part in seen] == [sum(map(len, CHANNEL[:at])) for at in range(len(CHANNEL))]


def test_byte_by_byte_is_the_same_channel() -> None:
    seen, error = drive(m.MultifdReceiver(state()), DATA, range(len(DATA)))
    assert error is None
    assert [part.wire for part in seen] == CHANNEL


@given(st.lists(st.integers(1, len(DATA) - 1), max_size=30))
def test_any_chunking_is_the_same_channel(cuts: list[int]) -> None:
    seen, error = drive(m.MultifdReceiver(StreamState()), DATA, cuts)
    assert error is None
    assert [part.wire for part in seen] == CHANNEL


def test_a_base_offset_is_added() -> None:
    seen, _ = drive(m.MultifdReceiver(offset=1000), DATA)
    assert (seen[0].offset, seen[1].offset) == (1000, 1064)


def test_a_cut_anywhere_delivers_what_came() -> None:
    edges = {sum(map(len, CHANNEL[:at])): at for at in range(1, len(CHANNEL) + 1)}
    step = 1 if len(DATA) <= 8192 else 7
    for end in [*range(0, len(DATA), step), *(e + d for e in edges for d in (-1, 0, 1) if e + d < len(DATA))]:
        seen, error = drive(m.MultifdReceiver(state()), DATA[:end])
        whole = [at for edge, at in edges.items() if edge <= end]
        assert [part.wire for part in seen] == CHANNEL[: max(whole, default=0)]
        assert (error is None) is (end in edges)
        assert error is None or (
            type(error) is TruncatedStream and error.offset == sum(map(len, CHANNEL[: len(seen)]))
        )


@given(st.data())
def test_damage_raises_only_our_errors(draw: st.DataObject) -> None:
    data = DATA
    for _ in range(draw.draw(st.integers(1, 4))):
        heads = draw.draw(st.sampled_from([0, 64, 64 + 1344, len(DATA) - 1344 - 300]))
        at = min(heads + draw.draw(st.integers(0, 340)), len(DATA) - 1)
        data = replace(data, at, bytes([draw.draw(st.sampled_from([0, 1, 2, 0x40, 0x7F, 0x80, 0xFF]))]))
    seen, error = drive(m.MultifdReceiver(state()), data)
    assert data.startswith(b"".join(part.wire for part in seen))
    assert error is None or error.requirement.startswith("LEG-MFD-")


def test_hello() -> None:
    receiver = m.MultifdReceiver()
    receiver.receive_data(hello(7, uuid=b"u" * 16))
    event = receiver.next_event()
    assert isinstance(event, m.MultifdHello)
    assert (event.id, event.uuid, event.unused1, event.unused2) == (7, b"u" * 16, bytes(7), bytes(32))
    assert receiver.next_event() is NEED_DATA
    receiver.receive_data(b"")
    assert receiver.next_event() is CLOSED


@pytest.mark.parametrize(("at", "new"), [(0, b"\x55"), (7, b"\x02")])
def test_hello_with_wrong_magic_or_version(at: int, new: bytes) -> None:
    _, error = drive(m.MultifdReceiver(), replace(hello(), at, new))
    assert error is not None
    assert (error.offset, error.record, error.requirement) == (0, "MultifdHello", "LEG-MFD-001")


# LEG-MFD-030 to -033: where a payload is, in every version


def test_a_sync_packet_of_9_2() -> None:
    event = only(sync(packet_num=9))
    assert event.is_sync
    assert (event.flags, event.pages_alloc, event.pages, event.packet_num) == (1, 0, 0, 9)
    assert not event.payload


def test_pages_with_content_and_without() -> None:
    event = only(packet(normal=[0x2000, 0], zero=[0x1000], payload=PAGES))
    assert not event.is_sync
    assert (event.block, event.method_name, event.page_size, event.pages_alloc) == (
        "pc.ram",
        "none",
        4096,
        128,
    )
    assert list(event.normal_offsets()) == [0x2000, 0]
    assert list(event.zero_offsets()) == [0x1000]
    assert bytes(event.normal) == struct.pack(">QQ", 0x2000, 0)
    assert bytes(event.zero) == struct.pack(">Q", 0x1000)
    assert event.payload == PAGES


@pytest.mark.parametrize("stale", [1, 4096, 0xFFFFFFFF])
def test_without_pages_the_size_is_stale_and_no_payload_follows(stale: int) -> None:
    """LEG-MFD-030, LEG-MFD-032."""
    first, second = packets(packet(next_packet_size=stale) + packet(flags=1, next_packet_size=stale))
    assert isinstance(first, m.MultifdPacket)
    assert isinstance(second, m.MultifdPacket)
    assert (bytes(first.payload), bytes(second.payload), second.is_sync) == (b"", b"", True)


@pytest.mark.parametrize("size", [0, 1, 4096, 0x80000000])
def test_without_compression_the_size_is_not_looked_at(size: int) -> None:
    assert only(packet(normal=[0, 0x1000], payload=PAGES, next_packet_size=size)).payload == PAGES


def test_sync_with_pages() -> None:
    """LEG-MFD-051: up to 8.x."""
    event = only(packet(flags=1 | 2, normal=[0], payload=b"deflated"))
    assert (event.is_sync, event.method_name, bytes(event.payload)) == (True, "zlib", b"deflated")


def test_zero_pages_only_with_compression() -> None:
    event = only(packet(flags=4, zero=[0, 0x1000]))
    assert (event.method_name, event.normal_pages, event.zero_pages) == ("zstd", 0, 2)


@pytest.mark.parametrize(
    ("flags", "name"),
    [(0x08, "qpl"), (0x10, "uadk"), (0x20, "qatzip"), (0x06, "unknown (0x6)"), (0x3E, "unknown (0x3e)")],
)
def test_methods_that_are_kept_as_they_came(flags: int, name: str) -> None:
    event = only(packet(flags=flags, normal=[0], payload=b"opaque"))
    assert (event.method_name, bytes(event.payload)) == (name, b"opaque")


def test_a_sync_packet_of_9_0_with_leftovers() -> None:
    """No pages, but the name, the offsets and `pages_alloc` of the packet before (LEG-MFD-050)."""
    event = only(packet(flags=1, normal=[0x1000], zero=[0x2000], counts=(0, 0)))
    assert (event.is_sync, event.pages, event.pages_alloc, event.block) == (True, 0, 128, "pc.ram")
    assert (bytes(event.normal), bytes(event.zero)) == (b"", b"")


def test_unknown_flags_change_nothing() -> None:
    event = only(packet(flags=0xFFFFFF80, normal=[0], payload=PAGE))
    assert (event.flags, event.method_name, event.is_sync) == (0xFFFFFF80, "none", False)


def test_payloads_and_offsets_are_not_copied() -> None:
    data = hello() + packet(normal=[0x1000], payload=PAGE)
    receiver = m.MultifdReceiver(state())
    receiver.receive_data(data)
    receiver.next_event()
    event = receiver.next_event()
    assert isinstance(event, m.MultifdPacket)
    for view in (event.payload, event.normal, event.zero, event.offsets):
        assert isinstance(view, memoryview)
        assert view.obj is data


# LEG-MFD-012, -013: how long a head is


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("page_size", [1 << bits for bits in range(10, 17)])
def test_every_page_size(page_size: int, known: bool) -> None:
    """LEG-MFD-012, and LEG-MFD-013 where it was not told."""
    state_ = state(page_size=page_size) if known else state()
    data = [
        packet(flags=1, block="", page_size=page_size),
        packet(normal=[page_size], payload=bytes(page_size), page_size=page_size),
        packet(zero=[0], page_size=page_size),
    ]
    events = packets(b"".join(data), state_)
    assert [len(part) for part in data] == [event.size for event in events]
    assert events[0].size == 320 + 8 * 524288 // page_size
    assert state_.page_size == page_size


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("page_size", [1 << bits for bits in range(12, 17)])
def test_page_size_of_a_channel_that_begins_with_pure_syncs(page_size: int, cuts: bool) -> None:
    """Nothing but the distance between the packets says it (LEG-MFD-013)."""
    parts = [hello(), sync(page_size=page_size), sync(page_size=page_size)]
    data = b"".join(parts)
    known = StreamState()
    seen, error = drive(m.MultifdReceiver(known), data, range(len(data)) if cuts else ())
    assert error is None
    assert [part.wire for part in seen] == parts
    assert known.page_size == (None if page_size == 4096 else page_size)


def test_a_device_state_packet_behind_the_first_sync_shows_its_length_too() -> None:
    parts = [hello(), sync(page_size=65536), device_state(b"x")]
    seen, error = drive(m.MultifdReceiver(), b"".join(parts))
    assert error is None
    assert [part.wire for part in seen] == parts


def test_a_sync_of_usual_length_is_told_at_once() -> None:
    receiver = m.MultifdReceiver()
    receiver.receive_data(hello() + sync())
    assert [type(receiver.next_event()).__name__ for _ in range(2)] == ["MultifdHello", "MultifdPacket"]
    assert receiver.next_event() is NEED_DATA


@pytest.mark.parametrize("pages_alloc", [3, 4, 4096, 0xFFFFFFFF])
def test_pages_alloc_that_fits_no_page_size(pages_alloc: int) -> None:
    seen, error = drive(m.MultifdReceiver(), hello() + packet(pages_alloc=pages_alloc))
    assert len(seen) == 1
    assert error is not None
    assert (error.offset, error.requirement) == (64, "LEG-MFD-014")


# every check of QEMU's receiver

WRONG = [
    (replace(packet(), 0, b"\x12"), "LEG-MFD-010", "magic"),
    (replace(packet(), 7, b"\x07"), "LEG-MFD-010", "version"),
    (packet(pages_alloc=129), "LEG-MFD-014", "pages_alloc 129"),
    (packet(counts=(129, 0)), "LEG-MFD-015", "129 normal"),
    (packet(counts=(0, 129)), "LEG-MFD-015", "129 zero"),
    (packet(counts=(0xFFFFFFFF, 0xFFFFFFFF)), "LEG-MFD-015", "pages_alloc is 128"),
    (packet(pages_alloc=1, zero=[0, 0x1000]), "LEG-MFD-015", "pages_alloc is 1"),
    (packet(block="x" * 256, zero=[0]), "LEG-MFD-016", "NUL"),
    (packet(block="vga.vram", zero=[0]), "LEG-MFD-017", "'vga.vram'"),
    (packet(zero=[0x1000, 0x800]), "LEG-MFD-018", "not page-aligned"),
    (packet(zero=[0x100000]), "LEG-MFD-018", "0x100000 is outside 'pc.ram'"),
    (packet(normal=[0x1000, (1 << 64) - 4096], payload=PAGES), "LEG-MFD-018", "outside"),
    (device_state(b"x", flags=0x41), "LEG-MFD-071", "SYNC"),
    (device_state(b"x", idstr=b"i" * 256), "LEG-MFD-073", "NUL"),
    (device_state(b""), "LEG-MFD-072", "empty"),
]


@pytest.mark.parametrize(("data", "requirement", "message"), WRONG)
def test_what_a_receiver_refuses(data: bytes, requirement: str, message: str) -> None:
    error = failure(data, state(page_size=4096))
    assert type(error) is RemoteProtocolError
    assert error.requirement == requirement
    assert message in error.message
    assert error.record == ("MultifdDeviceState" if data[11] & 0x40 else "MultifdPacket")


def test_the_last_page_of_a_block_is_inside() -> None:
    assert list(only(packet(zero=[0xFF000])).zero_offsets()) == [0xFF000]


def test_a_block_smaller_than_a_page_has_no_page() -> None:
    known = state()
    known.blocks["small"] = RamBlock("small", 0x800, None, None)
    assert failure(packet(block="small", zero=[0]), known).requirement == "LEG-MFD-018"


def test_without_a_block_list_nothing_is_checked_against_it() -> None:
    assert only(packet(block="what.ever", zero=[0x7001]), StreamState()).block == "what.ever"


def test_lengths_over_the_limit_cost_nothing() -> None:
    head = packet(flags=2, normal=[0], next_packet_size=0xFFFFFFFF)
    tracemalloc.start()
    for data in (head, device_state(b"", size=0xFFFFFFFF)):
        error = failure(data + bytes(1 << 16))
        assert type(error) is LimitExceeded
        assert "4294967295" in error.message
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


# the records on their own


def test_device_state() -> None:
    (event,) = packets(device_state(b"payload"))
    assert isinstance(event, m.MultifdDeviceState)
    assert (event.idstr, event.instance_id, event.data, event.is_sync) == (
        "0000:00:02.0/vfio",
        0,
        b"payload",
        False,
    )


def test_a_writer_gets_the_same_checks() -> None:
    good = only(packet(normal=[0], payload=PAGE)).values()
    assert m.MultifdPacket(**good).encode() == packet(normal=[0], payload=PAGE)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"offsets": bytes(1016)}, "LEG-MFD-012"),
        ({"offsets": bytes(1025)}, "LEG-MFD-012"),
        ({"payload": PAGES}, "LEG-MFD-031"),
        ({"payload": b""}, "LEG-MFD-031"),
        ({"zero_pages": 128}, "LEG-MFD-015"),
        ({"pages_alloc": 256}, "LEG-MFD-014"),
    ]
    for change, requirement in wrong:
        with pytest.raises(LocalProtocolError) as caught:
            m.MultifdPacket(**{**good, **change})
        assert caught.value.requirement == requirement
    with pytest.raises(LocalProtocolError, match="DEVICE_STATE is not set"):
        m.MultifdDeviceState(flags=0, idstr_field=b"x".ljust(256, b"\0"), instance_id=0, data=b"x")


@given(
    st.sampled_from([1024, 4096, 65536]), st.lists(st.integers(0, 255), max_size=8, unique=True), st.data()
)
def test_any_packet_is_what_construct_reads(page_size: int, pages: list[int], draw: st.DataObject) -> None:
    split = draw.draw(st.integers(0, len(pages)))
    offsets = [page * page_size for page in pages]
    normal, zero = offsets[:split], offsets[split:]
    method = draw.draw(st.sampled_from([0, 2, 4, 8, 0x10, 0x20]))
    size = split * page_size if not method else draw.draw(st.integers(0, 99)) if split else 0
    data = packet(
        flags=method, normal=normal, zero=zero, payload=bytes(size), page_size=page_size,
        packet_num=draw.draw(st.integers(0, (1 << 64) - 1)), block=draw.draw(st.sampled_from(["m0", "a/b"])),
    )  # fmt: skip
    event = only(data, StreamState(page_size=page_size))
    struct_ = m.MultifdPacket.construct()
    parsed = struct_.parse(data, pages=524288 // page_size)
    assert {key: value for key, value in parsed.items() if not key.startswith("_")} == {
        **{
            k: bytes(v) if isinstance(v, memoryview) else v
            for k, v in event.values().items()
            if k != "page_size"
        },
        "magic": 0x11223344,
        "version": 1,
    }
    assert struct_.build(parsed, pages=524288 // page_size) == data
    assert event.normal_offsets().tolist() == normal
    assert event.zero_offsets().tolist() == zero


def test_the_layout_shown_in_the_specification() -> None:
    rows = {row.name: (row.offset, row.size) for row in m.MultifdPacket.fields_layout()}
    assert rows["zero_pages"] == (32, "4")
    assert rows["ramblock"] == (64, "256")
    assert rows["offsets"] == (320, "8×n")
    assert rows["payload"] == (None, "m")


def recordings() -> list[tuple[str, bytes]]:
    return [
        (f"{vector.id} {name}", channel.read())
        for vector in load_vectors(reader="stream")
        for name, channel in vector.channels.items()
        if name.startswith("multifd-")
    ]


def test_recorded_channels_are_their_events() -> None:
    names = set()
    for name, data in recordings():
        events: list[Record] = []
        seen, error = drive(m.MultifdReceiver(), data, range(0, len(data), 60001), keep=events)
        assert error is None, name
        assert b"".join(part.wire for part in seen) == data
        assert isinstance(events[0], m.MultifdHello)
        assert f"multifd-{events[0].id}" in name
        names.add(name.split("#")[1].split("-")[0])
        assert seen[0] == Seen("MultifdHello", 0, data[:64])
    assert {"5.2", "7.2", "10.0", "11.1"} <= names
