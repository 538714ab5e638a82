"""RAM at the end of a stream, as one sparse file for each RAM block.

Rule 1: a block's name comes from the wire: only letters, digits and a few marks of it become a file
name, the rest is percent-encoded, so no name leaves the folder or meets another.
Rule 2: what is written goes to the file at once, so memory stays small, and a full disk is an error like
any other. Zero pages are left out where nothing was: the files are sparse.
Rule 3: a block of which no page came (ignored ones, say) leaves no file: zeros would be a lie.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from qmig._wire import Raw
from qmig.cli.writer import Writer
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.legacy.header import FileHeader
from qmig.legacy.ramimage import RamImage

if TYPE_CHECKING:
    from qmig.legacy.inflate import Inflater
    from qmig.legacy.multifd import MultifdPacket

#: bytes of an encoded name before it is cut and told apart by a hash
LONGEST: Final = 160
#: files kept open at once
OPEN_FILES: Final = 128
_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9_@.,:+=-]")


class Extracted(NamedTuple):
    """One block. `file` is None if no page of it came; `never_sent` and `stale` (discarded and not sent
    again) count pages, None if that is not known."""

    attempt: int
    block: str
    file: str | None
    length: int
    never_sent: int | None
    stale: int


def file_name(idstr: str) -> str:
    """A name for the block's file: different for different blocks, also where case does not count."""
    raw = idstr.encode("utf-8", "surrogateescape")
    name = _UNSAFE.sub(lambda found: b"%%%02x" % found[0][0], raw).decode("ascii")
    if name.startswith(".") or not name:
        name = "%2e" + name[1:] if name else "%"
    folded = name.lower() != name
    if len(name) > LONGEST or folded:
        name = f"{name[:LONGEST]}~{hashlib.sha256(raw).hexdigest()[:12]}"
    return name


class FileStore:
    """One block's memory in a file, which is made when the first byte goes into it."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self.path = path
        self._pool = pool

    def write(self, offset: int, pieces: Sequence[Raw]) -> None:
        self._pool.writer.write(self._pool.descriptor(self.path), offset, pieces)

    def read(self, offset: int, size: int) -> bytes:
        self._pool.writer.settle()
        return os.pread(self._pool.descriptor(self.path), size, offset).ljust(size, b"\0")


class Pool:
    """Open files, a bounded number of them, and what writes to them."""

    def __init__(self) -> None:
        self.writer = Writer()
        self._open: dict[Path, int] = {}
        self._made: set[Path] = set()

    def descriptor(self, path: Path) -> int:
        found = self._open.get(path)
        if found is None:
            if len(self._open) >= OPEN_FILES:
                self._close_files()
            fresh = 0 if path in self._made else os.O_CREAT | os.O_EXCL
            self._made.add(path)
            found = self._open[path] = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | fresh, 0o600)
        return found

    def close(self) -> None:
        """Closes the files when all is written; the pool can be used on."""
        self._close_files()
        self.writer.close()

    def _close_files(self) -> None:
        try:
            self.writer.settle()
        finally:
            while self._open:
                os.close(self._open.popitem()[1])


class Extractor:
    """Applies the events of a story to files in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._attempt = 0
        self._pool = Pool()
        self._image = RamImage(self._open)
        self._inflaters: dict[str, Inflater] = {}
        self._broken: set[str] = set()  # channels whose pages cannot be applied any more

    def apply(self, told: Told) -> RemoteProtocolError | None:
        """Takes the next event; returns what is wrong with its content, if anything is."""
        event = told.event
        if type(event) is FileHeader and told.attempt != self._attempt:
            self._restart(told.attempt)
        if told.channel in self._broken:
            return None
        try:
            if told.channel.startswith("multifd"):
                self._packet(told)
            else:
                self._image.apply(event, told.channel)
        except RemoteProtocolError as error:
            error.channel = told.channel
            if told.channel.startswith("multifd"):
                self._broken.add(told.channel)  # the rest depends on what could not be inflated
            return error
        except LocalProtocolError as error:
            self._broken.add(told.channel)
            return RemoteProtocolError(
                f"its RAM cannot be rebuilt: {error.message}",
                requirement=error.requirement,
                offset=event.offset,
                record=type(event).__name__,
                channel=told.channel,
            )
        return None

    def finish(self) -> list[Extracted]:
        """Closes the files; what became of each block, in the order of the list."""
        found = []
        for idstr, image in self._image.blocks.items():
            path = self.folder / file_name(idstr)
            # A bitmap speaks of every page: a block of which no page is in the file is zero, not unknown.
            sent = image.counts.total > 0 or image.never_sent == 0
            if sent:
                os.ftruncate(self._pool.descriptor(path), image.length)
            found.append(
                Extracted(
                    attempt=self._attempt or 1,
                    block=idstr,
                    file=str(path) if sent else None,
                    length=image.length,
                    never_sent=image.never_sent,
                    stale=image.stale.count(),
                )
            )
        self._pool.close()
        return found

    def _restart(self, attempt: int) -> None:
        """A second attempt sends everything again."""
        self._pool.close()
        self._pool = Pool()
        self._attempt = attempt
        self._image = RamImage(self._open)
        self._inflaters.clear()
        self._broken.clear()

    def _open(self, idstr: str, length: int) -> FileStore:
        path = self.folder / file_name(idstr)
        path.unlink(missing_ok=True)  # of an earlier attempt, or an earlier run
        return FileStore(path, self._pool)

    def _packet(self, told: Told) -> None:
        if not getattr(told.event, "pages", 0):
            return
        packet = cast("MultifdPacket", told.event)
        if packet.zero_pages:
            self._image.apply_zero(packet.block, packet.zero_offsets(), packet.page_size, turn=told.round)
        if packet.normal_pages:
            inflater = self._inflaters.get(told.channel)
            if inflater is None:
                from qmig.legacy.inflate import Inflater

                inflater = self._inflaters[told.channel] = Inflater()
            content = inflater.pages(packet)
            self._image.apply_pages(packet.block, packet.normal_offsets(), content, turn=told.round)
