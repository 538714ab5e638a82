"""What the walkers of one migration share: facts learnt on one channel, needed on another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from qmig.legacy.sections import SectionFull, SectionStart


class Schema(Protocol):
    """Knows where a device's state ends (from a vmdesc or a `-dump-vmstate` file)."""

    origin: str

    def ends(self, section: SectionFull, view: memoryview) -> Iterable[int]:
        """Possible lengths of the body at the start of `view`, the most likely first."""
        ...


class RamBlock:
    """One entry of the block list; lengths in bytes."""

    __slots__ = ("gpa", "idstr", "page_size", "used_length")

    def __init__(self, idstr: str, used_length: int, page_size: int | None, gpa: int | None) -> None:
        self.idstr = idstr
        self.used_length = used_length
        self.page_size = page_size
        self.gpa = gpa


class StreamState:
    """Shared by the walkers of all channels of one migration.

    `page_size` is the target page size in bytes, None until known; `footers` whether
    sections end with a footer, None until the first section has ended."""

    def __init__(self, *, page_size: int | None = None, schema: Schema | None = None) -> None:
        self.page_size = page_size
        self.schema = schema
        self.footers: bool | None = None
        self.machine: str | None = None
        self.capabilities: frozenset[str] = frozenset()
        self.configured = False
        self.postcopy_advised = False
        self.sections: dict[int, SectionStart] = {}  # live sections by section_id
        self.blocks: dict[str, RamBlock] = {}

    @property
    def target_page_size(self) -> int:
        return self.page_size or 4096
