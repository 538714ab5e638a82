"""Multifd channels: pages in packets, beside the main channel.

Source: migration/multifd.c `MultiFDInit_t`, `MultiFDPacket_t`, `MultiFDPacketDeviceState_t`.

Rule 1: one layout serves every version. What 9.0 calls `zero_pages` was an unused word
that held 0 before.
Rule 2: a payload follows iff `normal_pages` is not 0. Its length is computed for
uncompressed pages and is `next_packet_size` otherwise: up to 8.x that field is stale in
packets without pages, so it must not be looked at there.
Rule 3: payloads stay as they came; `qmig.legacy.inflate` makes pages of them.
"""

from __future__ import annotations

import enum
import functools
import struct
from array import array
from typing import Any, ClassVar, Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import Bytes, Int8ub, Int32ub, Int64ub, Prefixed, Raw, Record, Subcon, attr, const, wire
from qmig.errors import LocalProtocolError, localised
from qmig.legacy.receiver import Channel
from qmig.legacy.state import StreamState

#: opens the channel and every packet
MULTIFD_MAGIC: Final = 0x11223344
MULTIFD_VERSION: Final = 1
#: bytes of guest memory that one packet describes at most (`MULTIFD_PACKET_SIZE`)
PACKET_PAGES_SIZE: Final = 512 * 1024
#: bytes of a RAM packet before its offsets
HEAD_SIZE: Final = 320
#: bytes that tell the kinds of packets apart
OPENING_SIZE: Final = 12

_OPENING: Final = MULTIFD_MAGIC.to_bytes(4, "big") + MULTIFD_VERSION.to_bytes(4, "big")
#: pages per packet of the target page sizes above 4 KiB (64 KiB to 8 KiB)
_FEWER_PAGES: Final = (8, 16, 32, 64)


class MultifdFlag(enum.IntFlag, boundary=enum.KEEP):
    """`MULTIFD_FLAG_*`: one flag, the method of compression in bits 1 to 5, one kind of packet."""

    NOCOMP = 0x00
    SYNC = 0x01
    ZLIB = 0x02
    ZSTD = 0x04
    QPL = 0x08
    UADK = 0x10
    QATZIP = 0x20
    DEVICE_STATE = 0x40


_SYNC: Final = int(MultifdFlag.SYNC)
_DEVICE_STATE: Final = int(MultifdFlag.DEVICE_STATE)
#: bits of the method; up to 9.0 the mask was 0x0e, and the other two bits were not used
METHOD_MASK: Final = 0x3E
#: method -> QAPI name (`multifd-compression`)
METHODS: Final[dict[int, str]] = {
    MultifdFlag.NOCOMP: "none",
    MultifdFlag.ZLIB: "zlib",
    MultifdFlag.ZSTD: "zstd",
    MultifdFlag.QPL: "qpl",
    MultifdFlag.UADK: "uadk",
    MultifdFlag.QATZIP: "qatzip",
}


def method_name(method: int) -> str:
    """QAPI name of a method, or its number where no known version has it."""
    return METHODS.get(method) or f"unknown ({method:#x})"


class _PageOffsets(Subcon[Raw]):
    """One u64 for each page that a packet can hold: 524288 / target page size of them."""

    def construct(self) -> Any:
        """Takes the number of pages as keyword `pages` of `parse` and `build`."""
        import construct

        return construct.Bytes(construct.this._.pages * 8)

    def encode(self, value: Raw) -> bytes:
        return bytes(value)

    def size_text(self) -> str:
        return "8×n"


class _Payload(Subcon[Raw]):
    """What `next_packet_size`, or the number of pages, says."""

    def construct(self) -> Any:
        import construct

        return construct.GreedyBytes

    def encode(self, value: Raw) -> bytes:
        return bytes(value)

    def size_text(self) -> str:
        return "m"


