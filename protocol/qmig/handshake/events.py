"""What a session tells its user."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from qmig._cbor import Value
from qmig.handshake import limits
from qmig.handshake.codes import USUAL, AbortCode, Level
from qmig.handshake.frames import DataFrame, WindowFrame
from qmig.handshake.messages import Abort, Finding, Message


class Sentinel(enum.Enum):
    """What `next_event` returns when there is no event."""

    NEED_DATA = "nothing to tell until something comes"


NEED_DATA: Final = Sentinel.NEED_DATA

#: (kind, index, when): when 0 is before READY, 1 later
PlanEntry: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why an attempt ended otherwise than well. `of_peer` tells who said so; texts of a peer are for people
    and have been shortened and made printable."""

    code: str
    text: str
    path: str | None = None
    who: str | None = None
    retry: str | None = None
    findings: Sequence[Finding] = ()
    cause: Sequence[str] = ()
    majors: Sequence[int] = ()
    of_peer: bool = False

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.code}{where}: {self.text}"

    def message(self) -> Abort:
        """The ABORT that says it; who acts and whether to try again as usual, if nothing better is known."""
        who, retry = USUAL.get(self.code, (None, None))
        return Abort(
            code=self.code,
            text=clip(self.text, limits.TEXT),
            path=clip(self.path, limits.PATH) if self.path else None,
            who=self.who or who,
            retry=self.retry or retry,
            findings=tuple(self.findings) or None,
            cause=tuple(clip(text, limits.TEXT) for text in self.cause[: limits.CAUSES]) or None,
            majors=tuple(self.majors) or None,
        )

    def finding(self) -> Finding:
        """The finding that says it, in TAKEN."""
        path = clip(self.path, limits.PATH) if self.path else None
        text = clip(self.text, limits.TEXT)
        return Finding(rule="L01", level=Level.INCOMPATIBLE.value, path=path, text=text)

    @classmethod
    def of(cls, abort: Abort) -> Reason:
        """What a peer's ABORT says."""
        return cls(
            code=abort.code,
            text=printable(abort.text),
            path=printable(abort.path) if abort.path else None,
            who=abort.who,
            retry=abort.retry,
            findings=abort.findings or (),
            cause=tuple(map(printable, abort.cause or ())),
            majors=abort.majors or (),
            of_peer=True,
        )


def own(code: AbortCode, text: str, **more: Any) -> Reason:
    """A reason of this side."""
    return Reason(code=code, text=text, **more)


def printable(text: str) -> str:
    """A peer's text fit for a terminal and a log: no control characters, no line ends (HS-SEC-006)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clip(text: str, most: int) -> str:
    """As much of `text` as `most` bytes of UTF-8 hold."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What both sides have agreed on. `off` are the offered names that are not on, with the reason."""

    agreed: Mapping[str, Value]
    off: Mapping[str, str] = field(default_factory=dict)
    plan: Sequence[PlanEntry] = ()


@dataclass(frozen=True, kw_only=True)
class Do:
    """The user is to do this, completely, before it asks for anything else; what is sent behind it waits
    until then. `detail` is what the action is about."""

    action: enum.StrEnum
    detail: Any = None


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The other side said this; nothing is to be done."""

    message: Message


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A frame of a data channel came on control (mux profile): `Mux.receive` takes it."""

    frame: DataFrame | WindowFrame
    offset: int


@dataclass(frozen=True)
class HangUp:
    """The control connection is to be closed now; the session goes on without it (HS-STA-004)."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The machine is in another state."""

    state: enum.StrEnum


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The session is over. `outcome` is a word of the table."""

    outcome: str
    reason: Reason | None = None


Told: TypeAlias = Do | Heard | Carried | HangUp | Moved | Ended
