"""Where rebuilt RAM is kept: sparse files, one per block, or memory of our own; and how it is compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from qmig._wire import Raw
from qmig.errors import QmigError
from qmig.legacy.ramimage import BlockImage, RamImage

#: bytes that are compared or digested at a time
_PIECE: Final = 4 << 20

#: longest file name that file systems take
_NAME_MAX = 255


class RamFile:
    """One block in a file. Errors are the operating system's (`OSError`: disk full, too large…)."""

    def __init__(self, path: Path, length: int, fd: int | None = None) -> None:
        """A new file, or the one that `fd` is open at, which is taken over."""
        self.path = path
        self._fd = (
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600) if fd is None else fd
        )
        try:
            os.truncate(self._fd, length)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, offset: int, pieces: Sequence[Raw]) -> None:
        done = os.pwritev(self._fd, pieces, offset)
        left = sum(map(len, pieces)) - done
        if left:
            rest = b"".join(pieces)[done:]
            while rest:
                offset, done = offset + done, 0
                done = os.pwrite(self._fd, rest, offset)
                rest = rest[done:]

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        os.close(self._fd)


class RamMemory:
    """Anonymous memory, one piece per block. `open_block` is what `RamImage` asks for memory.

    Only pages that were written take room. Closed, it is gone."""

    def __init__(self) -> None:
        self.files: dict[str, RamFile] = {}

    def open_block(self, idstr: str, length: int) -> RamFile:
        """New memory of `length` zeros for this block."""
        found = self.files[idstr] = self._open(idstr, length)
        return found

    def _open(self, idstr: str, length: int) -> RamFile:
        fd = os.memfd_create("qmig-ram", os.MFD_CLOEXEC)
        return RamFile(Path(f"/proc/self/fd/{fd}"), length, fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self.files.values():
            file.close()


class RamFolder(RamMemory):
    """A folder of RAM files. Files are created, never overwritten (`FileExistsError`), readable by their
    owner only."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _open(self, idstr: str, length: int) -> RamFile:
        self.folder.mkdir(parents=True, exist_ok=True)
        return RamFile(self.folder / file_name(idstr), length)


class Ram:
    """The rebuilt RAM of a migration, by block."""

    def __init__(self, image: RamImage) -> None:
        self._image = image

    @property
    def blocks(self) -> Mapping[str, BlockImage]:
        """The blocks so far, with what is known of their pages."""
        return self._image.blocks

    def read(self, idstr: str, offset: int, size: int) -> bytes:
        """What is in a block now; zeros where nothing came. Raises `QmigError` for a block that is not
        kept, or a range outside it."""
        block = self.blocks.get(idstr)
        if block is None or block.store is None or not 0 <= offset <= offset + size <= block.length:
            raise QmigError(f"{offset:#x}+{size:#x} of RAM block {idstr!a} is not kept")
        return block.store.read(offset, size).ljust(size, b"\0")

    def digest(self, idstr: str) -> str:
        """SHA-256 of a whole block, in hexadecimal."""
        import hashlib

        made = hashlib.sha256()
        for offset, size in _pieces([(0, self.blocks[idstr].length)]):
            made.update(self.read(idstr, offset, size))
        return made.hexdigest()

    def differences(
        self, idstr: str, path: Path, ranges: Iterable[tuple[int, int]] | None = None, *, most: int = 16
    ) -> list[int]:
        """Offsets of the pages (4 KiB) of a block that differ from a file of the same layout, the first
        `most` of them; `ranges` (offset, length) are those that are looked at, all of it by default."""
        found: list[int] = []
        whole = [(0, self.blocks[idstr].length)]
        with path.open("rb") as file:
            for offset, size in _pieces(whole if ranges is None else ranges):
                file.seek(offset)
                theirs, ours = file.read(size).ljust(size, b"\0"), self.read(idstr, offset, size)
                if theirs == ours:
                    continue
                for at in range(0, size, 4096):
                    if theirs[at : at + 4096] != ours[at : at + 4096]:
                        found.append(offset + at)
                        if len(found) == most:
                            return found
        return found


def _pieces(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for at in range(offset, offset + length, _PIECE):
            yield at, min(_PIECE, offset + length - at)


def file_name(idstr: str) -> str:
    """A name from the wire as a file name: `/rom@etc/acpi/tables` → `%2From@etc%2Facpi%2Ftables.ram`.

    Nothing in it can leave the folder; different names stay different."""
    name = quote(idstr.encode("utf-8", "surrogateescape"), safe="@: +,=~^()[]{}!$&';#").replace("..", ".%2E")
    if len(name) > _NAME_MAX - 4:
        import hashlib

        digest = hashlib.sha256(idstr.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        name = f"{name[: _NAME_MAX - 40]}~{digest}"
    return f"{name}.ram"
