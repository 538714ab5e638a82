"""The source's states (HS-STA): amendments A-02 to A-13, A-30 to A-37, A-45, A-54 and their section 10.

What the peer may send in one turn is decided before a row is looked for: a message out of turn is VIOLATION.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from qmig.handshake.table import Row, Table, rows


class State(enum.StrEnum):
    IDLE = "idle"
    HELLO = "hello"
    DESCRIBED = "described"
    COMMITTED = "committed"
    BINDING = "binding"
    FLOW = "flow"
    SWITCHED = "switched"
    GIVEN = "given"
    GONE = "gone"
    DOUBT = "doubt"
    CLOSING = "closing"
    END = "end"


class Event(enum.StrEnum):
    # of the operator and of this side
    START = "start"
    CANCEL = "cancel"
    DESCRIBE = "description is there"
    SETTINGS_REFUSED = "own QEMU refuses a setting"
    CHANNEL_LOST = "a data connection fails or is refused"
    LATE_CHANNEL = "own QEMU opens a later channel"
    TO_POSTCOPY = "operator: switch to postcopy"
    RECHECK = "operator: ask again whether it would load"
    QEMU_FAILED = "own QEMU failed"
    QEMU_RUNS = "own QEMU runs the guest by itself"
    MACHINE_CHANGED = "the machine changed"
    QEMU_GAVE = "own QEMU completed and postmigrate, or postcopy-active"
    QEMU_AT_SWITCH = "own QEMU at pre-switchover"
    QEMU_DONE = "own QEMU completed"
    OWNER_IS_DESTINATION = "management: the guest is the destination's"
    OWNER_IS_SOURCE = "management: the guest is the source's"
    LINGER_OVER = "linger over"
    # of the other side
    PREAMBLE = "preamble"
    PEER_HELLO = "HELLO"
    ANSWER = "ANSWER, admissible"
    ANSWER_BAD = "ANSWER, not admissible or something essential missing"
    MACHINE = "MACHINE"
    MACHINE_BAD = "MACHINE, damaged"
    VERDICT_GO = "VERDICT, policy says go"
    VERDICT_NO = "VERDICT, policy says no"
    ACCEPT = "ACCEPT, hash equal"
    ACCEPT_BAD = "ACCEPT, hash differs"
    CHANNEL_OK = "CHANNEL-OK, right"
    READY = "READY, hash equal, all bound"
    READY_BAD = "READY, otherwise"
    GRANT = "SWITCH-GRANT yes"
    DENY = "SWITCH-GRANT no"
    TAKEN = "TAKEN 0"
    RETURNED = "TAKEN 1"
    BYE = "BYE"
    ABORT = "ABORT"
    EOF = "end of control"
    GONE = "control is gone already"
    NOT_PREAMBLE = "bytes that are no preamble"
    ONE_WAY = "end of the return direction only"
    VIOLATION = "violation"
    RESUMED_LOADING = "session resumed, record loading or held"
    RESUMED_TAKEN = "session resumed, record taken"
    RESUMED_RAN = "session resumed, record ran"
    RESUMED_RETURNED = "session resumed, record returned"


class Action(enum.StrEnum):
    CONNECT = "connect"
    SEND_HELLO = "send preamble and HELLO"
    NOTE = "note"
    ASK_DESCRIPTION = "describe the machine"
    JUDGE_PEER = "judge the peer's description"
    SEND_MACHINE = "send MACHINE"
    SEND_COMMIT = "send COMMIT"
    SEND_ABORT = "send ABORT"
    SEND_BYE = "send BYE"
    OPEN_CHANNELS = "apply the agreed set, open and bind the channels"
    BIND_LATE = "bind the later channel"
    MIGRATE = "migrate"
    RESUME_MIGRATION = "resume the migration"
    START_POSTCOPY = "start postcopy"
    CUT_DATA = "shut the data connections"
    CANCEL_MIGRATION = "cancel the migration"
    RESUME_GUEST = "run the guest again if it ran before"
    STOP_GUEST = "stop the guest"
    CONTINUE_SWITCH = "let the switchover go on"
    RECORD_GIVEN = "record given"
    SEND_GIVE = "send GIVE"
    SEND_ASK = "send SWITCH-ASK"
    RECORD_BACK = "record back"
    RESTORE = "restore settings"
    REFUSE_CANCEL = "refuse: too late"
    RECONNECT = "reconnect"
    SHOW = "show"
    CLOSE = "close"


Rows: TypeAlias = list[Row[State, Event, Action]]
S, E, A = State, Event, Action

#: before data flows; cancel and ABORT leave the guest as it was
EARLY: Final = (S.HELLO, S.DESCRIBED, S.COMMITTED, S.BINDING)
#: from the switch on a cancel comes too late, and no ABORT of ours may move the guest (HS-STA-004)
LATE: Final = (S.SWITCHED, S.GIVEN, S.GONE, S.DOUBT)
_UNDO: Final = (A.CUT_DATA, A.CANCEL_MIGRATION, A.RESUME_GUEST)
#: in postcopy nothing is cancelled (HS-HND-022)
_LEAVE: Final = (A.CUT_DATA, A.RESUME_GUEST)

_NEGOTIATION: Final[Rows] = [
    Row(S.IDLE, E.START, S.HELLO, (A.CONNECT, A.SEND_HELLO)),
    Row(S.IDLE, E.CANCEL, S.END, outcome="here"),
    Row(S.HELLO, E.PREAMBLE, S.HELLO, (A.NOTE,)),
    Row(S.HELLO, E.PEER_HELLO, S.HELLO, (A.NOTE,)),
    Row(S.HELLO, E.ANSWER, S.HELLO, (A.ASK_DESCRIPTION,), when=("!description.peer",)),
    Row(S.HELLO, E.ANSWER, S.HELLO, (A.NOTE,), when=("description.peer",)),
    Row(S.HELLO, E.MACHINE, S.HELLO, (A.JUDGE_PEER, A.ASK_DESCRIPTION), when=("description.peer",)),
    Row(S.HELLO, E.MACHINE_BAD, S.CLOSING, (A.SEND_ABORT,), when=("description.peer",), outcome="here"),
    Row(S.HELLO, E.DESCRIBE, S.DESCRIBED, (A.SEND_MACHINE,)),
    Row(S.HELLO, E.ANSWER_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="here"),
    Row(S.HELLO, E.NOT_PREAMBLE, S.END, (A.SHOW, A.CLOSE, A.RESTORE), outcome="here"),
    Row(S.HELLO, E.ONE_WAY, S.END, (A.SHOW, A.CLOSE, A.RESTORE), outcome="here"),
    Row(S.DESCRIBED, E.VERDICT_GO, S.CLOSING, (A.SHOW, A.SEND_BYE), when=("probe",), outcome="probed"),
    Row(S.DESCRIBED, E.VERDICT_NO, S.CLOSING, (A.SHOW, A.SEND_BYE), when=("probe",), outcome="probed"),
    Row(S.DESCRIBED, E.VERDICT_GO, S.COMMITTED, (A.SHOW, A.SEND_COMMIT), when=("!probe",)),
    Row(S.DESCRIBED, E.VERDICT_NO, S.CLOSING, (A.SHOW, A.SEND_ABORT), when=("!probe",), outcome="here"),
    Row(S.COMMITTED, E.ACCEPT, S.BINDING, (A.OPEN_CHANNELS,)),
    Row(S.COMMITTED, E.ACCEPT_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="here"),
    Row(S.BINDING, E.CHANNEL_OK, S.BINDING, (A.NOTE,)),
    Row(S.BINDING, E.CHANNEL_LOST, S.CLOSING, (A.SEND_ABORT,), outcome="here"),
    Row(S.BINDING, E.SETTINGS_REFUSED, S.CLOSING, (A.SEND_ABORT,), outcome="here"),
    Row(S.BINDING, E.READY, S.FLOW, (A.MIGRATE,)),
    Row(S.BINDING, E.READY_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="here"),
    *rows(EARLY, E.CANCEL, S.CLOSING, A.SEND_ABORT, outcome="here"),
    *rows(EARLY, E.QEMU_FAILED, S.CLOSING, A.SEND_ABORT, outcome="here"),
    *rows(EARLY, E.MACHINE_CHANGED, S.CLOSING, A.SEND_ABORT, outcome="here"),
    *rows(EARLY, E.VIOLATION, S.CLOSING, A.SEND_ABORT, outcome="here"),
    *rows(EARLY, E.ABORT, S.END, A.SHOW, A.SEND_BYE, A.RESTORE, outcome="here"),
    *rows(EARLY, E.EOF, S.END, A.SHOW, A.CLOSE, A.RESTORE, outcome="here"),
]

_FLOW: Final[Rows] = [
    Row(S.FLOW, E.LATE_CHANNEL, S.FLOW, (A.BIND_LATE,)),
    Row(S.FLOW, E.CHANNEL_OK, S.FLOW, (A.NOTE,)),
    # one more look before the switch, which waits for a "yes" (hold)
    Row(S.FLOW, E.RECHECK, S.FLOW, (A.SEND_ASK,), when=("recheck", "!asked", "!cut", "!switching")),
    Row(S.FLOW, E.GRANT, S.FLOW, (A.NOTE,), when=("recheck", "!at-switch")),
    Row(S.FLOW, E.GRANT, S.FLOW, (A.CONTINUE_SWITCH,), when=("recheck", "at-switch", "handover")),
    Row(S.FLOW, E.GRANT, S.SWITCHED, (A.CONTINUE_SWITCH,), when=("recheck", "at-switch", "!handover")),
    Row(S.FLOW, E.DENY, S.FLOW, (A.SHOW,), when=("recheck",)),
    Row(
        S.FLOW, E.TO_POSTCOPY, S.FLOW,
        (A.STOP_GUEST, A.START_POSTCOPY), when=("can-postcopy", "!postcopy", "!cut"),
    ),
    # a QEMU that waits at pre-switchover can still be cancelled, one that goes on to postcopy cannot
    Row(S.FLOW, E.CANCEL, S.FLOW, (A.REFUSE_CANCEL,), when=("postcopy", "!at-switch")),
    Row(S.FLOW, E.CANCEL, S.CLOSING, (*_UNDO, A.SEND_ABORT), ("postcopy", "at-switch"), "here"),
    Row(S.FLOW, E.CANCEL, S.CLOSING, (*_UNDO, A.SEND_ABORT), when=("!postcopy",), outcome="here"),
    *(
        row
        for event in (E.QEMU_FAILED, E.MACHINE_CHANGED, E.CHANNEL_LOST, E.VIOLATION)
        for row in (
            Row(S.FLOW, event, S.CLOSING, (*_UNDO, A.SEND_ABORT), ("!postcopy",), "here"),
            Row(S.FLOW, event, S.CLOSING, (*_LEAVE, A.SEND_ABORT), ("postcopy",), "stopped-here"),
        )
    ),
    Row(S.FLOW, E.ABORT, S.END, (A.SHOW, *_UNDO, A.SEND_BYE, A.RESTORE), ("!postcopy",), "here"),
    Row(S.FLOW, E.ABORT, S.END, (A.SHOW, *_LEAVE, A.SEND_BYE, A.RESTORE), ("postcopy",), "stopped-here"),
    Row(S.FLOW, E.EOF, S.FLOW, (A.RECONNECT,), when=("retry",)),
    Row(S.FLOW, E.EOF, S.END, (A.SHOW, *_UNDO, A.CLOSE, A.RESTORE), ("!retry", "!postcopy"), "here"),
    Row(S.FLOW, E.EOF, S.END, (A.SHOW, *_LEAVE, A.CLOSE, A.RESTORE), ("!retry", "postcopy"), "stopped-here"),
    Row(S.FLOW, E.QEMU_GAVE, S.GIVEN, (A.RECORD_GIVEN, A.SEND_GIVE), when=("handover",)),
    # without control the switch waits
    Row(S.FLOW, E.QEMU_AT_SWITCH, S.FLOW, (A.NOTE,), when=("cut",)),
    Row(S.FLOW, E.QEMU_AT_SWITCH, S.FLOW, (A.NOTE,), when=("!cut", "hold")),
    Row(S.FLOW, E.QEMU_AT_SWITCH, S.FLOW, (A.CONTINUE_SWITCH,), when=("!cut", "!hold", "handover")),
    Row(S.FLOW, E.QEMU_AT_SWITCH, S.SWITCHED, (A.CONTINUE_SWITCH,), when=("!cut", "!hold", "!handover")),
    Row(S.FLOW, E.RESUMED_LOADING, S.FLOW, (A.SEND_ASK,), when=("asked",)),
    Row(S.FLOW, E.RESUMED_LOADING, S.FLOW, (A.NOTE,), when=("!asked", "hold")),
    Row(S.FLOW, E.RESUMED_LOADING, S.FLOW, (A.NOTE,), when=("!asked", "!hold", "!at-switch")),
    *(
        Row(S.FLOW, E.RESUMED_LOADING, next, (A.CONTINUE_SWITCH,), ("!asked", "!hold", "at-switch", fact))
        for next, fact in ((S.FLOW, "handover"), (S.SWITCHED, "!handover"))
    ),
    # D's ABORT follows
    Row(S.FLOW, E.RESUMED_RETURNED, S.FLOW, (A.NOTE,)),
    # without hand-over
    Row(S.SWITCHED, E.QEMU_DONE, S.SWITCHED, (A.NOTE,)),
    Row(S.SWITCHED, E.QEMU_GAVE, S.SWITCHED, (A.NOTE,)),
    Row(S.SWITCHED, E.QEMU_FAILED, S.DOUBT, (A.STOP_GUEST, A.SHOW)),
    Row(S.SWITCHED, E.QEMU_RUNS, S.DOUBT, (A.STOP_GUEST, A.SHOW)),
    Row(S.SWITCHED, E.BYE, S.END, (A.STOP_GUEST, A.SEND_BYE), when=("!aborted",), outcome="moved"),
    Row(S.SWITCHED, E.ABORT, S.END, (A.SHOW, *_UNDO, A.SEND_BYE, A.RESTORE), ("!postcopy",), "here"),
    Row(S.SWITCHED, E.ABORT, S.END, (A.SHOW, A.CUT_DATA, A.SEND_BYE), ("postcopy",), "stopped-here"),
    Row(S.SWITCHED, E.EOF, S.SWITCHED, (A.RECONNECT,), when=("retry",)),
    Row(S.SWITCHED, E.EOF, S.DOUBT, (A.STOP_GUEST, A.SHOW), when=("!retry",)),
    *rows((S.SWITCHED,), E.RESUMED_LOADING, None, A.NOTE),
    *rows((S.SWITCHED,), E.RESUMED_RAN, None, A.NOTE),
    *rows((S.SWITCHED,), E.RESUMED_RETURNED, None, A.NOTE),
]  # fmt: skip


def _given_back(state: State, event: Event) -> Rows:
    """The guest is S's again: it runs if it ran before, and QEMU can (not in postcopy)."""
    return [
        Row(
            state, event, S.END,
            (A.RECORD_BACK, A.RESUME_GUEST, A.SHOW, A.SEND_BYE, A.RESTORE), ("!postcopy",), "here",
        ),
        Row(state, event, S.END, (A.RECORD_BACK, A.SHOW, A.SEND_BYE), ("postcopy",), "stopped-here"),
    ]  # fmt: skip


