"""Makes payloads of pages: what `qmig.legacy.inflate` undoes.

Source: migration/multifd-zlib.c, migration/multifd-zstd.c.

zlib and zstd run as one stream per channel over the whole migration, flushed at the end of each packet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from qmig._wire import Raw
from qmig.errors import LocalProtocolError
from qmig.legacy.multifd import MultifdFlag, method_name


class Packer(Protocol):
    """One channel's stream of one method."""

    def pack(self, pages: Sequence[Raw]) -> bytes:
        """The payload of a packet with these pages."""
        ...


class _Stored:
    def pack(self, pages: Sequence[Raw]) -> bytes:
        return b"".join(pages)


class _Zlib:
    def __init__(self, level: int) -> None:
        import zlib

        self._flush = zlib.Z_SYNC_FLUSH
        self._stream = zlib.compressobj(level)

    def pack(self, pages: Sequence[Raw]) -> bytes:
        pieces = [self._stream.compress(page) for page in pages]
        return b"".join([*pieces, self._stream.flush(self._flush)])


class _Zstd:
    def __init__(self, level: int) -> None:
        import zstandard

        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._stream = zstandard.ZstdCompressor(level=level).compressobj()

    def pack(self, pages: Sequence[Raw]) -> bytes:
        pieces = [self._stream.compress(page) for page in pages]
        return b"".join([*pieces, self._stream.flush(self._flush)])


_PACKERS: Final[dict[int, Callable[[int], Packer]]] = {
    MultifdFlag.NOCOMP: lambda level: _Stored(),
    MultifdFlag.ZLIB: _Zlib,
    MultifdFlag.ZSTD: _Zstd,
}


def open_packer(method: int, level: int) -> Packer:
    """The compressor of one channel. Raises `LocalProtocolError` where there is none."""
    factory = _PACKERS.get(method)
    try:
        if factory is not None:
            return factory(level)
        why = "there is no compressor for this method"
    except ImportError as problem:
        why = f"install zstandard ({problem})"
    raise LocalProtocolError(f"compression {method_name(method)}: {why}", requirement="LEG-MFD-036")