class MultifdHello(Record):
    """The first bytes of every multifd channel."""

    requirement: ClassVar[str] = "LEG-MFD-001"
    magic = const(Int32ub, MULTIFD_MAGIC)
    version = const(Int32ub, MULTIFD_VERSION)
    uuid: bytes = wire(Bytes(16), doc="the machine's `-uuid`, zeros if it has none")
    id: int = wire(Int8ub, doc="number of the channel, from 0")
    unused1: bytes = wire(Bytes(7), doc="zeros")
    unused2: bytes = wire(Bytes(32), doc="zeros")


class MultifdOpening(Record):
    """The first 12 bytes of every packet; bit 0x40 of `flags` decides which layout follows."""

    requirement: ClassVar[str] = "LEG-MFD-010"
    magic = const(Int32ub, MULTIFD_MAGIC)
    version = const(Int32ub, MULTIFD_VERSION)
    flags: int = wire(Int32ub, doc="`MultifdFlag`")

    @property
    def is_sync(self) -> bool:
        """Whether this packet ends what its sync point covers on this channel."""
        return bool(self.flags & _SYNC)


class MultifdPacketHead(MultifdOpening):
    """A RAM packet up to its offsets."""

    requirement: ClassVar[str] = "LEG-MFD-011"
    pages_alloc: int = wire(Int32ub, doc="pages that a packet can hold; 0 in SYNC packets since 9.2")
    normal_pages: int = wire(Int32ub, doc="pages whose content is in the payload (`pages_used` in 5.2)")
    next_packet_size: int = wire(Int32ub, doc="bytes of payload; stale without pages up to 8.x")
    packet_num: int = wire(Int64ub, doc="counted over all channels")
    zero_pages: int = wire(Int32ub, doc="pages that are zero (9.0+; 0 before)")
    unused: bytes = wire(Bytes(28), doc="zeros")
    ramblock: bytes = wire(Bytes(256), doc="RAMBlock idstr, NUL-terminated and padded")

    @property
    def block(self) -> str:
        """RAMBlock idstr."""
        return _name(self.ramblock)

    @property
    def pages(self) -> int:
        """Pages that this packet is about, with or without content."""
        return self.normal_pages + self.zero_pages

    @property
    def method(self) -> int:
        """The compression bits of `flags`; they mean nothing in packets without pages."""
        return self.flags & METHOD_MASK

    @property
    def method_name(self) -> str:
        return method_name(self.method)


