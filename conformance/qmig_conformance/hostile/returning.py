"""What a destination may answer wrongly: the rows of `spec/registries/source-outcomes.toml`.

Each is said early, when the source has begun with its RAM, or late, when it has sent all it had; then the
connection stays open, or ends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from qmig.legacy.returnpath import RpPong, RpReqPages, RpReqPagesId, RpResumeAck, RpShut, RpSwitchoverAck
from qmig.spec.registry import Entry
from qmig.testing import load_registry
from qmig.testing.scenarios import scenario
from qmig_conformance.case import Case, Level, Role
from qmig_conformance.play import Accept, Close, Expect, Play, Qmp, Send, Settle, Step

REGISTRY: Final = "source-outcomes"
PAGE: Final = 4096
PONG: Final = RpPong(value=1).encode()
GOOD: Final = RpShut(value=0).encode()
BLOCK: Final = "pc.ram"
#: on main when the source has opened its return path and set up its RAM
_BEGUN: Final = b"\x03ram"


def raw(number: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A message with any number, and any length before its payload."""
    return (
        number.to_bytes(2, "big") + (len(payload) if length is None else length).to_bytes(2, "big") + payload
    )


def pages(start: int, length: int, block: str = BLOCK, more: bytes = b"") -> bytes:
    """A request that names its block."""
    whole = RpReqPagesId(header_len=13 + len(block), start=start, length=length, block=block).encode()
    return raw(3, whole[4:] + more)


@dataclass(frozen=True, slots=True)
class Answer:
    """`early` and `late` bytes; `close`: the connection ends behind them."""

    early: bytes = PONG
    late: bytes = GOOD
    close: bool = False

    def play(self) -> Play:
        """What a source is made to meet."""
        steps: list[Step] = [Qmp("migrate", {"uri": "{address}"}), Accept("main"), Expect("main", _BEGUN)]
        if self.early:
            steps.append(Send("main", self.early))
        steps.append(Settle())
        if self.late:
            steps.append(Send("main", self.late))
        if self.close:
            steps.append(Close("main"))
        return Play(settings=scenario("return-path"), steps=tuple(steps))


_MARK: Final = (0x0123456789ABCDEF).to_bytes(8, "big")
_NAMED: Final = bytes([len(BLOCK)]) + BLOCK.encode()

ANSWERS: Final[Mapping[str, Answer]] = {
    "control": Answer(),
    "message-0": Answer(PONG + raw(0)),
    "message-8": Answer(PONG + raw(8, b"abcd")),
    "message-0xffff": Answer(PONG + raw(0xFFFF, b"ab")),
    "length-513": Answer(PONG + raw(2, length=513)),
    "pong-of-5-bytes": Answer(PONG + raw(2, bytes(5))),
    "no-pong": Answer(b""),
    "pong-of-a-value-that-was-not-sent": Answer(PONG + RpPong(value=99).encode()),
    "pong-1-twice": Answer(PONG * 2),
    "shut-of-0-bytes": Answer(late=raw(1)),
    "shut-1-at-the-end": Answer(late=RpShut(value=1).encode()),
    "shut-2-at-the-end": Answer(late=RpShut(value=2).encode()),
    "shut-twice-at-the-end": Answer(late=GOOD * 2),
    "shut-0-before-the-stream": Answer(PONG + GOOD, b""),
    "shut-1-before-the-stream": Answer(PONG + RpShut(value=1).encode(), b""),
    "no-shut-connection-closed": Answer(late=b"", close=True),
    "no-shut-connection-stays-open": Answer(late=b""),
    "cut-in-a-message": Answer(PONG + b"\0\2\0\4\0", b"", close=True),
    "switchover-ack-unasked": Answer(PONG + RpSwitchoverAck().encode()),
    "switchover-ack-with-payload": Answer(PONG + raw(7, b"\0")),
    "resume-ack-outside-a-recovery": Answer(PONG + RpResumeAck(value=1).encode()),
    "resume-ack-of-value-0": Answer(PONG + RpResumeAck(value=0).encode()),
    "recv-bitmap-outside-a-recovery": Answer(
        PONG + raw(5, _NAMED) + (512).to_bytes(8, "big") + bytes(512) + _MARK
    ),
    "recv-bitmap-without-a-name": Answer(PONG + raw(5)),
    "recv-bitmap-of-an-unknown-block": Answer(PONG + raw(5, b"\3zzz")),
    "req-pages-without-a-block": Answer(PONG + RpReqPages(start=0, length=PAGE).encode()),
    "req-pages-id-in-precopy": Answer(PONG + pages(0, PAGE)),
    "req-pages-id-of-an-unknown-block": Answer(PONG + pages(0, PAGE, "zzz")),
    "req-pages-id-beyond-the-block": Answer(PONG + pages(1 << 40, PAGE)),
    "req-pages-id-not-aligned": Answer(PONG + pages(5, PAGE)),
    "req-pages-id-of-length-0": Answer(PONG + pages(0, 0)),
    "req-pages-id-longer-than-its-name": Answer(PONG + pages(0, PAGE, more=b"X")),
    "req-pages-id-of-12-bytes": Answer(PONG + raw(3, bytes(8) + PAGE.to_bytes(4, "big"))),
}


@functools.cache
def registered() -> Mapping[str, Entry]:
    """The rows of the registry by their slug."""
    return {str(entry.value): entry for entry in load_registry(REGISTRY).entries}


def cases() -> Iterator[tuple[str, Case]]:
    """Slug and case of every row."""
    for value, entry in registered().items():
        yield (
            value,
            Case(
                id=f"legacy.source.answered.{value}",
                requirement=entry.requirement,
                level=Level.MUST,
                roles=Role.SOURCE,
                since=entry.since,
                until=entry.until or "",
                title=entry.name,
            ),
        )
