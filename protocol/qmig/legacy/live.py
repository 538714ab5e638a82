"""Which reader a live section's data need: SECTION_START names it by idstr.

A new handler is one row of `READERS` (exact idstr) or `SUFFIXES` (devices with a qdev
path). Readers other than RAM's are imported when their section comes: hardly any
stream has one, and start-up time counts.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, NamedTuple, Protocol, cast

from qmig._feed import Feed, Steps
from qmig.errors import UnsupportedFeature
from qmig.legacy.sections import SectionStart, SectionType
from qmig.legacy.state import StreamState


class LiveReader(Protocol):
    """Reads the data of one live handler, over all its sections."""

    def __init__(self, feed: Feed, state: StreamState) -> None: ...

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads one section's data, up to its own end mark; `kind` is START, PART or END."""
        ...


class Handler(NamedTuple):
    """Where the reader of a handler's data is, and the only version of them that any QEMU has."""

    module: str
    reader: str
    version: int

    def load(self) -> type[LiveReader]:
        return cast("type[LiveReader]", getattr(import_module(f"qmig.legacy.{self.module}"), self.reader))


READERS: Final[dict[str, Handler]] = {
    "ram": Handler("ramwalk", "RamReader", 4),
    "dirty-bitmap": Handler("dirtybitmap", "DirtyBitmapReader", 1),
    "block": Handler("block", "BlockReader", 1),
    "spapr/htab": Handler("htab", "HtabReader", 1),
    "s390-storage_attributes": Handler("s390", "StorageAttributesReader", 0),
}
SUFFIXES: Final[dict[str, Handler]] = {"/vfio": Handler("vfio", "VfioReader", 1)}


def open_reader(section: SectionStart, feed: Feed, state: StreamState) -> LiveReader:
    """The reader for a section that was just opened."""
    handler = READERS.get(section.idstr) or SUFFIXES.get("/" + section.idstr.rpartition("/")[2])
    if handler is None:
        raise UnsupportedFeature(
            f"no reader for live section {section.idstr!a}: its data have no length and cannot be skipped",
            requirement="LEG-OTH-001",
            offset=section.offset,
            record="SectionStart",
        )
    if section.version_id != handler.version:
        raise UnsupportedFeature(
            f"version {section.version_id} of live section {section.idstr!a}; only {handler.version} exists",
            requirement="LEG-OTH-002",
            offset=section.offset,
            record="SectionStart",
        )
    return handler.load()(feed, state)
