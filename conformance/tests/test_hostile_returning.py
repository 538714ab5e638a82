"""Wrong answers to a source: each row of the registry has one, and what a source is held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmig.errors import RemoteProtocolError
from qmig.legacy.receiver import CLOSED
from qmig.legacy.returnpath import ReturnPathReceiver
from qmig_conformance import artefacts, expect
from qmig_conformance.case import Role, Unmet
from qmig_conformance.hostile import returning
from qmig_conformance.play import Outcome, Seen, Send
from qmig_conformance.report.transcript import transcripts_of_play

FAILS, WAITS = "message-0", "no-shut-connection-stays-open"


def test_every_row_has_an_answer() -> None:
    assert set(returning.ANSWERS) == set(returning.registered())
    assert all(case.roles is Role.SOURCE for _, case in returning.cases())


@pytest.mark.parametrize("value", returning.ANSWERS)
def test_what_is_answered(value: str) -> None:
    """Rows about lengths and cuts are those that our own reader does not take either."""
    play = returning.ANSWERS[value].play()
    assert play.of_source
    data = b"".join(step.data for step in play.steps if isinstance(step, Send))
    receiver = ReturnPathReceiver()
    receiver.receive_data(data)
    receiver.receive_data(b"")
    requirement = ""
    try:
        while receiver.next_event() is not CLOSED:
            pass
    except RemoteProtocolError as error:
        requirement = error.requirement
    of_form = {"LEG-RPM-004", "LEG-RPM-076"}
    own = returning.registered()[value].requirement
    assert bool(requirement) == (own in of_form) or value.startswith("recv-bitmap"), requirement


@pytest.mark.parametrize(
    ("value", "outcome", "run_state", "words", "good"),
    [
        (FAILS, Outcome.FAIL, "running", "qemu-system-x86_64: bad message", True),
        (FAILS, Outcome.FAIL, "postmigrate", "qemu-system-x86_64: bad message", False),
        (FAILS, Outcome.FAIL, "running", "", False),
        (FAILS, Outcome.SUCCEED, "postmigrate", "", False),
        (FAILS, Outcome.CRASH, "", "", False),
        ("control", Outcome.SUCCEED, "postmigrate", "", True),
        ("control", Outcome.FAIL, "running", "why", False),
        (WAITS, Outcome.WAITS, "finish-migrate", "", True),
        (WAITS, Outcome.BLOCKED, "", "", False),
    ],
)
def test_what_a_source_is_held_to(
    value: str, outcome: Outcome, run_state: str, words: str, good: bool
) -> None:
    seen = Seen(outcome=outcome, run_state=run_state, words=words)
    if good:
        expect.source_held(seen, returning.registered()[value], "10.0.13")
        return
    with pytest.raises(Unmet):
        expect.source_held(seen, returning.registered()[value], "10.0.13")


def test_a_play_of_a_source_is_kept_and_shown(tmp_path: Path) -> None:
    play = returning.ANSWERS["shut-1-at-the-end"].play()
    seen = Seen(outcome=Outcome.FAIL, answered={"main": b"QEVM\0\0\0\3"})
    artefacts.save(tmp_path / "a", play, seen, argv=["/bin/q"], qmp=[])
    assert artefacts.load(tmp_path / "a") == (play, "fail")
    shown = transcripts_of_play(play, seen.answered)
    assert "QEVM" in shown.to_destination
    assert "steps: qmp migrate; accept main" in shown.to_source
    assert "RpShut value=1" in shown.to_source
