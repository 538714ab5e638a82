"""Both ends of a session, joined in memory: what goes well, what is refused, what is lost."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import _cbor
from qmig.errors import LocalProtocolError
from qmig.handshake import messages, policy, transcript
from qmig.handshake.binding import DestinationBinding
from qmig.handshake.codes import AbortCode, Level
from qmig.handshake.control import Control
from qmig.handshake.description import deflated, inflated, message
from qmig.handshake.destination import Destination
from qmig.handshake.events import NEED_DATA, Ended, Heard, Reason, clip, own, printable
from qmig.handshake.frames import HandshakeError, message_frames
from qmig.handshake.messages import Finding, Ignorable, Offer
from qmig.handshake.preamble import Preamble, Role
from qmig.handshake.resume import busy
from qmig.handshake.source import Source
from qmig.testing.handshake import (
    ABILITIES,
    DESCRIPTION,
    OFFERS,
    Pair,
    destination,
    essential,
    grease,
    offers,
    probing,
    source,
)  # fmt: skip


def ready(**config: Any) -> Pair:
    return Pair(source(**config), destination()).start()


def plain(**values: Any) -> Pair:
    """Without hand-over, ready."""
    return Pair(source(offers("resume.v1")) if values.get("resume") else source({}), destination()).start()


def fire(pair: Pair, side: str, *events: str, **values: Any) -> Pair:
    for event in events:
        pair.tell(side, event, **values)
    return pair


# -- how it ends ------------------------------------------------------------------------------------------


def held_and_given() -> Pair:
    pair = ready().tell("source", "qemu_at_switch").tell("destination", "loaded")
    pair.held.add("cont if the guest ran")
    return pair.tell("source", "qemu_gave", run=False)


def test_a_paused_guest_stays_paused() -> None:
    """HS-HND-004: `run` goes with GIVE."""
    pair = held_and_given()
    assert pair.destination.run is False
    pair.tell("destination", "continued").tell("destination", "complete", paused=True)
    assert (pair.outcome("source"), pair.outcome("destination")) == ("moved", "ran")


def test_give_may_come_before_the_load_is_done() -> None:
    """HS-HND-005. Postcopy: S may be first."""
    pair = ready().tell("source", "to_postcopy", run=True).tell("source", "qemu_gave", run=False)
    assert pair.destination.run is True  # what was sampled before the stop counts
    assert pair.does("destination")[-1] == "record taken"
    pair.tell("destination", "loaded")
    assert pair.source.state.value == "gone"


def test_what_s_does_for_postcopy() -> None:
    """HS-HND-020: stop first."""
    pair = ready().tell("source", "to_postcopy", run=True)
    assert pair.does("source")[-2:] == ["stop the guest", "start postcopy"]
    pair.tell("source", "cancel")
    assert pair.does("source")[-1] == "refuse: too late"
    with pytest.raises(LocalProtocolError, match="cannot happen in state flow"):
        pair.source.to_postcopy(run=True)


def test_taken_back_in_postcopy_the_guest_stays_stopped() -> None:
    """HS-HND-010."""
    pair = ready().tell("source", "to_postcopy", run=True).tell("source", "qemu_gave")
    pair.tell("destination", "load_failed", text="no")
    assert pair.outcome("source") == "stopped-here"
    assert "run the guest again if it ran before" not in pair.does("source")
    assert pair.does("destination")[-5:-1] == [
        "record taken", "shut the data connections", "end own QEMU", "record returned",
    ]  # fmt: skip


def test_lost_after_give_is_a_doubt_that_management_settles() -> None:
    """HS-HND-011."""
    for moved, outcome in ((True, "moved"), (False, "here")):
        pair = held_and_given()
        pair.cut_control()
        assert pair.does("source")[-1] == "reconnect"
        pair.tell("source", "give_up")
        assert pair.source.state.value == "doubt"
        pair.tell("source", "qemu_failed", text="x").tell("source", "qemu_runs")
        assert pair.does("source")[-4:] == ["stop the guest", "show"] * 2
        pair.tell("source", "resolve", moved=moved)
        assert pair.outcome("source") == outcome


def test_lost_before_give_d_never_runs() -> None:
    """HS-HND-017."""
    pair = ready().tell("destination", "loaded")
    pair.cut_control()
    assert pair.destination.state.value == "held-alone"
    pair.tell("destination", "discard")
    assert pair.outcome("destination") == "spent"
    assert "cont if the guest ran" not in pair.does("destination")
    pair.tell("source", "give_up")
    assert pair.outcome("source") == "here"


def test_without_hand_over_a_loss_behind_the_switch_is_a_doubt() -> None:
    """HS-HND-030."""
    pair = plain().tell("source", "qemu_at_switch")
    assert pair.source.state.value == "switched"
    pair.cut_control()
    assert pair.source.state.value == "doubt"
    assert pair.does("source")[-2:] == ["stop the guest", "show"]
    pair.tell("destination", "started").tell("destination", "complete")
    assert pair.outcome("destination") == "ran"


def test_d_that_is_running_sees_control_end_at_once_when_it_is_done() -> None:
    """HS-STA-011."""
    pair = held_and_given().tell("destination", "continued")
    pair.cut_control()
    assert pair.destination.state.value == "running"
    pair.tell("destination", "complete")
    assert pair.outcome("destination") == "ran"


@pytest.mark.parametrize("event", ["qemu_failed", "machine_changed", "channel_lost"])
def test_an_abort_of_s_in_flow_undoes(event: str) -> None:
    """HS-ERR-007. HS-STA-010, HS-STA-009."""
    pair = ready().tell("source", event, "it broke")
    assert pair.does("source")[-5:] == [
        "shut the data connections", "cancel the migration", "run the guest again if it ran before", "close",
        "restore settings",
    ]  # fmt: skip
    assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "spent")
    assert pair.destination.reason is not None
    assert pair.destination.reason.of_peer


@pytest.mark.parametrize(
    ("event", "code", "outcome"),
    [
        (("listen_refused", "no"), "destination-spent", "spent"),
        (("bound_lost", "no"), "channel-missing", "spent"),
        (("qemu_died", "exit 1"), "load-failed", "spent"),
        (("cancel",), "cancelled", "spent"),
    ],
)
def test_what_goes_wrong_at_d_before_ready(event: tuple[str, ...], code: str, outcome: str) -> None:
    """HS-CHN-012, HS-STA-012, HS-ERR-002."""
    pair = Pair(source(), destination())
    pair.held.add("let own QEMU listen")
    pair.start()
    assert pair.destination.state.value == "binding"
    pair.tell("destination", *event)
    assert pair.outcome("destination") == outcome
    assert pair.source.reason is not None
    assert (pair.source.reason.code, pair.outcome("source")) == (code, "here")


def test_a_setting_that_is_refused() -> None:
    """HS-NEG-020: D restores, and listens on."""
    pair = Pair(source(), destination())
    pair.held.add("set what is agreed, read it back")
    pair.start().tell("destination", "settings_refused", "Postcopy is not supported")
    assert pair.outcome("destination") == "listen"
    assert pair.source.reason is not None
    assert pair.source.reason.code == "settings-failed"
    other = Pair(source(), destination())
    other.held.add("apply the agreed set, open and bind the channels")
    other.start().tell("source", "settings_refused", "no")
    assert other.destination.reason is not None
    assert other.destination.reason.code == "settings-failed"


def test_d_dies_while_it_judges() -> None:
    pair = Pair(source(), destination())
    pair.held.add("judge")
    pair.start().tell("destination", "qemu_died", "signal 11", cause=["last words"])
    assert pair.outcome("destination") == "spent"
    assert pair.source.reason is not None
    assert (pair.source.reason.code, pair.source.reason.cause) == ("internal", ("last words",))


def test_an_abort_that_comes_while_d_judges_is_heard_when_it_is_done() -> None:
    """HS-STA-005."""
    pair = Pair(source(), destination())
    pair.held.add("judge")
    pair.start().tell("source", "cancel")
    assert pair.destination.state.value == "judging"
    pair.tell("destination", "give_verdict", [])
    assert pair.outcome("destination") == "listen"
    assert pair.source.state.value == "end"


def test_crossing_aborts_acknowledge_each_other() -> None:
    """HS-MSG-031."""
    pair = ready()
    pair.source.cancel()
    pair.destination.cancel()
    pair.run()
    assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "spent")


def test_a_linger_ends_what_nobody_ends() -> None:
    pair = ready()
    pair.cut = True  # nothing gets through any more, and nobody notices
    pair.tell("source", "cancel").tell("source", "linger_over")
    pair.tell("destination", "cancel").tell("destination", "linger_over")
    assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "spent")
    pair = ready()
    pair.cut = True
    pair.tell("source", "cancel").tell("source", "cancel")


def test_cancel_before_anything() -> None:
    """HS-PRE-015."""
    end = source()
    end.cancel()
    assert [event for event in iter(end.next_event, NEED_DATA) if isinstance(event, Ended)] == [
        Ended(outcome="here", reason=end.reason)
    ]
    other = destination()
    other.cancel()
    told = list(iter(other.next_event, NEED_DATA))
    assert told[-1] == Ended(outcome="cancelled", reason=other.reason)


def test_late_cancels_are_refused_at_d_too() -> None:
    pair = held_and_given().tell("destination", "cancel")
    assert pair.does("destination")[-1] == "refuse: too late"
    pair.tell("destination", "continued").tell("destination", "cancel")
    assert pair.does("destination")[-1] == "refuse: too late"
    pair.tell("source", "cancel")
    assert pair.does("source")[-1] == "refuse: too late"


# -- negotiation, verdicts --------------------------------------------------------------------------------


def test_a_probe_changes_nothing_and_d_listens_on() -> None:
    """HS-PRB-001."""
    pair = Pair(probing(), destination()).start()
    assert (pair.outcome("source"), pair.outcome("destination")) == ("probed", "listen")
    bad = Finding(rule="D01", level="incompatible")
    pair = Pair(probing(), destination(), findings=[bad]).start()
    assert pair.outcome("source") == "probed"
    assert pair.source.verdict is not None
    assert pair.source.verdict.findings == (bad,)


FINDINGS = [
    Finding(rule="D05", level="note", path="/c"),
    Finding(rule="V06", level="warn", path="/a"),
    Finding(rule="D01", level="incompatible", path="/b", text="gone"),
]


@pytest.mark.parametrize(
    ("allowed", "strict", "theirs", "goes"),
    [
        ([], False, False, False),
        ([("D01", None)], False, False, True),
        ([("D01", "/b")], False, False, True),
        ([("D01", "/x")], False, False, False),
        ([("D01", None)], True, False, False),
        ([("D01", None), ("V06", None)], True, False, True),
        ([("D01", None), ("V06", None)], False, True, False),
    ],
)
def test_who_admits_what(allowed: Any, strict: bool, theirs: bool, goes: bool) -> None:
    """HS-CMP-009. HS-CMP-005, HS-CMP-006, HS-CMP-007."""
    admitted = [policy.Admission(rule, path) for rule, path in allowed]
    pair = Pair(
        source(allowed=admitted, strict=strict), destination(strict=theirs), findings=FINDINGS
    ).start()
    assert pair.source.verdict is not None
    assert [finding.rule for finding in pair.source.verdict.findings] == ["D01", "V06", "D05"]
    assert (pair.source.state.value == "flow") is goes
    if not goes:
        reason = pair.source.reason
        assert reason is not None
        assert reason.code == "incompatible-machine"
        assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "listen")


def test_warnings_pass_and_strict_refuses_them() -> None:
    """HS-CMP-001, HS-CMP-002."""
    warn = [Finding(rule="V06", level="warn")]
    assert Pair(source(), destination(), findings=warn).start().source.state.value == "flow"
    assert Pair(source(strict=True), destination(), findings=warn).start().outcome("source") == "here"
    assert Pair(source(), destination(strict=True), findings=warn).start().outcome("source") == "here"
    odd = [Finding(rule="X01", level="catastrophic")]
    assert Pair(source(), destination(), findings=odd).start().outcome("source") == "here"


def test_findings_that_do_not_fit_are_counted_and_cannot_be_admitted() -> None:
    """HS-CMP-004, HS-CMP-008."""
    many = [Finding(rule="D01", level="incompatible", path=f"/{at:04}") for at in range(1500)]
    pair = Pair(source(allowed=[policy.Admission("D01")]), destination(), findings=many).start()
    assert pair.source.verdict is not None
    assert len(pair.source.verdict.findings) == 1000
    assert pair.source.verdict.counts == {"D01": 500}
    assert pair.source.state.value == "flow"  # what was told is as bad as what was not
    long = [
        Finding(rule="U01", level="warn", path=f"/{at:04}", source="x" * 4000, destination="y" * 4000)
        for at in range(900)
    ]
    verdict = policy.verdict(long, bytes(32))
    assert 0 < len(verdict.findings) < 900
    assert (verdict.counts or {})["U01"] == 900 - len(verdict.findings)
    with pytest.raises(LocalProtocolError):
        policy.verdict([Finding(rule="not a rule \x00" * 40, level="warn")], b"short")
    untold = messages.Verdict(level="incompatible", findings=(), sha256=bytes(32))
    assert not policy.decide(untold, [policy.Admission("D01")], strict=False).go
    assert not policy.suffices((), (), level="incompatible", strict=False)


def test_s_may_veto_what_d_says_of_itself() -> None:
    """HS-DSC-012."""
    wanted = {**OFFERS, "description.peer": Offer(value=True)}
    pair = Pair(source(wanted), destination(description=DESCRIPTION))
    pair.held.add("describe the machine")
    pair.start()
    assert pair.does("source")[-2:] == ["judge the peer's description", "describe the machine"]
    pair.source.veto([Finding(rule="R01", level="incompatible", text="x" * 2000)] * 20)
    pair.tell("source", "describe", DESCRIPTION)
    reason = pair.destination.reason
    assert reason is not None
    assert (reason.code, pair.outcome("source")) == ("incompatible-machine", "here")
    assert 0 < len(reason.findings) < 20


def test_classes_that_differ_are_asked_for() -> None:
    """HS-DSC-005. HS-DSC-006."""
    digests = {"guest": bytes(32), "stream": b"\x01" * 32}
    pair = Pair(source(digests=digests), destination(digests={**digests, "guest": b"\x02" * 32}))
    pair.start()
    assert pair.source.need == ("guest",)
    assert ready().source.need is None


def test_more_channels_than_d_binds() -> None:
    """HS-NEG-024."""
    pair = Pair(source(), destination(limits=messages.Limits(channels=2))).start()
    assert pair.source.reason is not None
    assert (pair.source.reason.code, pair.outcome("destination")) == ("resource", "listen")
    assert (
        Pair(source(), destination(limits=messages.Limits(channels=3))).start().source.state.value == "flow"
    )


def test_what_d_demands() -> None:
    """HS-NEG-007."""
    pair = Pair(
        source(), destination(required={"x-colo": "here it stays replicated", "resume.v1": ""})
    ).start()
    assert pair.source.reason is not None
    assert pair.source.reason.code == "missing-required"
    assert "x-colo: here it stays replicated" in pair.source.reason.text
    assert "resume" not in pair.source.reason.text
    assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "listen")


def test_a_d_that_cannot_hold() -> None:
    """HS-NAM-010."""
    pair = Pair(source(), destination(holds=False)).start()
    assert pair.source.reason is not None
    assert "handover.v1: no-hold" in pair.source.reason.text
    pair = Pair(source({}), destination({}, holds=False)).start()
    assert pair.source.state.value == "flow"


def test_a_d_that_takes_nobody_says_why() -> None:
    """HS-MSG-013, HS-ERR-008."""
    spent = own(AbortCode.DESTINATION_SPENT, "start another QEMU")
    pair = Pair(source(), destination(refuse=spent)).start()
    assert pair.source.reason is not None
    assert (pair.source.reason.code, pair.source.reason.of_peer) == ("destination-spent", True)
    pair = Pair(source(majors=(9,)), destination()).start()
    assert pair.source.reason is not None
    assert (pair.source.reason.code, pair.source.reason.majors) == ("version-unsupported", (2,))


def test_recheck() -> None:
    """HS-RCK-001, HS-RCK-002."""
    pair = Pair(source({**OFFERS, "recheck.v1": Offer(value=True)}), destination()).start()
    pair.tell("source", "recheck", DESCRIPTION)
    heard = [event.message for side, event in pair.log if side == "source" and isinstance(event, Heard)]
    assert heard[-1] == messages.SwitchGrant(code=0)
    pair.findings = (Finding(rule="V05", level="incompatible"),)
    pair.tell("source", "recheck", DESCRIPTION)
    assert pair.does("source")[-1] == "show"
    pair.tell("destination", "loaded").tell("source", "recheck", DESCRIPTION)
    with pytest.raises(LocalProtocolError):
        ready().source.recheck(DESCRIPTION)


def test_questions_and_answers_that_nobody_asked_for() -> None:
    """HS-STA-002."""
    pair = injected("source", messages.SwitchGrant(code=0))
    assert pair.source.state.value in {"closing", "end"}
    pair = injected("destination", messages.SwitchAsk(state=DESCRIPTION))
    assert pair.outcome("destination") == "spent"


def test_nonsense_behind_a_cancel_is_the_end_of_control() -> None:
    end = source()
    end.start()
    end.cancel()
    end.receive_data(b"HTTP/1.1")
    list(iter(end.next_event, NEED_DATA))
    assert end.state.value == "end"


def test_a_judgement_that_a_resumed_session_no_longer_waits_for_is_not_said() -> None:
    """HS-RCK-002."""
    pair = Pair(source({**OFFERS, "recheck.v1": Offer(value=True)}), destination())
    pair.held.add("judge the state again, then send SWITCH-GRANT")
    pair.start().tell("source", "recheck", DESCRIPTION).tell("source", "qemu_at_switch")
    pair.cut_control()
    pair.resume()
    assert pair.does("destination").count("judge the state again, then send SWITCH-GRANT") == 2
    pair.tell("destination", "grant").tell("destination", "grant")
    assert pair.does("source")[-1] == "let the switchover go on"
    with pytest.raises(LocalProtocolError, match="cannot happen"):
        pair.source.recheck(DESCRIPTION)


def test_a_switch_that_is_denied_can_be_cancelled_also_in_postcopy() -> None:
    """HS-RCK-003."""
    bad = Finding(rule="V05", level="incompatible")
    pair = Pair(source({**OFFERS, "recheck.v1": Offer(value=True)}), destination()).start()
    pair.findings = (bad,)
    pair.tell("source", "to_postcopy", run=True).tell("source", "recheck", DESCRIPTION)
    pair.tell("source", "qemu_at_switch")
    assert pair.source.state.value == "flow"
    pair.tell("source", "cancel")
    assert pair.outcome("source") == "here"


def test_information_is_passed_on() -> None:
    pair = ready()
    pair.source.info(bytes=5, phase="flow")
    pair.destination.info(text="loading")
    pair.run()
    told = [event.message for _, event in pair.log if isinstance(event, Heard)]
    assert messages.Info(bytes=5, phase="flow") in told
    assert messages.Info(text="loading") in told


# -- the peer breaks the rules ----------------------------------------------------------------------------


def injected(side: str, *parts: messages.Message | Ignorable, pair: Pair | None = None) -> Pair:
    """A message that the other end never said."""
    pair = pair or ready()
    end: Source | Destination = pair.source if side == "source" else pair.destination
    for part in parts:
        end.receive_data(message_frames(part.encode()))
    return pair.run()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_out_of_turn(side: str) -> None:
    """HS-MSG-007. HS-STA-002."""
    pair = injected(side, messages.Ready(hash=bytes(32)))
    end = pair.source if side == "source" else pair.destination
    assert end.reason is not None
    assert end.reason.code == "unexpected-message"
    assert {pair.outcome("source"), pair.outcome("destination")} == {"here", "spent"}


def test_a_violation_in_a_late_state_is_the_end_of_control_and_moves_nothing() -> None:
    """HS-STA-004."""
    pair = injected("source", messages.Give(run=True), pair=held_and_given())
    assert pair.source.state.value == "given"
    assert pair.does("source")[-1] == "reconnect"
    pair = injected("destination", messages.Give(run=True), pair=held_and_given())
    assert pair.destination.state.value == "taking"
    pair = ready().tell("source", "qemu_gave")
    injected("destination", messages.Give(run=True), pair=pair)
    assert pair.destination.state.value == "loading"
    pair.tell("destination", "loaded")
    assert pair.destination.state.value == "running"


def test_aborts_that_move_nothing() -> None:
    """HS-HND-008, HS-HND-009."""
    gone = messages.Abort(code="internal", text="x")
    pair = injected("destination", gone, pair=held_and_given())
    assert pair.destination.state.value == "taking"
    pair.tell("destination", "continued")
    injected("destination", gone, pair=pair)
    assert pair.destination.state.value == "running"
    injected("source", gone, pair=pair)
    assert pair.outcome("source") == "moved"
    pair = ready().tell("source", "qemu_gave")
    injected("destination", gone, pair=pair)
    assert pair.destination.state.value == "loading"


def test_ignorable_messages_are_ignored_everywhere() -> None:
    pair = injected("source", Ignorable(type=200, body=[1]))
    pair = injected("destination", Ignorable(type=200, body=None), pair=pair)
    assert pair.source.state.value == "flow"


def test_a_session_that_is_not_ours() -> None:
    """HS-MSG-012."""
    end = source()
    end.start()
    control = Control(Role.DESTINATION, None)
    end.receive_data(
        control.preamble() + control.message(messages.Hello(majors=(2,), session=bytes(16), nonce=bytes(32)))
    )
    told = list(iter(end.next_event, NEED_DATA))
    assert end.reason is not None
    assert (end.reason.code, end.state.value) == ("unexpected-message", "closing")
    assert told


def answered(*parts: messages.Message | None) -> Source:
    """A source that hears this behind D's HELLO (with None: without one)."""
    end = source({**OFFERS, "description.peer": Offer(value=True)})
    end.start()
    control = Control(Role.DESTINATION, None)
    hello = messages.Hello(majors=(2,), session=end.session, nonce=bytes(32))
    said = [part for part in (hello, *parts) if part is not None]
    if None in parts:
        said.remove(hello)
    end.receive_data(control.preamble() + b"".join(map(control.message, said)))
    list(iter(end.next_event, NEED_DATA))
    return end


