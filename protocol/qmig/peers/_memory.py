"""What the human monitor says of memory, and guest memory copied to files.

``info ramblock`` and ``info mtree -f`` have no QMP counterpart; both are the same from 5.2 to 11.1 but for
the columns HVA and RO, which newer builds add.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qmig.errors import EnvironmentProblem

_COPY = 4 << 20
_UNITS = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_BLOCK_ROW = re.compile(
    r"\s*(?P<idstr>\S.*?)\s+(?P<size>[\d.]+) (?P<unit>[KMGT]?i?B)"
    r"\s+0x(?P<offset>[0-9a-f]+)\s+0x(?P<used>[0-9a-f]+)\s+0x(?P<total>[0-9a-f]+)"
    r"(?:\s+0x(?P<host>[0-9a-f]+)\s+(?P<access>r[ow]))?\s*"
)
_RANGE_ROW = re.compile(
    r"\s+(?P<first>[0-9a-f]{16,})-(?P<last>[0-9a-f]{16,}) \(prio -?\d+, (?P<kind>[^)]+)\): (?P<region>.*?)"
    r"(?: @(?P<offset>[0-9a-f]{16,}))?(?: KVM)?"
)


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One row of ``info ramblock``; sizes in bytes."""

    idstr: str
    page_size: int
    #: in QEMU's ram_addr_t space, not guest-physical
    offset: int
    used_length: int
    max_length: int
    #: address in the QEMU process; None where the build does not tell it
    host_address: int | None
    readonly: bool | None


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """A range of the flat guest-physical map that one memory region serves."""

    address: int
    length: int
    #: ``ram``, ``rom``, ``romd``, ``i/o``, …
    kind: str
    region: str
    #: where in the region the range begins
    offset: int


def parse_ram_blocks(text: str) -> list[RamBlock]:
    """The answer of ``info ramblock``."""
    rows = [line for line in text.splitlines()[1:] if line.strip()]
    blocks = []
    for row in rows:
        match = _BLOCK_ROW.fullmatch(row)
        if match is None:
            raise EnvironmentProblem(f"'info ramblock' has a row that is not understood: {row.strip()!r}")
        host, access = match["host"], match["access"]
        blocks.append(
            RamBlock(
                idstr=match["idstr"],
                page_size=int(float(match["size"]) * (1 << _UNITS[match["unit"]])),
                offset=int(match["offset"], 16),
                used_length=int(match["used"], 16),
                max_length=int(match["total"], 16),
                host_address=int(host, 16) if host else None,
                readonly=access == "ro" if access else None,
            )
        )
    return blocks


def parse_memory_map(text: str) -> list[MemoryRange]:
    """The flat view of the address space ``memory`` in the answer of ``info mtree -f``."""
    for view in text.split("FlatView #")[1:]:
        if 'AS "memory", root: system' in view:
            return [_range(match) for line in view.splitlines() if (match := _RANGE_ROW.fullmatch(line))]
    raise EnvironmentProblem("'info mtree -f' shows no address space \"memory\"")


def _range(match: re.Match[str]) -> MemoryRange:
    first, last = int(match["first"], 16), int(match["last"], 16)
    return MemoryRange(
        first, last - first + 1, match["kind"], match["region"], int(match["offset"] or "0", 16)
    )


def ranges_of(
    block: RamBlock, blocks: Sequence[RamBlock], memory_map: Sequence[MemoryRange]
) -> list[MemoryRange]:
    """The parts of the map that show `block`, in order of their offset, each offset once.

    A region carries the block's whole idstr (main memory) or its last part (a device's own memory); where two
    blocks could be meant, none is.
    """
    regions = {block.idstr, block.idstr.rpartition("/")[2]}
    for other in blocks:
        if other is not block:
            regions -= {other.idstr, other.idstr.rpartition("/")[2]}
    mine = [
        part
        for part in memory_map
        if part.region in regions and part.kind in ("ram", "rom", "romd", "nv-ram")
    ]
    parts: list[MemoryRange] = []
    covered = 0
    for part in sorted(mine, key=lambda part: part.offset):
        skip = max(0, covered - part.offset)
        length = min(part.offset + part.length, block.used_length) - part.offset - skip
        if length > 0:
            parts.append(MemoryRange(part.address + skip, length, part.kind, part.region, part.offset + skip))
            covered = part.offset + skip + length
    return parts


def create_sparse(path: Path, length: int) -> None:
    """An empty file of `length`."""
    with path.open("wb") as file:
        file.truncate(length)


def move_into(piece: Path, path: Path, offset: int, length: int) -> None:
    """Copy a file of `length` bytes into another one at `offset`, and remove it."""
    with piece.open("rb") as source, path.open("r+b") as target:
        target.seek(offset)
        left = length
        while left and (data := source.read(min(_COPY, left))):
            _write_sparse(target.fileno(), offset + length - left, data)
            left -= len(data)
    piece.unlink()
    if left:
        raise EnvironmentProblem(f"QEMU wrote {length - left} bytes of memory instead of {length}")


def copy_process_memory(pid: int, block: RamBlock, path: Path) -> None:
    """Copy a block's used length out of the process; PermissionError where the system does not allow it."""
    assert block.host_address is not None
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        create_sparse(path, block.used_length)
        target = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for offset in range(0, block.used_length, _COPY):
                length = min(_COPY, block.used_length - offset)
                data = os.pread(memory, length, block.host_address + offset)
                if len(data) != length:
                    raise EnvironmentProblem(
                        f"RAM block {block.idstr} cannot be read at {offset + len(data):#x}"
                    )
                _write_sparse(target, offset, data)
        finally:
            os.close(target)
    finally:
        os.close(memory)


def _write_sparse(fd: int, offset: int, data: bytes) -> None:
    if data.count(0) != len(data):
        os.pwrite(fd, data, offset)
