"""The first 16 bytes of every connection, and what else a connection may begin with.

Source: `spec/v2`, chapter "First bytes" (HS-PRE). These bytes are frozen for all revisions.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig._wire import Bytes, Int8ub, Record, const, wire

MAGIC: Final = b"QMH\r\n\x1a\x00\xff"
FRAMING: Final = 2
SIZE: Final = 16


class Role(enum.IntEnum):
    """Who sends the preamble, and on which connection."""

    SOURCE = 0x53
    DESTINATION = 0x44
    CHANNEL = 0x43
    FILE = 0x46


class Preamble(Record):
    """Opens each direction of a control connection, S's direction of a data connection, and a manifest."""

    requirement: ClassVar[str] = "HS-PRE-001"
    magic = const(Bytes(8), MAGIC, doc="`QMH` CR LF SUB NUL 0xFF")
    framing: int = wire(Int8ub, doc="framing version, 2 for ever")
    role: int = wire(Int8ub, doc="`S` source, `D` destination, `C` channel, `F` file")
    reserved: bytes = wire(Bytes(6), doc="any value, ignored; zero with role `F`")


class FirstWord(enum.StrEnum):
    """What a connection begins with, told by its first 4 bytes or by its end before them (HS-PRE-020)."""

    QMH = "qmh"
    LEGACY_MAIN = "legacy-main"
    LEGACY_MULTIFD = "legacy-multifd"
    LEGACY_CPR = "legacy-cpr"
    TLS = "tls"
    ALTERED = "altered"
    STRANGER = "stranger"
    NOTHING = "nothing"


_WORDS: Final = {
    MAGIC[:4]: FirstWord.QMH,
    b"QEVM": FirstWord.LEGACY_MAIN,
    b"\x11\x22\x33\x44": FirstWord.LEGACY_MULTIFD,
    b"QCPR": FirstWord.LEGACY_CPR,
    b"QMH\n": FirstWord.ALTERED,
}


def first_word(start: bytes, *, eof: bool = False) -> FirstWord | None:
    """What begins with `start`; None while that is not known. At most 4 bytes are looked at."""
    word = start[:4]
    if len(word) < 4:
        return FirstWord.NOTHING if eof else None
    if word[:2] == b"\x16\x03":
        return FirstWord.TLS
    return _WORDS.get(word, FirstWord.STRANGER)


def is_altered(start: bytes) -> bool:
    """Whether the first 8 bytes are a magic of which a terminal or a text mode has changed the end."""
    return start[:4] == b"QMH\n" or (start[:4] == MAGIC[:4] and start[:8] != MAGIC[: len(start[:8])])
