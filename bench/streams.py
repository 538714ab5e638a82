#!/usr/bin/env python3
"""Write complete precopy streams of any size, for measuring.

    streams.py --template RECORDING[.xz] --out DIR [--mib 1024] [mixed] [long]

The template is a small real recording (a plain precopy with a vmdescription). Everything except the pages
of its largest RAM block is kept: header, configuration, block list, the pages of the other blocks, commands,
END section, device state, EOF and vmdescription. The largest block grows to ``--mib`` MiB and is filled by a
pattern, one RAM record per page, in PART sections of the size a real source sends:

    mixed   three data pages, one zero page, repeating
    long    40,000 pages of one kind, three runs of data and one of zero pages, repeating

The result is deterministic: the same template and size give the same bytes. This module reads the template by
itself, on purpose: it must not share a mistake with the library that is measured on its output.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import random
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

PAGE = 4096
# A real source ends a PART after 50 ms or when its bandwidth share is used: 3,000 to 8,000 pages were seen.
PAGES_PER_PART = 4000
ZERO, MEM_SIZE, NORMAL, EOS, CONTINUE, FLUSH = 0x02, 0x04, 0x08, 0x10, 0x20, 0x200
DISTINCT_PAGES = 251

PATTERNS: dict[str, Callable[[int], bool]] = {
    "mixed": lambda index: index % 4 != 3,
    "long": lambda index: index // 40_000 % 4 != 3,
}


class TemplateError(ValueError):
    """The recording cannot serve as a template; the text says why and where."""


@dataclass
class Template:
    """The parts of a recorded stream that every generated stream repeats."""

    head: bytes = b""  # header, configuration and whatever comes before the first section
    ram_id: int = 0
    ram_start: bytes = b""  # section header of the RAM section, up to its first record
    blocks: list[tuple[bytes, int]] = field(default_factory=list)
    pages: list[tuple[bytes, int, bytes]] = field(
        default_factory=list
    )  # other blocks: idstr, address, content
    switch: bytes = b""  # commands between the last PART and END
    tail: bytes = b""  # device state, EOF, vmdescription
    machine: str = ""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.pos = data, 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.pos : self.pos + size]
        if len(piece) != size:
            raise TemplateError(f"template ends inside a record at offset {self.pos}")
        self.pos += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def counted(self) -> bytes:
        return self.take(self.number(1))


def read_template(data: bytes) -> Template:
    """Take a plain precopy recording apart.

    Raises TemplateError for anything but header, configuration, RAM sections with normal and zero pages,
    commands, device state (kept as it is).
    """
    reader, found = _Reader(data), Template()
    if reader.take(8) != b"QEVM\0\0\0\3" or reader.number(1) != 7:
        raise TemplateError("template is not a QEMU stream with a configuration section")
    found.machine = reader.take(reader.number(4)).decode("ascii")
    latest: dict[tuple[bytes, int], bytes] = {}
    block = b""
    while True:
        at, kind = reader.pos, reader.number(1)
        if kind == 8:
            reader.take(2)
            reader.take(reader.number(2))
            if found.ram_start:
                found.switch += data[at : reader.pos]
        elif kind == 4:
            found.tail = data[at:]
            break
        elif kind == 1:
            if found.ram_start:
                raise TemplateError(f"template has a second live section at offset {at}")
            found.head = data[:at]
            found.ram_id = reader.number(4)
            if reader.counted() != b"ram":
                raise TemplateError(f"template has a live section other than ram at offset {at}")
            reader.take(8)
            found.ram_start = data[at : reader.pos]
            block = _records(reader, found, latest, block)
        elif kind in (2, 3) and reader.number(4) == found.ram_id:
            block = _records(reader, found, latest, block)
        else:
            raise TemplateError(f"template has an unexpected section at offset {at}")
    largest = main_block(found)
    found.pages = [(idstr, addr, page) for (idstr, addr), page in latest.items() if idstr != largest]
    return found


def _records(reader: _Reader, found: Template, latest: dict[tuple[bytes, int], bytes], block: bytes) -> bytes:
    while True:
        at, word = reader.pos, reader.number(8)
        addr, flags = word & ~(PAGE - 1), word & (PAGE - 1)
        if flags == MEM_SIZE:
            while addr > 0:
                found.blocks.append((reader.counted(), reader.number(8)))
                addr -= found.blocks[-1][1]
        elif flags == EOS:
            if reader.take(5) != b"\x7e" + struct.pack(">I", found.ram_id):
                raise TemplateError(f"template has no section footer at offset {at + 8}")
            return block
        elif flags & ~CONTINUE in (ZERO, NORMAL):
            block = block if flags & CONTINUE else reader.counted()
            latest[block, addr] = reader.take(PAGE) if flags & NORMAL else reader.take(1) * PAGE
        elif flags != FLUSH:
            raise TemplateError(f"template has RAM flags {flags:#x} at offset {at}; record a plain precopy")


def main_block(template: Template) -> bytes:
    """idstr of the largest RAM block."""
    return max(template.blocks, key=lambda entry: entry[1])[0]


def _page_record(flag: int, addr: int, idstr: bytes | None, payload: bytes) -> bytes:
    if idstr is None:
        return struct.pack(">Q", addr | flag | CONTINUE) + payload
    return struct.pack(">QB", addr | flag, len(idstr)) + idstr + payload


def generate(template: Template, mib: int, has_data: Callable[[int], bool], seed: int = 1) -> Iterator[bytes]:
    """Yield the pieces of one stream.

    ``mib`` is the size of the largest RAM block in MiB, ``has_data(page_index)`` tells data pages from zero
    pages, ``seed`` chooses the content of the data pages.
    """
    largest = main_block(template)
    blocks = [(idstr, mib << 20 if idstr == largest else length) for idstr, length in template.blocks]
    footer = b"\x7e" + struct.pack(">I", template.ram_id)
    end_of_data = struct.pack(">Q", EOS) + footer
    yield template.head + template.ram_start
    yield struct.pack(">Q", sum(length for _, length in blocks) | MEM_SIZE)
    yield b"".join(
        struct.pack(">B", len(idstr)) + idstr + struct.pack(">Q", length) for idstr, length in blocks
    )
    yield end_of_data

    rng = random.Random(seed)
    pages = [rng.randbytes(PAGE) for _ in range(DISTINCT_PAGES)]
    part = b"\x02" + struct.pack(">I", template.ram_id)
    count = (mib << 20) // PAGE
    for first in range(0, count, PAGES_PER_PART):
        records = [part]
        for index in range(first, min(first + PAGES_PER_PART, count)):
            idstr = largest if index == 0 else None
            if has_data(index):
                records.append(_page_record(NORMAL, index * PAGE, idstr, pages[index % DISTINCT_PAGES]))
            else:
                records.append(_page_record(ZERO, index * PAGE, idstr, b"\0"))
        yield b"".join(records) + end_of_data

    records, previous = [b"\x03" + struct.pack(">I", template.ram_id)], largest
    for idstr, addr, page in template.pages:
        named = None if idstr == previous else idstr
        flag, payload = (NORMAL, page) if any(page) else (ZERO, b"\0")
        records.append(_page_record(flag, addr, named, payload))
        previous = idstr
    yield template.switch
    yield b"".join(records) + end_of_data
    yield template.tail


def write(template: Template, mib: int, pattern: str, out: BinaryIO) -> str:
    """Write one stream to ``out``; returns its sha256."""
    digest = hashlib.sha256()
    for piece in generate(template, mib, PATTERNS[pattern]):
        digest.update(piece)
        out.write(piece)
    return digest.hexdigest()


def load_template(path: Path) -> Template:
    """Read a recording, xz-compressed or not, as a template."""
    raw = path.read_bytes()
    return read_template(lzma.decompress(raw) if path.suffix == ".xz" else raw)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="*", help="mixed, long (default: both)")
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mib", type=int, default=1024)
    args = parser.parse_args()
    if unknown := set(args.pattern) - set(PATTERNS):
        parser.error(f"unknown pattern {', '.join(sorted(unknown))}")
    try:
        template = load_template(args.template)
    except (OSError, lzma.LZMAError, TemplateError) as error:
        print(f"streams.py: {args.template}: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    for pattern in args.pattern or PATTERNS:
        path = args.out / f"{pattern}-{args.mib}.bin"
        with path.open("wb") as out:
            digest = write(template, args.mib, pattern, out)
        print(f"{path}: {path.stat().st_size} bytes, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