RESULTS = dict.fromkeys((*OFFERS, "description.peer"), (2,))


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([messages.Answer(major=3, results={})], "selection-mismatch"),
        ([messages.Answer(major=2, results={})], "selection-mismatch"),
        ([messages.Machine(schema=1, encoding=0, data=b"", sha256=bytes(32))], "unexpected-message"),
        ([None, messages.Answer(major=2, results={})], "unexpected-message"),
        ([messages.Answer(major=2, results=RESULTS)] * 2, "missing-required"),
        ([messages.Hello(majors=(2,), session=bytes(range(16)), nonce=bytes(32))], "unexpected-message"),
    ],
)
def test_answers_that_s_does_not_take(parts: Any, code: str) -> None:
    end = answered(*parts)
    if code == "missing-required":
        return
    assert end.reason is not None
    assert end.reason.code == code


def test_a_damaged_description_of_d() -> None:
    """HS-DSC-002."""
    results = {
        **dict.fromkeys(OFFERS, (2,)), "handover.v1": (0, True), "description.peer": (0, True),
        grease().name(): (2,),
    }  # fmt: skip
    answer = messages.Answer(major=2, results=results)
    good = messages.Machine(schema=1, encoding=1, data=deflated(b"\xa0"), sha256=transcript.sha256(b"\xa0"))
    bad = messages.Machine(schema=1, encoding=0, data=b"\xa0", sha256=bytes(32))
    end = answered(answer, bad)
    assert end.reason is not None
    assert end.reason.code == "bad-encoding"
    end = answered(answer, good, good)
    assert end.reason is not None
    assert end.reason.code == "unexpected-message"


