"""Files that hold migration channels: opening, recognising, finding what belongs together.

Rule 1: what a file is, its first bytes say. Its name counts only for what has no magic.
Rule 2: a plain file is mapped and given in one piece. A pipe, and what must be unpacked, comes
in pieces of bounded size.
Rule 3: an input that cannot be used is an error of usage (exit 2); what is wrong inside a
stream is a finding (exit 1).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from qmig.cli.exits import CommandError
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.channels import parse_name

if TYPE_CHECKING:
    from qmig.legacy.containers import LibvirtFormat

Data = bytes | memoryview

PIECE: Final = 1 << 20
#: bytes looked at to recognise an input
HEAD: Final = 64
#: packed files, by their first bytes: names of `LibvirtFormat`
_PACKED: Final = {
    b"\x1f\x8b": "GZIP",
    b"BZh": "BZIP2",
    b"\xfd7zXZ\x00": "XZ",
    b"\x28\xb5\x2f\xfd": "ZSTD",
}
#: bytes of a meta.json: those of recordings are under 100 KiB
META: Final = 16 << 20
#: bytes searched for the beginning of a stream, to name it in an error
SEARCH: Final = 4 << 20
_QEVM: Final = b"QEVM\0\0\0\x03"
#: where a multifd channel's first packet has its id
MULTIFD_ID: Final = 24
#: `ChannelKind` -> channel
_NAMES: Final = {
    "MAIN": "main",
    "RECOVERY": "main",
    "MULTIFD": "multifd-0",
    "PREEMPT": "preempt",
    "RETURN_PATH": "rp",
    "TLS": "tls-0",
    "CPR": "cpr",
}
_CHANNEL_WORD: Final = re.compile(
    r"(|.*[^0-9A-Za-z])((?:main|rp|preempt|cpr|multifd-\d+|tls-\d+)(?:-\d+)?(?:\.rp)?)(|[^0-9A-Za-z].*)"
)
_QCOW2: Final = b"QFI\xfb"
_LIBVIRT: Final = (b"LibvirtQemudSave", b"LibvirtQemudPart")


class Input:
    """The bytes of one channel. `offset` is the absolute offset of the first of them; `size`
    how many there are, None where that is not known before the end."""

    def __init__(
        self, path: str, chunks: Iterator[Data], *, offset: int = 0, size: int | None = None, note: str = ""
    ) -> None:
        self.path = path
        self.offset = offset
        self.size = size
        self.note = note  # what it was found in
        self.channel = ""
        self.given = 0
        self._chunks = chunks
        self._head: list[Data] = []

    def head(self, size: int = HEAD) -> bytes:
        """The first bytes, not consumed."""
        have = sum(map(len, self._head))
        while have < size and (chunk := next(self._chunks, None)) is not None:
            self._head.append(chunk)
            have += len(chunk)
        return b"".join(bytes(memoryview(chunk)[:size]) for chunk in self._head)[:size]

    def next(self) -> Data:
        """The next bytes; empty at the end."""
        while True:
            chunk = self._head.pop(0) if self._head else next(self._chunks, b"")
            if len(chunk) or not self._head:
                self.given += len(chunk)
                return chunk


def open_input(path: str, *, offset: int = 0, snapshot: str | None = None) -> Input:
    """Opens a file (`-`: standard input). Raises `CommandError` or `OSError` for what is unusable."""
    if path == "-":
        if offset or snapshot is not None:
            raise CommandError("--offset and --snapshot need a file that can be read at any place, not '-'")
        if sys.stdin is None:
            raise CommandError("standard input is closed; give a file")
        return _unwrapped("standard input", _pieces(sys.stdin.buffer))
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            if offset or snapshot is not None:
                raise CommandError(f"{path}: --offset and --snapshot need a regular file")
            return _unwrapped(path, _pieces(os.fdopen(os.dup(file.fileno()), "rb", 0)))
        if not status.st_size:
            raise CommandError(f"{path}: is empty; nothing to decode")
        whole = _mapped(file, status.st_size)
    if _packing(bytes(whole[:HEAD])):
        return _unwrapped(path, iter((whole,)), skip=offset)
    if offset >= len(whole):
        raise CommandError(f"{path}: has {len(whole)} bytes, --offset is {offset}; nothing to decode")
    if bytes(whole[offset : offset + 4]) == _QCOW2:
        return _in_qcow2(path, whole[offset:], snapshot)
    if snapshot is not None:
        raise CommandError(f"{path}: not a qcow2 image, so --snapshot names nothing in it")
    return _unwrapped(path, iter((whole[offset:],)), offset=offset, size=len(whole) - offset)


def _mapped(file: IO[bytes], size: int) -> memoryview:
    import mmap

    region = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    region.madvise(mmap.MADV_SEQUENTIAL)
    return memoryview(region)


def _pieces(file: IO[bytes]) -> Iterator[Data]:
    while chunk := file.read(PIECE):
        yield chunk


def _packing(head: bytes) -> str | None:
    return next((name for sign, name in _PACKED.items() if head.startswith(sign)), None)


def _unwrapped(
    path: str, chunks: Iterator[Data], *, offset: int = 0, size: int | None = None, skip: int = 0
) -> Input:
    """Takes off compression, then libvirt's header (and its compression); `skip` counts unpacked bytes."""
    source = Input(path, chunks, offset=offset, size=size)
    head = source.head()
    if not head:
        raise CommandError(f"{path}: is empty; nothing to decode")
    packed = _packing(head)
    if packed is not None:
        from qmig.legacy.containers import LibvirtFormat

        unpacked = _skipped(_unpacked(path, source, LibvirtFormat[packed]), skip)
        source = Input(path, unpacked, offset=skip, note=packed.lower())
        if not source.head():
            problem = f"has {skip} bytes or less" if skip else "is empty"
            raise CommandError(f"{path}: {problem} when unpacked; nothing to decode")
    return _in_libvirt(source) if source.head().startswith(_LIBVIRT) else source


