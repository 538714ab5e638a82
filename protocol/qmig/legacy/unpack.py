"""Payload of a libvirt save file, unpacked piece by piece.

Rule 1: one piece is at most `limits.INFLATE_PIECE` bytes (zstd: what 512 bytes of input
can become, 16 MiB), whatever the input says.
Rule 2: packed files may be concatenated. What stands behind the last one and does not
begin as another is counted, and otherwise ignored, as the programs do that libvirt runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from qmig import limits
from qmig._wire import Raw
from qmig.errors import RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy.containers import LibvirtFormat

#: input given to a decompressor at a time: some copy what they did not use yet
_SLICE: Final = 64 * 1024
#: zstd has no bound for the output of a call; a block of 4 bytes may stand for 128 KiB
_ZSTD_SLICE: Final = 512


class _Packing(NamedTuple):
    """How one algorithm is unpacked. `coder` makes a decompressor for one packed file."""

    first_byte: int
    coder: Callable[[], Any]
    step: Callable[[Any, memoryview], tuple[bytes, memoryview]]
    errors: Callable[[], tuple[type[Exception], ...]]


def _gzip() -> Any:
    import zlib

    return zlib.decompressobj(wbits=31)


def _gzip_step(coder: Any, data: memoryview) -> tuple[bytes, memoryview]:
    output = coder.decompress(data, limits.INFLATE_PIECE)
    return output, memoryview(coder.unused_data if coder.eof else coder.unconsumed_tail)


def _gzip_errors() -> tuple[type[Exception], ...]:
    import zlib

    return (zlib.error,)


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=limits.INFLATE_WINDOW)


def _xz_errors() -> tuple[type[Exception], ...]:
    import lzma

    return (lzma.LZMAError,)


def _buffering_step(coder: Any, data: memoryview) -> tuple[bytes, memoryview]:
    """bz2 and lzma keep the input that did not fit and go on with it when asked again."""
    output = coder.decompress(data, limits.INFLATE_PIECE)
    return output, memoryview(coder.unused_data if coder.eof else b"")


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=limits.INFLATE_WINDOW).decompressobj()


def _zstd_step(coder: Any, data: memoryview) -> tuple[bytes, memoryview]:
    output = coder.decompress(data[:_ZSTD_SLICE])
    rest = data[_ZSTD_SLICE:]
    return output, memoryview(coder.unused_data + bytes(rest)) if coder.eof else rest


def _zstd_errors() -> tuple[type[Exception], ...]:
    import zstandard

    return (zstandard.ZstdError,)


_PACKINGS: Final[dict[LibvirtFormat, _Packing]] = {
    LibvirtFormat.GZIP: _Packing(0x1F, _gzip, _gzip_step, _gzip_errors),
    LibvirtFormat.BZIP2: _Packing(0x42, _bzip2, _buffering_step, lambda: (OSError,)),
    LibvirtFormat.XZ: _Packing(0xFD, _xz, _buffering_step, _xz_errors),
    LibvirtFormat.ZSTD: _Packing(0x28, _zstd, _zstd_step, _zstd_errors),
}


class Unpacker:
    """Payload bytes in, stream bytes out. `offset` is the payload's absolute offset.

    Raises `UnsupportedFeature` for a format that needs a program we do not have."""

    def __init__(self, format: LibvirtFormat, *, offset: int = 0) -> None:
        self.format = format
        self.offset = offset
        #: bytes behind the packed data that are no packed data
        self.trailing = 0
        self._coder: Any = None
        self._whole = False  # a packed file has ended
        self._packing = _PACKINGS.get(format)
        if self._packing is None and format not in (LibvirtFormat.RAW, LibvirtFormat.SPARSE):
            raise UnsupportedFeature(
                f"payload packed with {format.name.lower()}, which nothing here can unpack",
                requirement="LEG-LBV-020",
                offset=offset,
                record="payload",
            )

    def feed(self, data: Raw) -> Iterator[Raw]:
        """Takes the next bytes of the payload, yields those of the stream in bounded pieces.

        Raises `RemoteProtocolError` where the input is not of the format."""
        rest = memoryview(data)
        if self._packing is None:
            self.offset += len(rest)
            yield from (
                rest[at : at + limits.INFLATE_PIECE] for at in range(0, len(rest), limits.INFLATE_PIECE)
            )
            return
        for at in range(0, len(rest), _SLICE):
            yield from self._unpack(self._packing, rest[at : at + _SLICE])

    def _unpack(self, packing: _Packing, rest: memoryview) -> Iterator[bytes]:
        while True:
            if self._coder is None:
                if self._whole and rest and (self.trailing or rest[0] != packing.first_byte):
                    self.trailing += len(rest)
                    self.offset += len(rest)
                    return
                if not rest:
                    return
                self._coder = packing.coder()
            output, rest = self._step(packing, rest)
            if output:
                yield output
            if self._coder.eof:
                self._coder = None
                self._whole = True
            elif not rest and len(output) < limits.INFLATE_PIECE:
                return

    def _step(self, packing: _Packing, data: memoryview) -> tuple[bytes, memoryview]:
        try:
            output, rest = packing.step(self._coder, data)
        except packing.errors() as problem:
            raise RemoteProtocolError(
                f"not {self.format.name.lower()}: {problem}",
                requirement="LEG-LBV-021",
                offset=self.offset,
                record="payload",
            ) from None
        self.offset += len(data) - len(rest)
        return output, rest

    def finish(self) -> None:
        """Says that the payload ends here. Raises `TruncatedStream` if it should not."""
        if self._packing is not None and (self._coder is not None or not self._whole):
            raise TruncatedStream(
                f"{self.format.name.lower()} payload ends in the middle",
                requirement="LEG-LBV-021",
                offset=self.offset,
                record="payload",
            )