@pytest.mark.parametrize("at", range(0, 420, 7))
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_relay_that_changes_a_byte_gets_nobody_to_ready(side: str, at: int) -> None:
    """HS-TRN-006: an error on some side, or both stand and wait."""
    pair = Pair(source(), destination())
    deliver = pair._deliver

    def change(who: str, data: bytes) -> bool:
        before = len(pair.said[who])
        if who == side and before <= at < before + len(data):
            odd = bytearray(data)
            odd[at - before] ^= 0x01
            data = bytes(odd)
        return deliver(who, data)

    pair._deliver = change  # type: ignore[method-assign, assignment]
    pair.start()
    if 10 <= at < 16:  # reserved bytes are in the transcript too
        assert pair.source.state.value not in {"flow"}
    assert pair.source.state.value != "flow"
    assert pair.destination.state.value not in {"held", "running"}


def test_a_mismatch_tells_both_hellos() -> None:
    """HS-TRN-005."""
    text = transcript.mismatch("READY", bytes(32), b"\xff" * 32)
    assert text == "READY: both sides heard other bytes (HELLO S 0000000000000000, D ffffffffffffffff)"


# -- beginnings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "peer-closed-early"),
        (b"QEVM", "not-qmh"),
        (b"QMH\n", "transport-not-transparent"),
        (Preamble(framing=2, role=Role.SOURCE, reserved=bytes(6)).encode(), "version-unsupported"),
        (Preamble(framing=3, role=Role.DESTINATION, reserved=bytes(6)).encode(), "version-unsupported"),
        (b"QM", "control-lost"),
    ],
)
def test_what_s_makes_of_what_is_no_v2_peer(said: bytes, code: str) -> None:
    """HS-ERR-003, HS-PRE-016. HS-PRE-014."""
    end = source()
    end.start()
    end.receive_data(said)
    list(iter(end.next_event, NEED_DATA))
    end.receive_data(b"")
    told = list(iter(end.next_event, NEED_DATA))
    assert end.reason is not None
    assert (end.reason.code, end.state.value) == (code, "end")
    assert isinstance(told, list)