def _unpacked(path: str, source: Input, format: LibvirtFormat) -> Iterator[Data]:
    from qmig.legacy.unpack import Unpacker

    unpacker = Unpacker(format, offset=source.offset)
    try:
        while chunk := source.next():
            # a mapped file is one chunk: it must not be unpacked in one go
            for at in range(0, len(chunk), PIECE):
                yield from unpacker.feed(memoryview(chunk)[at : at + PIECE])
        unpacker.finish()
    except RemoteProtocolError as error:
        raise CommandError(f"{path}: {error}; the file is damaged or incomplete") from None


def _skipped(chunks: Iterator[Data], skip: int) -> Iterator[Data]:
    for chunk in chunks:
        rest = memoryview(chunk)[skip:]
        skip -= min(skip, len(chunk))
        if rest:
            yield rest


def _in_libvirt(source: Input) -> Input:
    from qmig.legacy.containers import LibvirtFormat, LibvirtSaveReceiver
    from qmig.legacy.receiver import NEED_DATA

    reader = LibvirtSaveReceiver(offset=source.offset)
    try:
        while reader.save is None:
            if reader.next_event() is NEED_DATA:
                reader.receive_data(source.next())
    except RemoteProtocolError as error:
        raise CommandError(f"{source.path}: libvirt header: {error}") from None
    save = reader.save
    state = "" if save.complete else ", not finished"
    note = f"libvirt save file ({save.format.name.lower()}{state})"
    rest = Input(source.path, _rest(reader.rest(), source), offset=save.payload)
    if save.format in (LibvirtFormat.RAW, LibvirtFormat.SPARSE):
        rest.note = note
        rest.size = source.size and source.offset + source.size - save.payload
        return rest
    return Input(source.path, _unpacked(source.path, rest, save.format), note=note)


def _rest(first: memoryview, source: Input) -> Iterator[Data]:
    yield first
    while chunk := source.next():
        yield chunk


def _in_qcow2(path: str, image: memoryview, name: str | None) -> Input:
    """The state of one internal snapshot; without a name, of the only one."""
    from qmig.legacy import qcow2

    def read(offset: int, length: int) -> memoryview:
        return image[offset : offset + length]

    try:
        opened = qcow2.run(qcow2.open_image(len(image)), read)
        found = [s for s in qcow2.run(qcow2.read_snapshots(opened), read) if s.vm_state_size]
    except RemoteProtocolError as error:
        raise CommandError(f"{path}: {error}") from None
    names = ", ".join(s.name for s in found) or "none"
    wanted = found[0] if name is None and len(found) == 1 else None
    if name is not None:
        wanted = qcow2.find_snapshot(found, name)
    if wanted is None:
        problem = f"no snapshot {name!a} with a machine's state" if name is not None else "a qcow2 image"
        raise CommandError(f"{path}: {problem}; choose one with --snapshot NAME: {names}")

    def chunks() -> Iterator[Data]:
        try:
            for chunk in qcow2.vmstate_chunks(opened, wanted, read):
                yield bytes(chunk) if isinstance(chunk, bytearray) else chunk
        except RemoteProtocolError as error:
            raise CommandError(f"{path}: {error}") from None

    return Input(path, chunks(), size=wanted.vm_state_size, note=f"snapshot {wanted.name} of a qcow2 image")


