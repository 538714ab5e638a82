"""All tables of streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qmig_conformance.hostile import (
    channels,
    commands,
    disks,
    header,
    mapped_ram,
    postcopy,
    preempt,
    ram,
    recovery,
    sections,
)
from qmig_conformance.hostile.table import Row, Table

TABLES: Final[tuple[Table, ...]] = (
    header.TABLE,
    sections.TABLE,
    commands.TABLE,
    ram.TABLE,
    mapped_ram.TABLE,
    mapped_ram.PLAIN_TABLE,
    channels.MULTIFD,
    channels.CHANNELS,
    channels.PLAIN,
    postcopy.TABLE,
    recovery.TABLE,
    preempt.TABLE,
    disks.BITMAPS,
    disks.DISKS,
)


def rows() -> Iterator[Row]:
    """Every row of every table."""
    for table in TABLES:
        yield from table.rows