class MultifdPacket(MultifdPacketHead):
    """Pages of one RAM block, or a SYNC, or (up to 8.x) both at once."""

    requirement: ClassVar[str] = "LEG-MFD-011"
    page_size: int = attr(int, doc="target page size, bytes")
    offsets: Raw = wire(_PageOffsets("Array(n, Int64ub)"), doc="in the block; normal pages, then zero pages")
    payload: Raw = wire(_Payload("GreedyBytes"), doc="as it came: compressed, if `flags` says so")

    def validate(self) -> None:
        """Raises `LocalProtocolError` for counts that do not fit the offsets or the payload."""
        if len(self.offsets) * self.page_size != 8 * PACKET_PAGES_SIZE:
            raise LocalProtocolError(
                f"{len(self.offsets)} bytes of offsets do not go with pages of {self.page_size} bytes",
                requirement="LEG-MFD-012",
            )
        _check_head(self, len(self.offsets) // 8)
        expected = payload_size(self, self.page_size)
        if len(self.payload) != expected:
            raise LocalProtocolError(
                f"payload of {len(self.payload)} bytes, {expected} expected", requirement="LEG-MFD-031"
            )

    @property
    def normal(self) -> memoryview:
        """Offsets of the pages with content: big-endian u64, in payload order, not copied."""
        return memoryview(self.offsets)[: 8 * self.normal_pages]

    @property
    def zero(self) -> memoryview:
        """Offsets of the zero pages: big-endian u64, not copied."""
        return memoryview(self.offsets)[8 * self.normal_pages : 8 * self.pages]

    def normal_offsets(self) -> array[int]:
        """Offsets in the block, in bytes, of the pages with content, as native integers."""
        return _native(self.normal)

    def zero_offsets(self) -> array[int]:
        """Offsets in the block, in bytes, of the zero pages, as native integers."""
        return _native(self.zero)


class MultifdDeviceState(MultifdOpening):
    """A piece of a device's state (10.0+, vfio)."""

    requirement: ClassVar[str] = "LEG-MFD-070"
    idstr_field: bytes = wire(Bytes(256), doc="the device's idstr, NUL-terminated")
    instance_id: int = wire(Int32ub)
    data: bytes = wire(Prefixed(Int32ub, limits.MULTIFD_PAYLOAD), doc="`next_packet_size`, not 0; the data")

    @property
    def idstr(self) -> str:
        return _name(self.idstr_field)

    def validate(self) -> None:
        """Raises `LocalProtocolError` for what QEMU's receiver refuses."""
        _check_device_state(self.flags, self.idstr_field, len(self.data))


def payload_size(head: MultifdPacketHead, page_size: int) -> int:
    """Bytes behind the offsets. The same rule is right for every version."""
    if not head.normal_pages:
        return 0
    if head.method == MultifdFlag.NOCOMP:
        return head.normal_pages * page_size
    return head.next_packet_size


def _check_head(head: MultifdPacketHead, room: int) -> None:
    """Raises `LocalProtocolError` unless the counts fit the `room` offsets of the packet."""
    if head.pages_alloc > room:
        raise LocalProtocolError(
            f"pages_alloc {head.pages_alloc}, at most {room} fit", requirement="LEG-MFD-014"
        )
    if head.pages > head.pages_alloc:
        raise LocalProtocolError(
            f"{head.normal_pages} normal and {head.zero_pages} zero pages, pages_alloc is {head.pages_alloc}",
            requirement="LEG-MFD-015",
        )
    if head.pages and not _terminated(head.ramblock):
        raise LocalProtocolError("RAM block name without its NUL", requirement="LEG-MFD-016")


def _check_device_state(flags: int, idstr: bytes, size: int) -> None:
    if not flags & _DEVICE_STATE:
        raise LocalProtocolError("flag DEVICE_STATE is not set", requirement="LEG-MFD-070")
    if flags & _SYNC:
        raise LocalProtocolError("a device-state packet with SYNC", requirement="LEG-MFD-071")
    if not _terminated(idstr):
        raise LocalProtocolError("device idstr without its NUL", requirement="LEG-MFD-073")
    if not size:
        raise LocalProtocolError("an empty device-state packet", requirement="LEG-MFD-072")


def _terminated(name: bytes) -> bool:
    return 0 in name


def _name(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _native(offsets: memoryview) -> array[int]:
    return array("Q", struct.unpack(f">{len(offsets) // 8}Q", offsets))


@functools.lru_cache(maxsize=32)
def _unaligned_bits(count: int, page_size: int) -> int:
    """The bits that must be clear in `count` offsets read as one big-endian number."""
    return int.from_bytes((page_size - 1).to_bytes(8, "big") * count, "big")


class MultifdReader:
    """One channel's packets."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state

    def channel(self) -> Steps[None]:
        """Hello, then packets up to the end of the channel."""
        yield (yield from self.feed.read(MultifdHello))
        while not (yield from self.feed.at_end()):
            yield (yield from self._packet())

    def _packet(self) -> Steps[Record]:
        feed = self.feed
        start = feed.offset
        feed.expect("MultifdPacket", MultifdOpening.requirement)
        view = yield from feed.need(OPENING_SIZE)
        record = "MultifdPacket"
        try:
            opening, _ = MultifdOpening.decode(view)
            if opening.flags & _DEVICE_STATE:
                record = "MultifdDeviceState"
                return (yield from self._device_state())
            return (yield from self._ram(start))
        except LocalProtocolError as error:
            raise localised(error, offset=start, record=record) from None

    def _device_state(self) -> Steps[MultifdDeviceState]:
        feed = self.feed
        feed.expect("MultifdDeviceState", MultifdDeviceState.requirement)
        head = MultifdDeviceState.minimum()
        view = yield from feed.need(head)
        size = int.from_bytes(view[head - 4 : head], "big")
        flags = int.from_bytes(view[8:OPENING_SIZE], "big")
        _check_device_state(flags, bytes(view[OPENING_SIZE : head - 8]), size)
        return (yield from feed.read(MultifdDeviceState))

    def _ram(self, start: int) -> Steps[MultifdPacket]:
        feed = self.feed
        feed.expect("MultifdPacket", MultifdPacket.requirement)
        room = yield from self._room()
        page_size = PACKET_PAGES_SIZE // room
        end = HEAD_SIZE + 8 * room
        head, _ = MultifdPacketHead.decode((yield from feed.need(end)))
        _check_head(head, room)
        size = payload_size(head, page_size)
        if size > limits.MULTIFD_PAYLOAD:
            raise feed.limit(f"next_packet_size {size}, the limit is {limits.MULTIFD_PAYLOAD}")
        view = yield from feed.need(end + size)
        packet = MultifdPacket(
            **head.values(), page_size=page_size, offsets=view[HEAD_SIZE:end], payload=view[end:]
        )
        self._check_offsets(packet)
        feed.skip(len(view))
        return packet.place(start, len(view))

    def _room(self) -> Steps[int]:
        """Pages that a packet can hold, which decides how long its head is.

        The target page size may not be known here: main says it for some targets only. A
        packet with pages says it too. A SYNC packet of 9.2+ does not: it is as long as the
        distance to the next packet shows; the usual length is taken without looking further."""
        feed, state = self.feed, self.state
        if state.page_size is not None:
            return PACKET_PAGES_SIZE // state.page_size
        view = yield from feed.need(OPENING_SIZE + 4)
        room = int.from_bytes(view[OPENING_SIZE:], "big")
        if room:
            if room & (room - 1) or not 8 <= room <= 2048:
                raise feed.error(f"pages_alloc {room} fits no target page size", "LEG-MFD-014")
            state.page_size = PACKET_PAGES_SIZE // room
            return room
        for room in _FEWER_PAGES:
            end = HEAD_SIZE + 8 * room
            if bytes((yield from feed.need(end + len(_OPENING)))[end:]) == _OPENING:
                state.page_size = PACKET_PAGES_SIZE // room
                return room
        return PACKET_PAGES_SIZE // state.target_page_size

    def _check_offsets(self, packet: MultifdPacket) -> None:
        """QEMU's own checks, for all pages at once. Without a block list there is nothing to check."""
        if not packet.pages or not self.state.blocks:
            return
        block = self.state.blocks.get(packet.block)
        if block is None:
            raise self.feed.error(f"pages of unknown RAM block {packet.block!a}", "LEG-MFD-017")
        used = memoryview(packet.offsets)[: 8 * packet.pages]
        if int.from_bytes(used, "big") & _unaligned_bits(packet.pages, packet.page_size):
            raise self.feed.error(f"an offset in {block.idstr!a} is not page-aligned", "LEG-MFD-018")
        last = max(_native(used))
        if last + packet.page_size > block.used_length:
            raise self.feed.error(
                f"offset {last:#x} is outside {block.idstr!a} ({block.used_length:#x} bytes)", "LEG-MFD-018"
            )


class MultifdReceiver(Channel):
    """Reads a multifd channel: `MultifdHello`, then `MultifdPacket` and `MultifdDeviceState`.

    With the block list of main in `state`, names and offsets are checked against it.
    `offset` is the absolute offset of the first byte given."""

    def __init__(self, state: StreamState | None = None, *, offset: int = 0) -> None:
        self.state = state or StreamState()
        feed = Feed(offset)
        super().__init__(feed, MultifdReader(feed, self.state).channel())