def recognise(source: Input, likely: str | None = None) -> str:
    """The name of the channel that this input is; `likely` is what its file name says.

    Raises `CommandError` for what is none."""
    head = source.head()
    if head.startswith(_QEVM):
        return likely if likely is not None and _same("main", likely) else "main"
    from qmig.legacy.identify import Certainty, ChannelKind, identify

    found = identify(head)
    name = _NAMES.get(found.kind.name)
    if found.kind is ChannelKind.MULTIFD and len(head) > MULTIFD_ID:
        name = f"multifd-{head[MULTIFD_ID]}"
    if likely is not None:
        unmarked = parse_name(likely).kind in ("rp", "preempt") and found.certainty < Certainty.CERTAIN
        if unmarked or (name is not None and _same(name, likely)):
            return likely
    if name is None:
        later = source.head(SEARCH).find(_QEVM)
        hint = f"one seems to begin at byte {source.offset + later}: name it with --offset"
        raise CommandError(
            f"{source.path}: no migration stream begins with {head[:8].hex(' ')}; "
            + (hint if later > 0 else "if it begins later in the file, name the place with --offset")
        )
    return name


def _same(one: str, other: str) -> bool:
    return parse_name(one).kind == parse_name(other).kind


class Neighbours(NamedTuple):
    """What the folder of a file says: which channel it is (None: nothing), and files of others."""

    channel: str | None
    others: dict[str, str]


def neighbours(path: str) -> Neighbours:
    """Looks beside a file: at a `meta.json` that knows it, else at the file names."""
    if path == "-":
        return Neighbours(None, {})
    folder, file = os.path.split(path)
    found = _listed(folder, file) or _beside(folder, file)
    others = {name: other for name, other in found.others.items() if os.path.isfile(other)}
    return Neighbours(found.channel, others)


def read_meta(path: str) -> Any:
    """The JSON in a recording's meta.json; None: it is none, or over `META` bytes. Raises `OSError`."""
    import json

    with open(path, "rb") as file:
        text = file.read(META + 1)
    try:
        return json.loads(text) if len(text) <= META else None
    except (ValueError, RecursionError):
        return None


def meta_beside(folder: str) -> Any:
    """`read_meta` of the folder; None where it has no such file. A pipe there is not waited for."""
    path = os.path.join(folder, "meta.json")
    try:
        return read_meta(path) if os.path.isfile(path) else None
    except OSError:
        return None


def _listed(folder: str, file: str) -> Neighbours | None:
    """What the `meta.json` in the same folder says, if it knows this file."""
    try:
        names = list(_channels(meta_beside(folder)["channels"]))
    except (KeyError, TypeError, AttributeError):
        return None  # one of another program
    safe = {name: other for name, other in names if os.path.basename(other) == other and _is_channel(name)}
    own = next((name for name, other in safe.items() if other == file), None)
    if own is None:
        return None
    return Neighbours(own, {name: os.path.join(folder, other) for name, other in safe.items() if name != own})


def _channels(channels: list[Any]) -> Iterator[tuple[str, str]]:
    for channel in channels:
        name = str(channel["name"])
        if "forward" in channel:  # otherwise nothing travelled in that direction
            yield name, str(channel["forward"]["file"])
        if "reverse" in channel:
            back = "rp" + name.removeprefix("main") if name.startswith("main") else f"{name}.rp"
            yield back, str(channel["reverse"]["file"])


def _beside(folder: str, file: str) -> Neighbours:
    """`main.bin.xz` goes with `multifd-0.bin.xz`, `guest.main` with `guest.multifd-0`."""
    found = _CHANNEL_WORD.fullmatch(file)
    if not found:
        return Neighbours(None, {})
    before, own, after = found.groups()
    others = {}
    for other in sorted(os.listdir(folder or ".")):
        name = other[len(before) : len(other) - len(after)]
        if other == before + name + after and name != own and _is_channel(name):
            others[name] = os.path.join(folder, other)
    return Neighbours(own, others)


def _is_channel(name: str) -> bool:
    try:
        parse_name(name)
    except LocalProtocolError:
        return False
    return True
