"""Sessions that are taken up again after control was lost."""

from __future__ import annotations

from typing import Any

import pytest

from qmig.errors import LocalProtocolError
from qmig.handshake import messages
from qmig.handshake.binding import Credentials
from qmig.handshake.control import Control
from qmig.handshake.frames import pad_frame
from qmig.handshake.messages import Offer
from qmig.handshake.preamble import Role
from qmig.handshake.resume import DestinationResume, SourceResume
from qmig.testing.handshake import (
    OFFERS,
    SECRET,
    SESSION,
    Pair,
    destination,
    essential,
    grease,
    offers,
    source,
)


def flowing(wanted: Any = OFFERS) -> Pair:
    return Pair(source(wanted), destination()).start()


def given(pair: Pair | None = None) -> Pair:
    pair = (pair or flowing()).tell("source", "qemu_at_switch").tell("destination", "loaded")
    pair.held.add("cont if the guest ran")
    return pair.tell("source", "qemu_gave", run=True)


def lost(pair: Pair, *, give_up: bool = False) -> Pair:
    pair.cut_control()
    return pair.tell("source", "give_up") if give_up else pair


def states(pair: Pair) -> tuple[str, str]:
    return pair.source.state.value, pair.destination.state.value


def test_in_flow_both_go_on() -> None:
    """HS-RES-010."""
    pair = lost(flowing())
    assert states(pair) == ("flow", "held-alone")
    assert pair.resume().done
    assert states(pair) == ("flow", "loading")
    given(pair)
    assert states(pair) == ("given", "taking")


def test_the_switch_waits_for_control() -> None:
    """HS-RES-001."""
    pair = lost(flowing()).tell("source", "qemu_at_switch")
    assert pair.does("source")[-1] == "reconnect"
    pair.resume()
    assert pair.does("source")[-1] == "let the switchover go on"
    pair = lost(flowing(offers("resume.v1"))).tell("source", "qemu_at_switch")
    pair.resume()
    assert pair.source.state.value == "switched"
    again = lost(pair)
    again.resume(first=3)
    assert pair.does("source").count("let the switchover go on") == 1


@pytest.mark.parametrize("give_up", [False, True])
def test_a_give_that_was_lost_is_said_again(give_up: bool) -> None:
    """HS-RES-010."""
    pair = flowing().tell("source", "qemu_at_switch").tell("destination", "loaded")
    pair.held.add("cont if the guest ran")
    pair.cut = True  # GIVE does not arrive
    pair.tell("source", "qemu_gave", run=True)
    lost(pair, give_up=give_up)
    assert states(pair) == ("doubt" if give_up else "given", "held-alone")
    pair.resume()
    assert states(pair) == ("given", "taking")


@pytest.mark.parametrize("give_up", [False, True])
def test_a_taken_that_was_lost_is_in_the_record(give_up: bool) -> None:
    """HS-RES-008."""
    pair = given()
    pair.cut = True
    pair.tell("destination", "continued")
    lost(pair, give_up=give_up)
    pair.resume()
    assert states(pair) == ("gone", "running")
    pair.tell("destination", "complete")
    assert (pair.outcome("source"), pair.outcome("destination")) == ("moved", "ran")


@pytest.mark.parametrize("give_up", [False, True])
def test_while_d_takes(give_up: bool) -> None:
    pair = lost(given(), give_up=give_up)
    pair.resume()
    assert states(pair) == ("given", "taking")


@pytest.mark.parametrize("give_up", [False, True])
def test_a_bye_that_was_lost_is_said_again(give_up: bool) -> None:
    """HS-RES-009."""
    pair = given().tell("destination", "continued")
    assert states(pair) == ("gone", "running")
    pair.cut = True
    pair.tell("destination", "complete")
    pair.cut_control()
    assert states(pair) == ("gone", "end")
    pair.resume()
    assert (pair.outcome("source"), pair.outcome("destination")) == ("moved", "ran")


@pytest.mark.parametrize("give_up", [False, True])
def test_a_guest_that_comes_back(give_up: bool) -> None:
    """HS-RES-009: TAKEN 1 and BYE are said again."""
    pair = given()
    pair.cut = True
    pair.tell("destination", "cont_failed", "locked")
    lost(pair, give_up=give_up)
    pair.resume()
    assert pair.outcome("source") == "here"
    assert pair.source.reason is not None
    assert "locked" in pair.source.reason.text or give_up


@pytest.mark.parametrize("wanted", [OFFERS, offers("resume.v1")])
def test_an_abort_that_was_lost(wanted: Any) -> None:
    pair = flowing(wanted)
    pair.cut = True
    pair.tell("destination", "load_failed", "no")
    lost(pair)
    pair.resume()
    assert pair.outcome("source") == "here"


@pytest.mark.parametrize("give_up", [False, True])
@pytest.mark.parametrize("event", ["started", "load_failed", None])
def test_behind_the_switch_without_hand_over(give_up: bool, event: str | None) -> None:
    pair = flowing(offers("resume.v1")).tell("source", "qemu_at_switch")
    pair.cut = True
    if event is not None:
        pair.tell("destination", event, *(["no"] if event == "load_failed" else []))
    lost(pair, give_up=give_up)
    pair.resume()
    if event == "load_failed":
        assert pair.outcome("source") == "here"
    else:
        assert pair.source.state.value == "switched"