def test_a_transport_of_one_direction() -> None:
    end = source()
    end.start()
    end.one_way()
    assert end.reason is not None
    assert end.reason.code == "transport-one-way"


@pytest.mark.parametrize(
    ("said", "code", "answer"),
    [
        (b"", "not-qmh", False),
        (b"QEVM\0\0\0\3", "not-qmh", False),
        (Preamble(framing=3, role=Role.SOURCE, reserved=bytes(6)).encode(), "version-unsupported", False),
        (Preamble(framing=2, role=0x58, reserved=bytes(6)).encode(), "version-unsupported", True),
    ],
)
def test_what_d_makes_of_what_is_no_v2_peer(said: bytes, code: str, answer: bool) -> None:
    """HS-PRE-008, HS-PRE-012."""
    end = destination()
    end.receive_data(said)
    list(iter(end.next_event, NEED_DATA))
    end.receive_data(b"")
    list(iter(end.next_event, NEED_DATA))
    assert end.reason is not None
    assert (end.reason.code, bool(end.data_to_send())) == (code, answer)
    if answer:
        end.linger_over()
    assert end.state.value == "end"


def hello_of(**more: Any) -> Destination:
    end = destination()
    control = Control(Role.SOURCE, None)
    hello = messages.Hello(majors=(2,), session=bytes(16), nonce=bytes(32), **more)
    end.receive_data(control.preamble() + control.message(hello))
    list(iter(end.next_event, NEED_DATA))
    return end


