"""Makes pages of multifd payloads.

Source: migration/multifd-zlib.c, migration/multifd-zstd.c, and multifd.c for `none`.

Rule 1: zlib and zstd run as one stream per channel over the whole migration, so packets
have to be given in order and none may be left out.
Rule 2: a packet holds exactly `normal_pages` pages. Not one byte more is made of it,
however much it would expand to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from qmig import limits
from qmig._wire import Raw
from qmig.errors import RemoteProtocolError, UnsupportedFeature
from qmig.legacy.multifd import PACKET_PAGES_SIZE, MultifdFlag, MultifdPacket, method_name

if TYPE_CHECKING:
    import zlib


class Method(Protocol):
    """One channel's stream of one method."""

    def expand(self, payload: Raw, size: int) -> Raw:
        """The output that `payload` adds; more than `size` bytes may be cut to `size` + 1.

        Raises `BadPayload`."""
        ...


class BadPayload(Exception):
    """The payload is no continuation of the channel's compressed stream."""


class _Stored:
    """`none`: the payload is the pages."""

    def expand(self, payload: Raw, size: int) -> Raw:
        return payload


class _Zlib:
    """`zlib`: one zlib stream, brought to a byte boundary at the end of each packet."""

    def __init__(self) -> None:
        import zlib

        self._error = zlib.error
        self._stream: zlib._Decompress = zlib.decompressobj()

    def expand(self, payload: Raw, size: int) -> Raw:
        if self._stream.eof:
            raise BadPayload("the zlib stream has ended before")
        try:
            # one byte more than allowed, so that a longer output shows
            output = self._stream.decompress(payload, size + 1)
        except self._error as problem:
            raise BadPayload(f"zlib: {problem}") from None
        if len(output) <= size and self._stream.unused_data:
            raise BadPayload(f"{len(self._stream.unused_data)} bytes behind the end of the zlib stream")
        return output


class _Overflow(Exception):
    """More output than one packet may have."""


class _Sink:
    """Takes what zstd writes, up to a bound."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.room = 0

    def write(self, data: bytes) -> int:
        self.output += data[: self.room + 1 - len(self.output)]
        if len(self.output) > self.room:
            raise _Overflow
        return len(data)


class _Zstd:
    """`zstd`: one frame, flushed at the end of each packet."""

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._sink = _Sink()
        # With room for more than a packet's pages, one step takes all of the input: nothing
        # of this packet stays inside until the next one.
        self._stream = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW).stream_writer(
            cast(Any, self._sink), write_size=PACKET_PAGES_SIZE + 1
        )

    def expand(self, payload: Raw, size: int) -> Raw:
        sink = self._sink
        sink.output = bytearray()
        sink.room = size
        try:
            self._stream.write(payload)
        except self._error as problem:
            raise BadPayload(str(problem)) from None
        except _Overflow:
            pass
        return memoryview(sink.output)


_METHODS: Final[dict[int, Callable[[], Method]]] = {
    MultifdFlag.NOCOMP: _Stored,
    MultifdFlag.ZLIB: _Zlib,
    MultifdFlag.ZSTD: _Zstd,
}


class Inflater:
    """The decompressor of one multifd channel. After an error it is of no further use."""

    def __init__(self) -> None:
        self._method = 0
        self._stream: Method | None = None

    def pages(self, packet: MultifdPacket) -> Raw:
        """The content of the packet's normal pages, `normal_pages` × `page_size` bytes, in the
        order of `packet.normal`. Without compression it is the payload itself, not a copy.

        Raises `UnsupportedFeature` for a method that cannot be undone here, and
        `RemoteProtocolError` for a payload that is damaged or of another length."""
        if not packet.normal_pages:
            return b""
        stream = self._open(packet)
        size = packet.normal_pages * packet.page_size
        try:
            output = stream.expand(packet.payload, size)
        except BadPayload as problem:
            raise _error(packet, str(problem), _BY_METHOD[self._method]) from None
        if len(output) != size:
            made = f"more than {size}" if len(output) > size else str(len(output))
            raise _error(packet, f"the payload makes {made} bytes, {size} expected", "LEG-MFD-046")
        return output

    def _open(self, packet: MultifdPacket) -> Method:
        if self._stream is None:
            factory = _METHODS.get(packet.method)
            if factory is None:
                raise _unsupported(packet, "payloads of this method are kept as they came")
            try:
                self._stream = factory()
            except ImportError as problem:
                raise _unsupported(packet, f"install zstandard to decompress it ({problem})") from None
            self._method = packet.method
        elif packet.method != self._method:
            raise _error(
                packet,
                f"compression {packet.method_name}, {method_name(self._method)} expected",
                "LEG-MFD-034",
            )
        return self._stream


#: method -> the statement on its payload
_BY_METHOD: Final[dict[int, str]] = {
    MultifdFlag.NOCOMP: "LEG-MFD-040",
    MultifdFlag.ZLIB: "LEG-MFD-041",
    MultifdFlag.ZSTD: "LEG-MFD-042",
    MultifdFlag.QPL: "LEG-MFD-043",
    MultifdFlag.UADK: "LEG-MFD-044",
    MultifdFlag.QATZIP: "LEG-MFD-045",
}


def _payload_offset(packet: MultifdPacket) -> int:
    return packet.offset + packet.size - len(packet.payload)


def _error(packet: MultifdPacket, message: str, requirement: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        message, requirement=requirement, offset=_payload_offset(packet), record="MultifdPacket payload"
    )


def _unsupported(packet: MultifdPacket, why: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"compression {packet.method_name}: {why}",
        requirement=_BY_METHOD.get(packet.method, "LEG-MFD-036"),
        offset=_payload_offset(packet),
        record="MultifdPacket payload",
    )