def test_d_loads_what_was_given_to_it() -> None:
    """In postcopy GIVE may come before the load is done; control is lost then."""
    pair = flowing().tell("source", "to_postcopy", run=True).tell("source", "qemu_gave")
    lost(pair)
    assert pair.destination.record is not None
    assert pair.destination.record.value == "taken"
    pair.resume()
    pair.tell("destination", "loaded")
    assert states(pair) == ("gone", "running")


def test_d_may_not_have_noticed_the_loss() -> None:
    """HS-RES-006."""
    pair = flowing()
    pair.source.receive_data(b"")
    pair.cut = True
    pair.run()
    assert states(pair) == ("flow", "loading")
    pair.resume()
    assert states(pair) == ("flow", "loading")
    held = flowing().tell("destination", "loaded")
    held.source.receive_data(b"")
    held.cut = True
    held.run().resume()
    assert states(held) == ("flow", "held")


def test_postcopy_is_recovered_with_new_channels() -> None:
    """HS-RES-011."""
    wanted = {**OFFERS, "postcopy-preempt": Offer(value=True)}
    pair = flowing(wanted).tell("source", "to_postcopy", run=True).tell("source", "qemu_gave")
    pair.tell("destination", "loaded")
    assert states(pair) == ("gone", "running")
    lost(pair)
    pair.bound.clear()
    assert pair.resume(data=True).data
    assert pair.does("destination")[-1] == "let own QEMU recover"
    assert pair.does("source")[-1] == "resume the migration"
    assert ("source", "main", 0) in pair.bound
    assert ("source", "multifd", 0) not in pair.bound
    pair.tell("source", "late_channel", "preempt", 0)
    lost(pair)
    pair.resume(data=True, first=4)
    assert states(pair) == ("gone", "running")
    pair.tell("destination", "complete")
    assert pair.outcome("source") == "moved"


def test_what_fails_while_channels_are_bound_again_ends_nothing() -> None:
    """HS-RES-012."""
    pair = given(flowing()).tell("destination", "continued")
    lost(pair)
    pair.held |= {"let own QEMU recover", "apply the agreed set, open and bind the channels"}
    pair.resume(data=True)
    pair.tell("source", "channel_lost", "no").tell("destination", "bound_lost", "no")
    injected_ready(pair)
    assert states(pair) == ("gone", "running")
    assert "cut" in pair.source.facts
    lost(pair)
    pair.resume(data=True, first=9)
    pair.bind("main", 0)
    pair.run().tell("destination", "listen_refused", "no")
    assert states(pair) == ("gone", "running")


def injected_ready(pair: Pair) -> None:
    from qmig.handshake.frames import message_frames

    pair.source.receive_data(message_frames(messages.Ready(hash=bytes(32)).encode()))
    pair.run()


def test_ready_without_rebinding_is_out_of_turn() -> None:
    pair = given()
    injected_ready(pair)
    assert pair.source.state.value == "given"
    assert "cut" in pair.source.facts


def test_a_pipe_is_resumed_whole() -> None:
    """HS-RES-011 in the mux profile."""
    wanted = {**OFFERS, "channel.mux": essential(Offer(value=True))}
    pair = flowing(wanted).tell("source", "to_postcopy", run=True).tell("source", "qemu_gave")
    pair.tell("destination", "loaded")
    lost(pair)
    pair.resume(data=True)
    assert pair.does("source")[-1] == "resume the migration"
    assert pair.bound == {}


# -- refused ----------------------------------------------------------------------------------------------


def test_what_cannot_be_resumed() -> None:
    """HS-RES-005."""
    with pytest.raises(LocalProtocolError, match="cannot be resumed"):
        source().resume(nonce=bytes(32), grease=grease())
    with pytest.raises(LocalProtocolError, match="cannot be resumed"):
        flowing(offers("handover.v1")).source.resume(nonce=bytes(32), grease=grease())
    fresh = destination()
    assert fresh.resumable(SESSION) is None
    assert flowing(offers("handover.v1")).destination.resumable(SESSION) is None
    pair = flowing()
    assert pair.destination.resumable(bytes(16)) is None
    assert pair.destination.resumable(SESSION) is not None
    early = Pair(source(), destination())
    early.held.add("judge")
    early.start().tell("source", "cancel").tell("destination", "give_verdict", [])
    assert early.destination.record is None
    other = DestinationResume(lambda _: None, nonce=bytes(32), grease=grease())
    with pytest.raises(LocalProtocolError):
        early.destination.resumed(other)


def ends(find: Any = None, **more: Any) -> tuple[SourceResume, DestinationResume]:
    agreed = {"resume.v1": True}
    ours = SourceResume(
        **{
            "session": SESSION, "secret": SECRET, "agreed": agreed, "nonce": b"\x01" * 32,
            "grease": grease(1), "data": False, **more,
        }
    )  # fmt: skip
    theirs = DestinationResume(
        find or (lambda _: (Credentials(SESSION, SECRET), agreed)), nonce=b"\x02" * 32, grease=grease(50)
    )
    return ours, theirs