@pytest.mark.parametrize(
    ("profile", "code"),
    [("file", "unexpected-message"), ("resume", "session-unknown"), (None, "unexpected-message")],
)
def test_profiles_that_d_does_not_take(profile: str | None, code: str) -> None:
    end = hello_of(profile=profile)
    assert end.reason is not None
    assert (end.reason.code, end.state.value) == (code, "closing")


def test_a_hello_that_is_cut() -> None:
    end = destination()
    end.receive_data(Preamble(framing=2, role=Role.SOURCE, reserved=bytes(6)).encode())
    list(iter(end.next_event, NEED_DATA))
    end.qemu_died("exit 1")
    list(iter(end.next_event, NEED_DATA))
    assert end.data_to_send()[:16].hex().startswith("514d480d0a1a00ff0244")
    waiting = destination()
    waiting.qemu_died("exit 1")
    assert waiting.state.value == "end"


def test_a_damaged_description_of_s() -> None:
    """HS-DSC-002, HS-DSC-004."""
    end = hello_of(profile="migrate")
    item = messages.Machine(schema=1, encoding=1, data=b"junk", sha256=bytes(32))
    end.receive_data(message_frames(item.encode()))
    list(iter(end.next_event, NEED_DATA))
    assert end.reason is not None
    assert end.reason.code == "bad-encoding"


