"""What a channel or file is, by its first bytes.

Rule 1: a magic number is certain. Formats without one (return path, preempt, a recovery's
main channel) are told by their shape, and the answer says that it is a likely one.
Rule 2: too few bytes are no answer: `missing` says how many more would help. A channel
that stays silent cannot be told from any other.

The modules that know the shapes are imported when no magic fits: most files begin with one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from qmig._wire import Raw


class ChannelKind(enum.Enum):
    """What the bytes are of."""

    MAIN = "main channel, or a file with it"
    RECOVERY = "main channel of a postcopy recovery (no header)"
    MULTIFD = "multifd channel"
    PREEMPT = "preempt channel"
    RETURN_PATH = "return path"
    TLS = "channel encrypted with TLS"
    CPR = "CPR state"
    LIBVIRT = "libvirt save file"
    QCOW2 = "qcow2 image"
    UNKNOWN = "unknown"


class Certainty(enum.IntEnum):
    """How far the bytes prove it."""

    NONE = 0
    POSSIBLE = 1  # nothing speaks against it
    LIKELY = 2  # several fields agree
    CERTAIN = 3  # a magic number


class Identity(NamedTuple):
    """The answer; `missing` bytes more could change it (0: it stands)."""

    kind: ChannelKind
    certainty: Certainty
    reason: str
    missing: int = 0


#: bytes that always suffice
ENOUGH: Final = 32

#: as their readers have them (`test_identify.py` compares)
_MAGICS: Final = (
    (b"QEVM", ChannelKind.MAIN, "QEVM"),
    (b"\x11\x22\x33\x44", ChannelKind.MULTIFD, "0x11223344"),
    (b"QCPR", ChannelKind.CPR, "QCPR"),
    (b"LibvirtQemudSave", ChannelKind.LIBVIRT, "LibvirtQemudSave"),
    (b"LibvirtQemudPart", ChannelKind.LIBVIRT, "LibvirtQemudPart: saving was not finished"),
    (b"QFI\xfb", ChannelKind.QCOW2, "QFI"),
)
_CLIENT_HELLO: Final = 1
_SERVER_HELLO: Final = 2
#: no guest has a RAM block of 256 TiB, so an offset's upper two bytes are 0
_OFFSET_BITS: Final = 48


def identify(head: Raw) -> Identity:
    """What begins with `head` (`ENOUGH` bytes, or all there are)."""
    data = bytes(head[:ENOUGH])
    if not data:
        return Identity(ChannelKind.UNKNOWN, Certainty.NONE, "no bytes", 1)
    for magic, kind, name in _MAGICS:
        if data.startswith(magic):
            return Identity(kind, Certainty.CERTAIN, f"magic {name}")
        if magic.startswith(data):
            return Identity(kind, Certainty.POSSIBLE, f"begins like the magic {name}", len(magic) - len(data))
    for test in _SHAPES:
        found = test(data)
        if found is not None:
            return found
    return Identity(ChannelKind.UNKNOWN, Certainty.NONE, "neither a known magic nor a known shape")


def _tls(data: bytes) -> Identity | None:
    from qmig.legacy.tls import MAX_LENGTH, TlsContentType

    size = int.from_bytes(data[3:5], "big")
    if data[0] != TlsContentType.HANDSHAKE or data[1:2] not in (b"", b"\x03"):
        return None
    if len(data) < 6:
        return Identity(ChannelKind.TLS, Certainty.POSSIBLE, "begins like a TLS handshake", 6 - len(data))
    if not 4 <= size <= MAX_LENGTH or data[5] not in (_CLIENT_HELLO, _SERVER_HELLO):
        return None
    return Identity(
        ChannelKind.TLS,
        Certainty.LIKELY,
        "TLS record with a " + ("client hello" if data[5] == _CLIENT_HELLO else "server hello"),
    )


def _recovery(data: bytes) -> Identity | None:
    if data[0] != 0x08:
        return None
    if len(data) < 5:
        return Identity(ChannelKind.RECOVERY, Certainty.POSSIBLE, "begins like a command", 5 - len(data))
    from qmig.legacy.commands import COMMANDS, MigCmd

    number, length = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
    if number not in COMMANDS:
        return None
    name = MigCmd(number).name
    if number == MigCmd.RECV_BITMAP:
        if len(data) == 5:
            return Identity(ChannelKind.RECOVERY, Certainty.POSSIBLE, f"command {name}", 1)
        if length != 1 + data[5] or not _is_name(data[6 : 6 + data[5]]):
            return None
        return Identity(ChannelKind.RECOVERY, Certainty.LIKELY, f"command {name} with a block's name")
    if number == MigCmd.POSTCOPY_RESUME and length == 0:
        return Identity(ChannelKind.RECOVERY, Certainty.LIKELY, f"command {name}")
    return Identity(ChannelKind.RECOVERY, Certainty.POSSIBLE, f"command {name}, no header before it")


def _return_path(data: bytes) -> Identity | None:
    from qmig.legacy.returnpath import MAX_PAYLOAD, MESSAGES, NAMED, RpMessage

    if data[0] != 0 or (len(data) > 1 and data[1] not in MESSAGES):
        return None
    if len(data) < 4:
        return Identity(
            ChannelKind.RETURN_PATH, Certainty.POSSIBLE, "may begin with a message header", 4 - len(data)
        )
    number, length = data[1], int.from_bytes(data[2:4], "big")
    name = RpMessage(number).name
    if number in NAMED:
        at = 3 + NAMED[number]  # where the length of the name stands
        if not at < 4 + length <= 4 + MAX_PAYLOAD:
            return None
        if len(data) <= at:
            return Identity(
                ChannelKind.RETURN_PATH, Certainty.POSSIBLE, f"message {name}", at + 1 - len(data)
            )
        fits = 4 + length == at + 1 + data[at] and _is_name(data[at + 1 : at + 1 + data[at]])
    else:
        fits = length == MESSAGES[number].minimum() - 4
    return Identity(ChannelKind.RETURN_PATH, Certainty.LIKELY, f"message {name}") if fits else None


def _preempt(data: bytes) -> Identity | None:
    word = int.from_bytes(data[:8], "big")
    if len(data) < 8:
        if any(data[:2]):
            return None
        return Identity(ChannelKind.PREEMPT, Certainty.POSSIBLE, "may begin with a RAM record", 8 - len(data))
    from qmig.legacy.ram import FLAG_BITS, RamFlag

    flags = word & FLAG_BITS
    if word == RamFlag.EOS:
        return Identity(ChannelKind.PREEMPT, Certainty.POSSIBLE, "the end mark of RAM records")
    if word >> _OFFSET_BITS or flags not in (RamFlag.PAGE, RamFlag.ZERO):
        return None
    if len(data) == 8:
        return Identity(ChannelKind.PREEMPT, Certainty.POSSIBLE, "the word of a page record", 1)
    if not data[8] or not _is_name(data[9 : 9 + data[8]]):
        return None
    return Identity(ChannelKind.PREEMPT, Certainty.LIKELY, "a page record with its block's name")


_SHAPES: Final[tuple[Callable[[bytes], Identity | None], ...]] = (_tls, _recovery, _return_path, _preempt)


def _is_name(raw: bytes) -> bool:
    """Whether this may be (the beginning of) a RAMBlock idstr."""
    return all(0x20 < byte < 0x7F for byte in raw)
