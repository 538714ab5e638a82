"""RAM at the end of a stream, as one sparse file for each RAM block.

Rule 1: a block's name comes from the wire: only letters, digits and a few marks of it become a file
name, the rest is percent-encoded, so no name leaves the folder or meets another.
Rule 2: files are mapped shared and grow by the pages that are not zero; none of it is private memory.
Rule 3: a block of which no page came (ignored ones, say) leaves no file: zeros would be a lie.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from qmig.cli.exits import CommandError, Exit
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.legacy.header import FileHeader
from qmig.legacy.ramimage import RamImage

if TYPE_CHECKING:
    from qmig.legacy.inflate import Inflater
    from qmig.legacy.multifd import MultifdPacket

#: bytes of an encoded name before it is cut and told apart by a hash
LONGEST: Final = 160
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


class Extractor:
    """Applies the events of a story to files in one folder."""

    def __init__(self, folder: str, *, room: int | None) -> None:
        """`room` bounds how many bytes the stream can fill, None if that is not known."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._room = room
        self._attempt = 0
        self._image = RamImage(self._open)
        self._files: dict[str, tuple[Path, mmap.mmap]] = {}
        self._listed = 0
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
            path, memory = self._files.pop(idstr)
            image.memory = None
            sent = image.counts.total > 0
            _close(memory)
            if not sent:
                path.unlink()
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
        return found

    def _restart(self, attempt: int) -> None:
        """A second attempt sends everything again."""
        self.finish()
        self._attempt = attempt
        self._listed = 0
        self._image = RamImage(self._open)
        self._inflaters.clear()
        self._broken.clear()

    def _open(self, idstr: str, length: int) -> mmap.mmap | bytearray:
        self._listed += length
        status = os.statvfs(self.folder)
        free = status.f_bavail * status.f_frsize
        need = self._listed if self._room is None else min(self._listed, self._room)
        if need > free:
            raise CommandError(
                f"{self.folder}: up to {need} bytes are needed, {free} are free", Exit.ENVIRONMENT
            )
        path = self.folder / file_name(idstr)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, length)
            memory = mmap.mmap(descriptor, length) if length else cast(Any, bytearray())
        finally:
            os.close(descriptor)
        self._files[idstr] = path, memory
        return cast(mmap.mmap, memory)

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


def _close(memory: Any) -> None:
    if isinstance(memory, mmap.mmap):
        try:
            memory.close()
        except BufferError:
            memory.flush()  # a view of it is still held; the mapping goes with that