@pytest.mark.parametrize(
    ("encoding", "data", "good"),
    [
        (0, b"\xa0", True), (1, zlib.compress(b"\xa0"), True), (2, b"\xa0", False), (1, b"junk", False),
        (1, zlib.compress(b"\xa0") + b"x", False), (1, zlib.compress(b"\xa0")[:-1], False),
        (1, zlib.compress(bytes((16 << 20) + 1)), False), (1, zlib.compress(bytes(16 << 20)), True),
    ],
)  # fmt: skip
def test_inflating(encoding: int, data: bytes, good: bool) -> None:
    """HS-DSC-004: a bomb stops at the limit."""
    item = messages.Machine(schema=1, encoding=encoding, data=data, sha256=bytes(32))
    assert (inflated(item) is not None) is good


def test_every_session_is_greased() -> None:
    """HS-EVO-004, HS-EVO-005: in preamble, majors, offer, a key and a message of S; in preamble,
    a key, a declared name and a message of D; and it comes to nothing."""
    pair = ready()
    heard: dict[str, list[Any]] = {"source": [], "destination": []}
    for side, role in (("source", Role.SOURCE), ("destination", Role.DESTINATION)):
        control = Control(Role.SOURCE, role)
        control.receive_data(bytes(pair.said[side]))
        while (found := control.next()) is not None:
            heard[side].append(found.message if hasattr(found, "message") else found)
    for parts in heard.values():
        assert parts[0].reserved != bytes(6)
        assert any(isinstance(part, Ignorable) and part.type in messages.GREASE for part in parts)
    hello, answer = heard["source"][1], heard["destination"][3]
    assert [major for major in hello.majors if major >= 1_000]
    assert [number for number in hello.extra if number >= 60_000]
    assert [number for number in answer.extra if number >= 60_000]
    (name,) = [name for name in hello.offer if name.startswith("grease.")]
    assert answer.results[name] == (2,)
    assert [name for name in answer.declared if name.startswith("grease.")]
    assert not [name for name in pair.source.agreement.agreed if name.startswith("grease.")]