def talk(ours: SourceResume, theirs: DestinationResume, step: int = 1 << 20) -> None:
    for _ in range(4):
        for end, other in ((ours, theirs), (theirs, ours)):
            data = end.data_to_send()
            for at in range(0, len(data), step):
                other.receive_data(data[at : at + step])


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_proofs_are_right_however_bytes_come(step: int) -> None:
    """HS-RES-013. HS-RES-004, HS-RES-007."""
    ours, theirs = ends()
    talk(ours, theirs, step)
    assert theirs.done
    assert theirs.resume_hash == ours.resume_hash
    assert theirs.next_secret != SECRET


@pytest.mark.parametrize(
    ("more", "find", "code"),
    [
        ({"secret": bytes(32)}, None, "resume-refused"),
        ({"agreed": {"resume.v1": True, "x-colo": True}}, None, "resume-refused"),
        ({"majors": (7,)}, None, "version-unsupported"),
        ({}, lambda _: None, "session-unknown"),
    ],
)
def test_what_d_refuses(more: Any, find: Any, code: str) -> None:
    """HS-RES-002, HS-RES-005."""
    ours, theirs = ends(find, **more)
    talk(ours, theirs)
    assert not theirs.done
    assert theirs.reason is not None
    assert ours.reason is not None
    assert (theirs.reason.code, ours.reason.code, ours.reason.of_peer) == (code, code, True)


def test_a_recording_is_of_no_use() -> None:
    """HS-RES-004: D's nonce is new."""
    ours, theirs = ends()
    recorded = ours.data_to_send()
    theirs.receive_data(recorded)
    ours.receive_data(theirs.data_to_send())
    recorded += ours.data_to_send()
    later = DestinationResume(
        lambda _: (Credentials(SESSION, SECRET), {"resume.v1": True}), nonce=b"\x03" * 32, grease=grease(50)
    )
    later.receive_data(recorded)
    assert later.reason is not None
    assert later.reason.code == "resume-refused"


def test_another_migration_is_busy() -> None:
    """HS-PRE-030."""
    end = source()
    end.start()
    theirs = DestinationResume(lambda _: None, nonce=bytes(32), grease=grease())
    end.next_event()
    theirs.receive_data(end.data_to_send())
    assert theirs.reason is not None
    assert theirs.reason.code == "busy"


def said(role: Role, *parts: Any) -> bytes:
    control = Control(role, None)
    return control.preamble() + b"".join(map(control.message, parts))


HELLO = messages.Hello(majors=(2,), session=SESSION, nonce=bytes(32), profile="resume")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (said(Role.DESTINATION, messages.Ready(hash=bytes(32))), "unexpected-message"),
        (said(Role.DESTINATION, messages.ResumeAnswer(proof=bytes(32), record="held")), "unexpected-message"),
        (
            said(Role.DESTINATION, HELLO, messages.ResumeAnswer(proof=bytes(32), record="held")),
            "resume-refused",
        ),
        (said(Role.DESTINATION, messages.Info(bytes=1), HELLO, HELLO), "unexpected-message"),
        (said(Role.DESTINATION), "control-lost"),
        (b"QEVM\0\0\0\3", "not-qmh"),
    ],
)
def test_what_s_does_not_take(data: bytes, code: str) -> None:
    ours, _ = ends()
    ours.receive_data(data)
    ours.receive_data(b"")
    assert ours.reason is not None
    assert ours.reason.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (said(Role.SOURCE, messages.Resume(mode=0, proof=bytes(32), agreed=bytes(32))), "unexpected-message"),
        (said(Role.SOURCE, HELLO, HELLO), "unexpected-message"),
        (said(Role.SOURCE, HELLO) + pad_frame(9) + b"\x02" + bytes(7), "unexpected-message"),
    ],
)
def test_what_d_does_not_take(data: bytes, code: str) -> None:
    _, theirs = ends()
    theirs.receive_data(data)
    assert theirs.reason is not None
    assert theirs.reason.code == code


@pytest.mark.parametrize("record", ["given", "nonsense"])
def test_a_record_that_says_nothing(record: str) -> None:
    ours, theirs = ends()
    talk(ours, theirs)
    from qmig.handshake import transcript

    theirs.control.message(theirs._grease.message())
    ours.control.receive_data(b"")
    proof = transcript.proof(SECRET, transcript.RESUME_DESTINATION, ours.resume_hash, b"x" * 32)
    ours._answered(messages.ResumeAnswer(proof=proof, record=record), b"x" * 32, bytes(32))
    assert ours.reason is not None
    assert ours.reason.code == "resume-refused"


def test_a_record_that_cannot_be_is_the_end_of_control() -> None:
    pair = given().tell("destination", "continued")
    lost(pair)
    ours = pair.source.resume(nonce=b"\x07" * 32, grease=grease())
    ours.record = "held"
    pair.source.resumed(ours)
    assert pair.source.state.value == "gone"
    assert "cut" in pair.source.facts
