"""What a source may be told, and when: its phases as a table.

Source: migration/migration.c `source_return_path_thread`, `migration_thread`, `postcopy_pause`.

Rule 1: what QEMU's source takes is taken, in the phases in which it takes it; the rest is an error with the
id of the violated statement. QEMU takes REQ_PAGES and PONG at any time.
Rule 2: SHUT 0 before all was sent is not taken, though QEMU does: a guest cannot run there yet.
"""

from __future__ import annotations

import enum
from typing import Final

from qmig._wire import Record
from qmig.legacy.returnpath import (
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpSwitchoverAck,
)


class SourcePhase(enum.Enum):
    """Where a migration stands, seen from its source."""

    SETUP = "setup"  # up to the START of every live handler
    PRECOPY = "precopy"  # passes over RAM
    SWITCHOVER = "switchover"  # the guest is given up: device state, or discards and the package
    POSTCOPY = "postcopy"  # the guest runs at the destination, pages follow
    FINISHING = "finishing"  # EOF is on its way; with a return path, SHUT is waited for
    PAUSED = "paused"  # connection lost in postcopy: nothing runs here, and nothing is lost
    RECOVERING = "recovering"  # on a new connection: which pages arrived?
    COMPLETED = "completed"
    FAILED = "failed"


class Step(enum.Enum):
    """What moves a migration on, besides messages."""

    SETUP_SENT = "every handler has started"
    RAM_SENT = "the passes of precopy are over"
    PACKAGE_SENT = "the package is out"
    EOF_SENT = "EOF is on its way"
    SHUT_GOOD = "SHUT 0"
    SHUT_BAD = "SHUT with another value"
    ALL_SENT = "all was sent, and no answer is to come"
    LOST = "a connection is gone, or its other end cannot be trusted"
    CUT = "the same, but the destination has the guest"
    RESUMED = "there is a new address"


_P = SourcePhase
_ANY: Final[tuple[Step | type[Record], ...]] = (RpPong, RpReqPages, RpReqPagesId, RpSwitchoverAck)


def _row(phase: SourcePhase, **moves: SourcePhase) -> dict[Step | type[Record], SourcePhase]:
    own: dict[Step | type[Record], SourcePhase] = {Step[name]: target for name, target in moves.items()}
    return {**dict.fromkeys(_ANY, phase), Step.SHUT_BAD: _P.FAILED, **own}


#: phase -> what happens -> next phase
TRANSITIONS: Final[dict[SourcePhase, dict[Step | type[Record], SourcePhase]]] = {
    _P.SETUP: _row(_P.SETUP, SETUP_SENT=_P.PRECOPY, LOST=_P.FAILED),
    _P.PRECOPY: _row(_P.PRECOPY, RAM_SENT=_P.SWITCHOVER, LOST=_P.FAILED),
    _P.SWITCHOVER: _row(_P.SWITCHOVER, PACKAGE_SENT=_P.POSTCOPY, EOF_SENT=_P.FINISHING, LOST=_P.FAILED),
    _P.POSTCOPY: _row(_P.POSTCOPY, EOF_SENT=_P.FINISHING, CUT=_P.PAUSED),
    _P.FINISHING: _row(
        _P.FINISHING, SHUT_GOOD=_P.COMPLETED, ALL_SENT=_P.COMPLETED, LOST=_P.FAILED, CUT=_P.PAUSED
    ),
    _P.PAUSED: {Step.RESUMED: _P.RECOVERING},
    _P.RECOVERING: {
        **_row(_P.RECOVERING, CUT=_P.PAUSED),
        RpRecvBitmap: _P.RECOVERING,
        RpResumeAck: _P.POSTCOPY,
    },
    _P.COMPLETED: {},
    _P.FAILED: {},
}

#: message -> the statement that is violated where the table has no place for it
OUT_OF_PLACE: Final[dict[Step | type[Record], str]] = {
    Step.SHUT_GOOD: "LEG-RPM-012",
    RpRecvBitmap: "LEG-RPM-040",
    RpResumeAck: "LEG-RPM-051",
}