def test_a_long_description_is_deflated_and_judged_as_it_was() -> None:
    """HS-DSC-003."""
    long = _cbor.encode({"state": {f"/machine/{at}": "virtio" for at in range(100)}})
    pair = Pair(source(), destination())
    pair.held.add("describe the machine")
    pair.start().tell("source", "describe", long)
    assert pair.destination.judged == long
    assert len(pair.said["source"]) < len(long)
    assert message(b"\xa0").encoding == 0


def test_busy() -> None:
    """HS-PRE-030."""
    end = source()
    end.start()
    end.receive_data(busy())
    list(iter(end.next_event, NEED_DATA))
    assert end.reason is not None
    assert (end.reason.code, end.state.value) == ("busy", "end")


# -- channels ---------------------------------------------------------------------------------------------


def binding_pair() -> Pair:
    pair = Pair(source(offers(multifd_channels=2)), destination())
    pair.held.add("apply the agreed set, open and bind the channels")
    return pair.start()


def asked(pair: Pair, data: bytes) -> tuple[DestinationBinding, bytes]:
    request = DestinationBinding()
    for at in range(len(data)):
        assert not request.request
        request.receive_data(data[at : at + 1])
    return request, pair.destination.bind(request)


def test_channels_in_any_order_and_ready_when_all_are_bound() -> None:
    """HS-CHN-005. HS-CHN-010, HS-CHN-013."""
    pair = binding_pair()
    for kind, index in (("multifd", 1), ("main", 0), ("multifd", 0)):
        assert pair.run().source.state.value == "binding"
        pair.bind(kind, index)
    assert pair.run().source.state.value == "flow"


def test_channels_that_are_refused_leave_the_session_alone() -> None:
    """HS-CHN-010."""
    pair = binding_pair()
    good = pair.source.binding("main", 0).hello()
    request, answer = asked(pair, good)
    assert request.reason is None
    ours = pair.source.binding("main", 0)
    assert ours.receive_data(answer)
    assert ours.bound
    pair.source.channel_bound(ours)
    for data, code in (
        (good, "channel-unexpected"),
        (good[:-1] + bytes([good[-1] ^ 1]), "channel-unexpected"),
        (pair.source.binding("multifd", 0).hello()[:-1] + b"\x00", "bad-binding"),
    ):
        request, answer = asked(pair, data)
        assert request.reason is not None
        assert request.reason.code == code
        refused = pair.source.binding("main", 0)
        refused.receive_data(answer)
        assert refused.reason is not None
        assert (refused.reason.code, refused.reason.of_peer) == (code, True)
    with pytest.raises(LocalProtocolError):
        pair.source.binding("preempt", 0)
    pair.bind("multifd", 0)
    pair.bind("multifd", 1)
    assert pair.run().source.state.value == "flow"


def test_a_refused_channel_ends_the_session_at_s() -> None:
    """HS-CHN-011."""
    pair = binding_pair()
    ours = pair.source.binding("main", 0)
    ours.receive_data(message_frames(own(AbortCode.BAD_BINDING, "no").message().encode()))
    pair.source.channel_bound(ours)
    assert pair.run().outcome("source") == "here"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "channel-missing"),
        (message_frames(messages.Ready(hash=bytes(32)).encode()), "unexpected-message"),
        (message_frames(messages.ChannelOk(kind="main", index=0, token=bytes(32)).encode()), "bad-binding"),
        (message_frames(messages.ChannelOk(kind="main", index=1, token=bytes(32)).encode()), "bad-binding"),
        (b"\x05" + bytes(7), "bad-encoding"),
    ],
)
def test_answers_on_a_data_connection_that_s_does_not_take(data: bytes, code: str) -> None:
    ours = binding_pair().source.binding("main", 0)
    assert ours.receive_data(data[:1]) is (len(data) < 2)
    if data:
        assert ours.receive_data(data[1:])
    assert ours.reason is not None
    assert ours.reason.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "channel-missing"), (b"QEVM\0\0\0\3", "not-qmh")],
)
def test_beginnings_of_data_connections_that_d_does_not_take(data: bytes, code: str) -> None:
    request = DestinationBinding()
    assert request.receive_data(data)
    assert request.reason is not None
    assert request.reason.code == code
    request = DestinationBinding()
    control = Control(Role.CHANNEL, None)
    assert request.receive_data(control.preamble() + control.message(messages.Ready(hash=bytes(32))))
    assert request.reason is not None
    assert request.reason.code == "unexpected-message"


def test_what_follows_a_binding_is_the_channels() -> None:
    """HS-CHN-006."""
    pair = binding_pair()
    request = DestinationBinding()
    request.receive_data(pair.source.binding("main", 0).hello() + b"QEVM")
    assert request.rest == b"QEVM"
    ours = pair.source.binding("main", 0)
    ours.receive_data(pair.destination.bind(request) + b"back")
    assert (ours.bound, ours.rest) == (True, b"back")


def test_no_channel_without_a_session() -> None:
    request = DestinationBinding()
    request.receive_data(binding_pair().source.binding("main", 0).hello())
    idle = destination()
    idle.bind(request)
    assert request.reason is not None
    assert request.reason.code == "bad-binding"


