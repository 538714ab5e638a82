"""COMMAND records: what the source asks the destination to do, between sections.

Source: migration/savevm.c `qemu_savevm_command_send`, `loadvm_process_command`.
A command's length is on the wire; `CommandHeader` is read first, then the payload.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig._wire import (
    CountedString,
    GreedyArray,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Pair,
    Raw,
    Record,
    const,
    wire,
)


class MigCmd(enum.IntEnum):
    """Command numbers (`MIG_CMD_*`)."""

    INVALID = 0
    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


class CommandHeader(Record):
    """Number and payload length of any command."""

    requirement: ClassVar[str] = "LEG-CMD-001"
    section_type = const(Int8ub, 0x08, doc="QEMU_VM_COMMAND")
    command: int = wire(Int16ub)
    length: int = wire(Int16ub, doc="bytes of payload")


class OpenReturnPath(Record):
    """The source will read messages that come back on this channel."""

    requirement: ClassVar[str] = "LEG-CMD-010"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 1)
    length = const(Int16ub, 0)


class Ping(Record):
    """The destination answers with PONG of the same value."""

    requirement: ClassVar[str] = "LEG-CMD-011"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 2)
    length = const(Int16ub, 4)
    value: int = wire(Int32ub)


class PostcopyAdvise(Record):
    """Postcopy of RAM may follow."""

    requirement: ClassVar[str] = "LEG-CMD-012"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 3)
    length = const(Int16ub, 16)
    page_sizes: int = wire(Int64ub, doc="OR of the page sizes of all RAM blocks")
    target_page_size: int = wire(Int64ub)


class PostcopyAdviseEmpty(Record):
    """Postcopy of dirty bitmaps only may follow."""

    requirement: ClassVar[str] = "LEG-CMD-012"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 3)
    length = const(Int16ub, 0)


class PostcopyListen(Record):
    """The destination starts the thread that takes pages from main."""

    requirement: ClassVar[str] = "LEG-CMD-013"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 4)
    length = const(Int16ub, 0)


class PostcopyRun(Record):
    """The destination may run the guest."""

    requirement: ClassVar[str] = "LEG-CMD-014"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 5)
    length = const(Int16ub, 0)


class PostcopyRamDiscard(Record):
    """Pages of one block that were sent and became stale: (start, length) in bytes."""

    requirement: ClassVar[str] = "LEG-CMD-015"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 6)
    length: int = wire(Int16ub)
    version = const(Int8ub, 0)
    block: str = wire(CountedString, doc="RAMBlock idstr")
    nul = const(Int8ub, 0)
    ranges: tuple[tuple[int, int], ...] = wire(GreedyArray(Pair(Int64ub, Int64ub)), doc="start, length")


class Packaged(Record):
    """The next `size_of_package` bytes are a stream of their own, to be read at once."""

    requirement: ClassVar[str] = "LEG-CMD-016"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 7)
    length = const(Int16ub, 4)
    size_of_package: int = wire(Int32ub)


class PackageEnd(Record):
    """Where a package ended; nothing is on the wire."""

    requirement: ClassVar[str] = "LEG-CMD-016"


class EnableColo(Record):
    """COLO follows (5.2 to 10.2)."""

    requirement: ClassVar[str] = "LEG-CMD-017"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 8)
    length = const(Int16ub, 0)


class PostcopyResume(Record):
    """Recovery: bitmaps are exchanged, postcopy goes on."""

    requirement: ClassVar[str] = "LEG-CMD-018"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 9)
    length = const(Int16ub, 0)


class RecvBitmap(Record):
    """Recovery: asks which pages of this block have arrived."""

    requirement: ClassVar[str] = "LEG-CMD-019"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 10)
    length: int = wire(Int16ub)
    block: str = wire(CountedString, doc="RAMBlock idstr")


class SwitchoverStart(Record):
    """The guest was stopped; what follows is the rest (10.0+)."""

    requirement: ClassVar[str] = "LEG-CMD-020"
    section_type = const(Int8ub, 0x08)
    command = const(Int16ub, 11)
    length = const(Int16ub, 0)


class UnknownCommand(Record):
    """A command that no known version has; its payload is skipped by its length."""

    requirement: ClassVar[str] = "LEG-CMD-002"
    section_type = const(Int8ub, 0x08)
    command: int = wire(Int16ub)
    length: int = wire(Int16ub)
    payload: Raw = wire(GreedyBytes)


#: number -> the records its payload may be
COMMANDS: Final[dict[MigCmd, tuple[type[Record], ...]]] = {
    MigCmd.OPEN_RETURN_PATH: (OpenReturnPath,),
    MigCmd.PING: (Ping,),
    MigCmd.POSTCOPY_ADVISE: (PostcopyAdvise, PostcopyAdviseEmpty),
    MigCmd.POSTCOPY_LISTEN: (PostcopyListen,),
    MigCmd.POSTCOPY_RUN: (PostcopyRun,),
    MigCmd.POSTCOPY_RAM_DISCARD: (PostcopyRamDiscard,),
    MigCmd.PACKAGED: (Packaged,),
    MigCmd.ENABLE_COLO: (EnableColo,),
    MigCmd.POSTCOPY_RESUME: (PostcopyResume,),
    MigCmd.RECV_BITMAP: (RecvBitmap,),
    MigCmd.SWITCHOVER_START: (SwitchoverStart,),
}
