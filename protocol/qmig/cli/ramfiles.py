"""Rebuilt RAM as sparse files, one per block."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from qmig._wire import Raw

#: longest file name that file systems take
_NAME_MAX = 255


class RamFile:
    """One block in a file. Errors are the operating system's (`OSError`: disk full, too large…)."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.truncate(self._fd, length)

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


class RamFolder:
    """A folder of RAM files. `open_block` is what `RamImage` asks for memory.

    Files are created, never overwritten (`FileExistsError`), readable by their owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, RamFile] = {}

    def open_block(self, idstr: str, length: int) -> RamFile:
        """A new sparse file of `length` zeros for this block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.files[idstr] = RamFile(self.folder / file_name(idstr), length)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self.files.values():
            file.close()


def file_name(idstr: str) -> str:
    """A name from the wire as a file name: `/rom@etc/acpi/tables` → `%2From@etc%2Facpi%2Ftables.ram`.

    Nothing in it can leave the folder; different names stay different."""
    name = quote(idstr.encode("utf-8", "surrogateescape"), safe="@: +,=~^()[]{}!$&';#").replace("..", ".%2E")
    if len(name) > _NAME_MAX - 4:
        import hashlib

        digest = hashlib.sha256(idstr.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        name = f"{name[: _NAME_MAX - 40]}~{digest}"
    return f"{name}.ram"