def test_preempt_is_bound_late() -> None:
    """HS-CHN-003. HS-CHN-014."""
    pair = Pair(source(offers("postcopy-ram", "postcopy-preempt", "handover.v1")), destination()).start()
    assert pair.source.agreement.plan == (("main", 0, 0), ("preempt", 0, 1))
    pair.tell("source", "to_postcopy", run=True).tell("source", "late_channel", "preempt", 0)
    assert ("source", "preempt", 0) in pair.bound
    assert pair.source.state.value == "flow"


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ((("main", 0, 0),), "channel multifd/0 does not go with"),
        ((("main", 0, 0), ("multifd", 0, 1)), "channel multifd/0 does not go with"),
        ((("main", 0, 0), ("multifd", 0, 0), ("multifd", 0, 0)), "channel multifd/0 is planned twice"),
        ((("bulk", 0, 0),), "channel kind 'bulk' is not known"),
    ],
)
def test_plans_that_d_does_not_take(plan: Any, problem: str) -> None:
    """HS-CHN-001, HS-CHN-002."""
    assert policy.unexpected(policy.plan_for({"multifd-channels": 1}), {"multifd-channels": 1}) == ""
    assert problem in policy.unexpected(plan, {"multifd-channels": 1})


def test_commits_that_d_does_not_take() -> None:
    for change, code in (
        ({"agreed": {"x-colo": True}}, "bad-agreed-set"),
        ({"plan": (("bulk", 0, 0),)}, "channel-unexpected"),
    ):
        pair = Pair(source(), destination())
        said = pair.source._say

        def say(message: Any, said: Any = said, change: Any = change) -> None:
            if isinstance(message, messages.Commit):
                message = messages.Commit(
                    **{"agreed": message.agreed, "plan": message.plan, "hash": message.hash, **change}
                )
            said(message)

        pair.source._say = say  # type: ignore[method-assign]
        pair.start()
        assert pair.destination.reason is not None
        assert (pair.destination.reason.code, pair.outcome("destination")) == (code, "listen")


def test_ready_before_all_is_bound() -> None:
    """HS-CHN-013."""
    pair = binding_pair()
    injected("source", messages.Ready(hash=bytes(32)), pair=pair)
    assert pair.source.reason is not None
    assert "before channel main/0" in pair.source.reason.text


@pytest.mark.parametrize("name", ["Accept", "Ready"])
def test_hashes_that_differ(name: str) -> None:
    """HS-TRN-005."""
    pair = Pair(source(offers("channel.mux")), destination())
    said = pair.destination._say

    def say(message: Any) -> None:
        if type(message).__name__ == name:
            values = {**message.write(), 1: bytes(32)}
            message = type(message).read(values, name)
        said(message)

    pair.destination._say = say  # type: ignore[method-assign]
    pair.start()
    assert pair.source.reason is not None
    assert pair.source.reason.code == "transcript-mismatch"


# -- mux --------------------------------------------------------------------------------------------------


def test_mux_frames_are_told_from_ready_on() -> None:
    """HS-MUX-001. HS-MUX-010."""
    from qmig.handshake.frames import data_frame, window_frame

    pair = Pair(source({**OFFERS, "channel.mux": essential(Offer(value=True))}), destination()).start()
    assert pair.source.state.value == "flow"
    assert pair.bound == {}
    pair.destination.receive_data(data_frame(1, b"QEVM") + window_frame(1, 5))
    pair.source.receive_data(data_frame(1, b"", fin=True))
    pair.run()
    assert [type(told.frame).__name__ for told in pair.carried("destination")] == ["DataFrame", "WindowFrame"]
    assert len(pair.carried("source")) == 1
    pair.destination.violated(
        HandshakeError(AbortCode.LIMIT_EXCEEDED, "x", requirement="HS-MUX-003", offset=0, record="frame")
    )
    assert pair.run().outcome("destination") == "spent"


# -- small things -----------------------------------------------------------------------------------------


@given(st.text())
def test_texts_of_peers_are_printable_and_short(text: str) -> None:
    """HS-SEC-006."""
    assert printable(text).isprintable()
    assert len(clip(text, 7).encode()) <= 7


def test_a_reason_goes_there_and_back() -> None:
    """HS-ERR-001, HS-ERR-006."""
    reason = Reason(
        code="load-failed", text="x\n" * 3000, path="/a\x00", who="manager", retry="never",
        findings=(Finding(rule="D01", level=Level.WARN.value),), cause=("a\x1b",) * 20, majors=(2,),
    )  # fmt: skip
    again = Reason.of(reason.message())
    assert again.of_peer
    assert (again.path, len(again.cause), again.findings) == ("/a\\x00", 16, tuple(reason.findings))
    assert str(again).startswith("load-failed at /a\\x00: x\\n")
    assert again.text.isprintable()
    bare = Reason.of(messages.Abort(code="internal", text="x"))
    assert str(bare) == "internal: x"
    assert bare.finding().path is None


def test_nothing_secret_in_what_is_shown() -> None:
    """HS-SEC-005."""
    pair = ready()
    shown = repr(pair.log) + repr(pair.source.binding("main", 0)) + repr(pair.source.config)
    for secret in (b"\x11" * 32, pair.source.session, b"\xa5" * 32, b"\x5a" * 32):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_what_both_can_do_is_what_is_agreed() -> None:
    assert set(ready().source.agreement.agreed) <= set(ABILITIES)
