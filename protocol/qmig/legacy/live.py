"""Which reader a live section's data need: SECTION_START names it by idstr.

A new handler is one row of `READERS` (exact idstr) or `SUFFIXES` (devices with a qdev path).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from qmig._feed import Feed, Steps
from qmig.errors import UnsupportedFeature
from qmig.legacy.block import BlockReader
from qmig.legacy.dirtybitmap import DirtyBitmapReader
from qmig.legacy.htab import HtabReader
from qmig.legacy.ramwalk import RamReader
from qmig.legacy.s390 import StorageAttributesReader
from qmig.legacy.sections import SectionStart, SectionType
from qmig.legacy.state import StreamState
from qmig.legacy.vfio import VfioReader


class LiveReader(Protocol):
    """Reads the data of one live handler, over all its sections."""

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads one section's data, up to its own end mark; `kind` is START, PART or END."""
        ...


READERS: Final[dict[str, Callable[[Feed, StreamState], LiveReader]]] = {
    "ram": RamReader,
    "dirty-bitmap": DirtyBitmapReader,
    "block": BlockReader,
    "spapr/htab": HtabReader,
    "s390-storage_attributes": StorageAttributesReader,
}
SUFFIXES: Final[dict[str, Callable[[Feed, StreamState], LiveReader]]] = {"/vfio": VfioReader}


def open_reader(section: SectionStart, feed: Feed, state: StreamState) -> LiveReader:
    """The reader for a section that was just opened."""
    factory = READERS.get(section.idstr) or SUFFIXES.get("/" + section.idstr.rpartition("/")[2])
    if factory is None:
        raise UnsupportedFeature(
            f"no reader for live section {section.idstr!a}: its data have no length and cannot be skipped",
            requirement="LEG-OTH-001",
            offset=section.offset,
            record="SectionStart",
        )
    return factory(feed, state)