_HANDOVER: Final[Rows] = [
    Row(S.GIVEN, E.TAKEN, S.GONE, (A.SHOW,)),
    *_given_back(S.GIVEN, E.RETURNED),
    *_given_back(S.GIVEN, E.ABORT),
    Row(S.GIVEN, E.EOF, S.GIVEN, (A.RECONNECT,), when=("retry",)),
    Row(S.GIVEN, E.EOF, S.DOUBT, (A.SHOW,), when=("!retry",)),
    # GIVE was lost: it is said again
    Row(S.GIVEN, E.RESUMED_LOADING, S.GIVEN, (A.SEND_GIVE,)),
    Row(S.GIVEN, E.RESUMED_TAKEN, S.GIVEN, (A.NOTE,)),
    Row(S.GIVEN, E.RESUMED_RAN, S.GONE, (A.SHOW,)),
    # D's TAKEN 1 or ABORT follows
    Row(S.GIVEN, E.RESUMED_RETURNED, S.GIVEN, (A.NOTE,)),
    Row(S.GONE, E.BYE, S.END, (A.SEND_BYE,), outcome="moved"),
    Row(S.GONE, E.ABORT, S.END, (A.SHOW, A.SEND_BYE), outcome="moved"),
    Row(S.GONE, E.EOF, S.GONE, (A.RECONNECT,), when=("retry",)),
    Row(S.GONE, E.EOF, S.END, (A.SHOW, A.CLOSE), when=("!retry",), outcome="moved"),
    Row(S.GONE, E.RESUMED_RAN, S.GONE, (A.NOTE,)),
    # not settled
    Row(S.DOUBT, E.BYE, S.END, (A.SEND_BYE,), when=("!aborted",), outcome="moved"),
    *_given_back(S.DOUBT, E.ABORT),
    Row(S.DOUBT, E.EOF, S.DOUBT, (A.NOTE,)),
    Row(S.DOUBT, E.RESUMED_LOADING, S.GIVEN, (A.SEND_GIVE,), when=("handover",)),
    Row(S.DOUBT, E.RESUMED_LOADING, S.SWITCHED, (A.NOTE,), when=("!handover",)),
    Row(S.DOUBT, E.RESUMED_TAKEN, S.GIVEN, (A.NOTE,), when=("handover",)),
    Row(S.DOUBT, E.RESUMED_RAN, S.GONE, (A.SHOW,), when=("handover",)),
    Row(S.DOUBT, E.RESUMED_RAN, S.SWITCHED, (A.NOTE,), when=("!handover",)),
    Row(S.DOUBT, E.RESUMED_RETURNED, S.GIVEN, (A.NOTE,), when=("handover",)),
    Row(S.DOUBT, E.RESUMED_RETURNED, S.SWITCHED, (A.NOTE,), when=("!handover",)),
    Row(S.DOUBT, E.OWNER_IS_DESTINATION, S.END, (A.CLOSE,), outcome="moved"),
    Row(S.DOUBT, E.OWNER_IS_SOURCE, S.END, (A.RECORD_BACK, A.RESUME_GUEST, A.CLOSE), ("!postcopy",), "here"),
    Row(S.DOUBT, E.OWNER_IS_SOURCE, S.END, (A.RECORD_BACK, A.CLOSE), ("postcopy",), "stopped-here"),
    *rows(LATE, E.CANCEL, None, A.REFUSE_CANCEL),
    # pages may still be owed, and QEMU may fail over that, or run by itself: the guest is not its own now
    *rows((S.GIVEN, S.GONE, S.DOUBT), E.QEMU_FAILED, None, A.STOP_GUEST, A.SHOW),
    *rows((S.GIVEN, S.GONE, S.DOUBT), E.QEMU_RUNS, None, A.STOP_GUEST, A.SHOW),
    *rows((S.GIVEN, S.GONE, S.DOUBT), E.QEMU_DONE, None, A.NOTE),
    *rows(LATE, E.CHANNEL_LOST, None, A.SHOW),
    *rows(LATE, E.CHANNEL_OK, None, A.NOTE),
    *rows((S.SWITCHED, S.GIVEN, S.GONE), E.LATE_CHANNEL, None, A.BIND_LATE),
    *rows((S.SWITCHED, S.GIVEN, S.GONE), E.READY, None, A.RESUME_MIGRATION, when=("rebinding",)),
    # its QEMU's failure was seen after the session was resumed
    Row(S.DOUBT, E.READY, S.SWITCHED, (A.RESUME_MIGRATION,), when=("rebinding", "!handover")),
]

_END: Final[Rows] = [
    *(
        row
        for event in (E.ABORT, E.BYE, E.EOF, E.GONE, E.LINGER_OVER)
        for row in rows((S.CLOSING,), event, S.END, A.CLOSE, A.RESTORE)
    ),
]

TABLE: Final = Table("source", [*_NEGOTIATION, *_FLOW, *_HANDOVER, *_END])
