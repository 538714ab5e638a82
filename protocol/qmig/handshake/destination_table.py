"""The destination's states (HS-STA): the other half of `source_table`."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from qmig.handshake.table import Row, Table, rows


class State(enum.StrEnum):
    LISTENING = "listening"
    HELLO = "hello"
    ANSWERED = "answered"
    JUDGING = "judging"
    JUDGED = "judged"
    APPLYING = "applying"
    BINDING = "binding"
    LOADING = "loading"
    HELD = "held"
    TAKING = "taking"
    HELD_ALONE = "held-alone"
    RUNNING = "running"
    CLOSING = "closing"
    END = "end"


class Event(enum.StrEnum):
    # of the operator and of this side
    JUDGED = "judged"
    APPLIED = "applied"
    SETTINGS_REFUSED = "own QEMU refuses a setting"
    ALL_BOUND = "all channels of the plan are bound"
    LISTENS = "own QEMU listens"
    LISTEN_REFUSED = "own QEMU refuses to listen"
    LATE_BOUND = "a later channel is bound"
    BOUND_LOST = "a bound channel ends"
    LOADED = "loaded and held"
    STARTED = "loaded, the guest runs or was paused"
    LOAD_FAILED = "load failed, or the data ended early"
    QEMU_DIED = "own QEMU died"
    CONT_OK = "cont succeeded, or none was wanted"
    CONT_FAILED = "cont failed"
    COMPLETE = "nothing more is needed"
    DISCARD = "management discards"
    CANCEL = "cancel"
    LINGER_OVER = "linger over"
    # of the other side
    PREAMBLE = "preamble S"
    STRAY = "no valid preamble, or the end before it"
    ROLE_BAD = "a preamble with another role"
    HELLO = "HELLO, usable"
    HELLO_BAD = "HELLO, not usable"
    MACHINE = "MACHINE, digest right"
    MACHINE_BAD = "MACHINE, damaged"
    COMMIT = "COMMIT, hash, set and admissions right"
    COMMIT_BAD = "COMMIT, otherwise"
    ASK = "SWITCH-ASK"
    GIVE = "GIVE"
    BYE = "BYE"
    ABORT = "ABORT"
    EOF = "end of control"
    GONE = "control is gone already"
    VIOLATION = "violation"
    RESUMED = "session resumed"


class Action(enum.StrEnum):
    NOTE = "note"
    SEND_ANSWER = "send preamble, HELLO, ANSWER"
    JUDGE = "judge"
    SEND_VERDICT = "send VERDICT"
    APPLY = "set what is agreed, read it back"
    SEND_ACCEPT = "send ACCEPT"
    LISTEN = "let own QEMU listen"
    RECOVER = "let own QEMU recover"
    SEND_READY = "send READY"
    JUDGE_STATE = "judge the state again, then send SWITCH-GRANT"
    RECORD_TAKEN = "record taken"
    RECORD_RAN = "record ran"
    RECORD_RETURNED = "record returned"
    CONT = "cont if the guest ran"
    SEND_TAKEN = "send TAKEN 0"
    SEND_RETURNED = "send TAKEN 1"
    SEND_ABORT = "send ABORT"
    SEND_BYE = "send BYE"
    REPEAT = "say the last message again"
    CUT_DATA = "shut the data connections"
    DISCARD_GUEST = "end own QEMU"
    RESTORE = "restore settings"
    REFUSE_CANCEL = "refuse: too late"
    SHOW = "show"
    CLOSE = "close"


Rows: TypeAlias = list[Row[State, Event, Action]]
S, E, A = State, Event, Action

#: before data is taken: an end leaves this side listening
EARLY: Final = (S.HELLO, S.ANSWERED, S.JUDGING, S.JUDGED, S.APPLYING, S.BINDING)
#: of these, the ones in which the peer is heard
HEARING: Final = (S.HELLO, S.ANSWERED, S.JUDGED, S.BINDING)
#: a guest comes in or is here
LIVE: Final = (S.LOADING, S.HELD, S.TAKING, S.RUNNING)
_POSTCOPY: Final = (S.LOADING, S.TAKING, S.RUNNING)
#: gives the guest up for good, before anybody hears of it (HS-HND-006)
_LOST: Final = (A.CUT_DATA, A.DISCARD_GUEST, A.RECORD_RETURNED)

_NEGOTIATION: Final[Rows] = [
    Row(S.LISTENING, E.PREAMBLE, S.HELLO, (A.NOTE,)),
    Row(S.LISTENING, E.STRAY, S.END, (A.CLOSE,), outcome="listen"),
    Row(S.LISTENING, E.ROLE_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="listen"),
    Row(S.LISTENING, E.CANCEL, S.END, outcome="cancelled"),
    Row(S.LISTENING, E.QEMU_DIED, S.END, (A.SHOW,), outcome="spent"),
    Row(S.HELLO, E.HELLO, S.ANSWERED, (A.SEND_ANSWER,)),
    Row(S.HELLO, E.HELLO_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="listen"),
    Row(S.ANSWERED, E.MACHINE, S.JUDGING, (A.JUDGE,)),
    Row(S.ANSWERED, E.MACHINE_BAD, S.CLOSING, (A.SEND_ABORT,), outcome="listen"),
    Row(S.JUDGING, E.JUDGED, S.JUDGED, (A.SEND_VERDICT,)),
    Row(S.JUDGED, E.COMMIT, S.APPLYING, (A.APPLY,), when=("!probe",)),
    Row(S.JUDGED, E.COMMIT_BAD, S.CLOSING, (A.SEND_ABORT,), when=("!probe",), outcome="listen"),
    Row(S.JUDGED, E.BYE, S.END, (A.SEND_BYE,), when=("probe",), outcome="listen"),
    Row(S.APPLYING, E.APPLIED, S.BINDING, (A.SEND_ACCEPT,)),
    Row(S.APPLYING, E.SETTINGS_REFUSED, S.CLOSING, (A.RESTORE, A.SEND_ABORT), outcome="listen"),
    Row(S.BINDING, E.ALL_BOUND, S.BINDING, (A.LISTEN,)),
    Row(S.BINDING, E.LISTENS, S.LOADING, (A.SEND_READY,)),
    Row(S.BINDING, E.LISTEN_REFUSED, S.CLOSING, (A.CUT_DATA, A.RESTORE, A.SEND_ABORT), outcome="spent"),
    Row(S.BINDING, E.BOUND_LOST, S.CLOSING, (A.CUT_DATA, A.RESTORE, A.SEND_ABORT), ("!bound",), "listen"),
    Row(S.BINDING, E.BOUND_LOST, S.CLOSING, (*_LOST, A.SEND_ABORT), ("bound",), "spent"),
    *(
        row
        for event, states, goodbye in ((E.ABORT, HEARING, A.SEND_BYE), (E.EOF, EARLY, A.CLOSE))
        for row in (
            *rows(states, event, S.END, A.SHOW, A.RESTORE, goodbye, when=("!bound",), outcome="listen"),
            Row(S.BINDING, event, S.END, (A.SHOW, *_LOST, goodbye), ("bound",), "spent"),
        )
    ),
    *(
        row
        for event, states in ((E.VIOLATION, HEARING), (E.CANCEL, EARLY))
        for row in (
            *rows(states, event, S.CLOSING, A.RESTORE, A.SEND_ABORT, when=("!bound",), outcome="listen"),
            Row(S.BINDING, event, S.CLOSING, (*_LOST, A.SEND_ABORT), ("bound",), "spent"),
        )
    ),
    *rows(EARLY, E.QEMU_DIED, S.CLOSING, A.CUT_DATA, A.SEND_ABORT, outcome="spent"),
]

_LOADING: Final[Rows] = [
    Row(S.LOADING, E.ASK, S.LOADING, (A.JUDGE_STATE,), when=("recheck",)),
    Row(S.LOADING, E.LOADED, S.HELD, when=("handover", "!given")),
    Row(S.LOADING, E.LOADED, S.TAKING, (A.CONT,), when=("handover", "given")),
    Row(S.LOADING, E.GIVE, S.LOADING, (A.RECORD_TAKEN,), when=("handover", "!given")),
    Row(S.LOADING, E.STARTED, S.RUNNING, (A.RECORD_RAN,), when=("!handover",)),
    *(
        row
        for event in (E.LOAD_FAILED, E.QEMU_DIED, E.CANCEL, E.DISCARD)
        for row in (
            Row(S.LOADING, event, S.CLOSING, (*_LOST, A.SEND_ABORT), ("!given",), "spent"),
            Row(S.LOADING, event, S.CLOSING, (*_LOST, A.SEND_RETURNED, A.SEND_BYE), ("given",), "spent"),
        )
    ),
    Row(S.LOADING, E.VIOLATION, S.CLOSING, (*_LOST, A.SEND_ABORT), outcome="spent"),
    Row(S.LOADING, E.ABORT, S.END, (A.SHOW, *_LOST, A.SEND_BYE), ("!given",), "spent"),
    # S may not abort once it has given
    Row(S.LOADING, E.ABORT, S.LOADING, (A.SHOW,), ("given",)),
    Row(S.LOADING, E.EOF, S.HELD_ALONE, (A.SHOW,), ("handover", "!given")),
    Row(S.LOADING, E.EOF, S.LOADING, (A.SHOW,), ("handover", "given")),
    Row(S.LOADING, E.EOF, S.LOADING, (A.SHOW,), ("!handover",)),
    # held until the source gives
    Row(S.HELD, E.GIVE, S.TAKING, (A.RECORD_TAKEN, A.CONT)),
    *(
        row
        for event in (E.QEMU_DIED, E.DISCARD, E.CANCEL, E.VIOLATION)
        for row in rows((S.HELD,), event, S.CLOSING, *_LOST, A.SEND_ABORT, outcome="spent")
    ),
    Row(S.HELD, E.ABORT, S.END, (A.SHOW, *_LOST, A.SEND_BYE), outcome="spent"),
    Row(S.HELD, E.EOF, S.HELD_ALONE, (A.SHOW,)),
    Row(S.TAKING, E.CONT_OK, S.RUNNING, (A.RECORD_RAN, A.SEND_TAKEN)),
    *(
        row
        for event in (E.CONT_FAILED, E.QEMU_DIED)
        for row in rows((S.TAKING,), event, S.CLOSING, *_LOST, A.SEND_RETURNED, A.SEND_BYE, outcome="spent")
    ),
    *rows((S.TAKING,), E.EOF, None, A.NOTE),
    *rows((S.TAKING,), E.ABORT, None, A.SHOW),
    *rows((S.TAKING, S.RUNNING), E.CANCEL, None, A.REFUSE_CANCEL),
    # control lost: never run, until the source is heard again or management decides
    Row(S.HELD_ALONE, E.RESUMED, S.HELD, (A.NOTE,), ("loaded",)),
    Row(S.HELD_ALONE, E.RESUMED, S.LOADING, (A.NOTE,), ("!loaded",)),
    Row(S.HELD_ALONE, E.LOADED, S.HELD_ALONE, (A.NOTE,)),
    *(
        row
        for event in (E.LOAD_FAILED, E.QEMU_DIED, E.DISCARD, E.CANCEL)
        for row in rows((S.HELD_ALONE,), event, S.END, *_LOST, A.SHOW, outcome="spent")
    ),
]

_RUNNING: Final[Rows] = [
    Row(S.RUNNING, E.COMPLETE, S.CLOSING, (A.SEND_BYE,), outcome="ran"),
    *rows((S.RUNNING,), E.ABORT, None, A.SHOW),
    *rows((S.RUNNING,), E.EOF, None, A.SHOW),
    # the token does not move
    *rows((S.RUNNING,), E.QEMU_DIED, None, A.SHOW),
    *rows((S.RUNNING,), E.DISCARD, S.END, A.SHOW, A.CLOSE, outcome="ran"),
    *rows(LIVE, E.RESUMED, None, A.NOTE),
    *rows((*LIVE, S.HELD_ALONE), E.LATE_BOUND, None, A.NOTE),
    *rows((*LIVE, S.HELD_ALONE), E.BOUND_LOST, None, A.NOTE),
    # a postcopy migration is recovered
    *rows(_POSTCOPY, E.ALL_BOUND, None, A.RECOVER, when=("rebinding",)),
    *rows(_POSTCOPY, E.LISTENS, None, A.SEND_READY, when=("rebinding",)),
    *rows(_POSTCOPY, E.LISTEN_REFUSED, None, A.SHOW, when=("rebinding",)),
]

_END: Final[Rows] = [
    *(
        row
        for event in (E.ABORT, E.BYE, E.EOF, E.GONE, E.LINGER_OVER)
        for row in rows((S.CLOSING,), event, S.END, A.CLOSE)
    ),
    *rows((S.CLOSING, S.END), E.RESUMED, S.CLOSING, A.REPEAT),
]

TABLE: Final = Table("destination", [*_NEGOTIATION, *_LOADING, *_RUNNING, *_END])
