"""A source's phases: what may come when, requests first, recovery of what is missing only, errors with their
place."""

from __future__ import annotations

from typing import Any

import pytest

from qmig._wire import Record
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy import commands as cmd
from qmig.legacy import ram, requests
from qmig.legacy import returnpath as rp
from qmig.legacy.machine_image import MachineImage
from qmig.legacy.pageplan import PagePlan
from qmig.legacy.pageset import Budget, PageSet
from qmig.legacy.requests import MOST, Pending
from qmig.legacy.source import Connect, End, MigrationSource, Output, Send
from qmig.legacy.source_settings import Postcopy, SourceSettings
from qmig.legacy.source_table import TRANSITIONS, SourcePhase, Step
from qmig.legacy.sync import SyncMode
from qmig.testing import migrations as m
from qmig.testing.answerer import EVERYTHING, Answerer, drive
from qmig.testing.images import recorded, small

PAGE = 4096
HOST = 4 * PAGE


def source(taken: MachineImage | None = None, **given: Any) -> MigrationSource:
    settings = {"return_path": True, "postcopy": Postcopy.STARTED, **given}
    taken = taken or small("postcopy")
    return MigrationSource(taken, SourceSettings.for_machine(taken.machine, **settings))


def begun(**given: Any) -> MigrationSource:
    """A postcopy whose guest was given up and that waits for a request."""
    started = source(background_after=1, **given)
    drive(started, Answerer())
    assert started.phase is SourcePhase.POSTCOPY
    return started


def said(*messages: Record) -> bytes:
    return b"".join(message.encode() for message in messages)


def asked(block: str, start: int, length: int) -> rp.RpReqPagesId:
    return rp.RpReqPagesId(header_len=13 + len(block), start=start, length=length, block=block)


def phase(migration: MigrationSource) -> SourcePhase:
    return migration.phase


def same_memory(taken: MachineImage, answerer: Answerer) -> None:
    for block in taken.blocks:
        assert answerer.memory[block.idstr] == block.read(0, block.used_length), block.idstr


def pages_of(answerer: Answerer, channel: str) -> list[tuple[str, int, int]]:
    """(block, first page, pages) of the batches behind RUN."""
    told = answerer.told
    run = next(n for n, (_, event) in enumerate(told) if isinstance(event, cmd.PostcopyRun))
    return [
        (event.block, event.ascents[0].first // PAGE, event.normal + event.zero)
        for name, event in told[run:]
        if name == channel and isinstance(event, ram.RamPages)
    ]


# -- postcopy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preempt", [False, True])
def test_what_is_asked_for_comes_first(preempt: bool) -> None:
    """Whole host pages, each once; what was sent in precopy is not sent again."""
    started = source(postcopy_preempt=preempt)
    # Of every three pieces the first came in precopy; a piece of m0 is one host page.
    answerer = Answerer(
        known=m.known((11, 1), "return-path", "postcopy-ram", *(["postcopy-preempt"] if preempt else [])),
        asks=[("m0", 2 * HOST, HOST), ("m0", 0, HOST), ("m0", HOST, HOST), ("m0", HOST, HOST)],
    )
    drive(started, answerer)
    assert started.phase is SourcePhase.COMPLETED
    assert started.requests_served == 2
    first = pages_of(answerer, "preempt" if preempt else "main")
    assert first[:2] == [("m0", 8, 4), ("m0", 4, 4)]
    assert answerer.finish().findings == ()
    same_memory(small("postcopy"), answerer)


@pytest.mark.parametrize("version", [(10, 0), (11, 1)])
def test_a_large_guest_in_postcopy(version: tuple[int, int]) -> None:
    started = source(recorded(), version=version, postcopy_chunk=5 * PAGE)
    answerer = Answerer(
        known=m.known(version, "return-path", "postcopy-ram"),
        asks=[("pc.ram", 40 * PAGE, PAGE), ("pc.ram", 20 * PAGE, PAGE), ("pc.bios", 17 * PAGE, PAGE)],
    )
    drive(started, answerer)
    assert answerer.finish().findings == ()
    same_memory(recorded(), answerer)
    assert (0x42 in started.pongs) is (version == (11, 1))
    assert started.sent == {"main": sum(len(o.data) for o in answerer.outputs if isinstance(o, Send))}


@pytest.mark.parametrize(
    ("preempt_pre_7_2", "order"),
    [(True, ["main", "preempt"]), (False, ["main", "preempt"])],
)
def test_when_the_preempt_channel_is_connected(preempt_pre_7_2: bool, order: list[str]) -> None:
    started = source(postcopy_preempt=True, preempt_pre_7_2=preempt_pre_7_2)
    outputs: list[Output] = []
    while (output := started.next_output(EVERYTHING)) is not None:
        outputs.append(output)
    connected = [output.channel for output in outputs if isinstance(output, Connect)]
    assert connected == order[: len(connected)]
    assert len(connected) == (2 if preempt_pre_7_2 else 1)
    if not preempt_pre_7_2:
        assert started.waiting_for() == "PONG 1 on the return path"
        started.receive_data(said(rp.RpPong(value=2)))
        assert started.next_output(EVERYTHING) is None
        started.receive_data(said(rp.RpPong(value=1)))
        assert started.next_output(EVERYTHING) == Connect("preempt")


def test_an_old_preempt_channel_ends_with_eos() -> None:
    started = source(postcopy_preempt=True, preempt_pre_7_2=True)
    answerer = Answerer(asks=[("m0", HOST, HOST)])
    drive(started, answerer)
    urgent = [event for channel, event in answerer.told if channel == "preempt"]
    assert [type(event) for event in urgent] == [ram.RamPages, ram.RamEos]


def test_urgent_pages_go_while_main_is_busy() -> None:
    started = begun(postcopy_preempt=True)
    started.receive_data(said(asked("m0", HOST, HOST), rp.RpReqPages(start=2 * HOST, length=HOST)))
    output = started.next_output(EVERYTHING)
    assert isinstance(output, Send)
    assert output.channel == "preempt"
    # The next one: background for main is held back, as main does not take it.
    second = started.next_output({"main"})
    assert isinstance(second, Send)
    assert second.channel == "main"
    started.receive_data(said(asked("pc.bios", PAGE, PAGE)))
    assert started.next_output(()) is None
    third = started.next_output({"preempt"})
    assert isinstance(third, Send)
    assert third.channel == "preempt"


def test_beside_a_held_end_of_main() -> None:
    """What is left goes to main; while that is held, requests that come late find nothing to send."""
    started = source(postcopy_preempt=True)
    answerer = Answerer()
    drive(started, answerer, until=lambda output: isinstance(output, Send) and output.data[:1] == b"\x03")
    assert started.phase is SourcePhase.POSTCOPY
    assert isinstance(started.next_output({"preempt"}), type(None))
    started.receive_data(said(asked("m0", HOST, HOST)))
    assert started.next_output({"preempt"}) is None
    assert started.next_output(()) is None


def test_sync_packets_go_on_in_per_section_mode() -> None:
    """5.2 with multifd: one SYNC per EOS in the postcopy phase too."""
    started = source(multifd_channels=2, sync_mode=SyncMode.PER_SECTION, stale_packets=True)
    answerer = Answerer()
    drive(started, answerer)
    assert started.phase is SourcePhase.COMPLETED
    eos = sum(isinstance(event, ram.RamEos) for channel, event in answerer.told if channel == "main")
    syncs = [getattr(event, "is_sync", False) for channel, event in answerer.told if channel == "multifd-1"]
    assert sum(syncs) == eos
    same_memory(small("postcopy"), answerer)


def test_a_guest_that_asks_for_nothing_is_waited_for() -> None:
    waits = begun()
    assert waits.waiting_for() == "page requests on the return path"
    waits.receive_data(said(asked("m0", HOST, HOST)))
    assert waits.waiting_for() == ""


def test_requests_before_postcopy_are_remembered() -> None:
    early = source()
    early.receive_data(said(asked("m0", HOST, HOST)))
    answerer = Answerer()
    drive(early, answerer)
    assert early.requests_served == 1


def test_no_more_is_remembered_than_can_be_served() -> None:
    flooded = begun()
    one = rp.RpReqPages(start=0, length=HOST).encode()  # was sent in precopy, so it is passed over
    flooded.receive_data(said(asked("m0", 0, HOST)) + one * (MOST + 10))
    assert not flooded.hungry
    assert flooded.pending.full
    assert flooded.next_output(()) is None
    assert not flooded.hungry
    flooded.next_output(EVERYTHING)
    assert flooded.hungry


def test_requests_that_waited_for_room_are_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before them were for pages that had been sent: nobody would look again."""
    monkeypatch.setattr(requests, "MOST", 2)
    flooded = begun()
    one = rp.RpReqPages(start=0, length=HOST).encode()
    flooded.receive_data(said(asked("m0", 0, HOST)) + one * 9 + said(asked("m0", HOST, HOST)))
    output = flooded.next_output(EVERYTHING)
    assert isinstance(output, Send)
    assert flooded.requests_served == 1


# -- recovery ---------------------------------------------------------------------------------------------


def interrupted(**given: Any) -> tuple[MigrationSource, Answerer]:
    """A postcopy that was cut in the middle of its pages."""
    cut, answerer = source(**given), Answerer(asks=[("m0", HOST, HOST)])
    count = 0

    def second_part(output: Output) -> bool:
        nonlocal count
        count += cut.phase is SourcePhase.POSTCOPY
        return count > 1

    drive(cut, answerer, until=second_part)
    cut.lost("no route")
    answerer.cut()
    return cut, answerer


@pytest.mark.parametrize(("preempt", "pre_7_2"), [(False, False), (True, False), (True, True)])
def test_recovery_sends_what_is_missing(preempt: bool, pre_7_2: bool) -> None:
    cut, answerer = interrupted(postcopy_preempt=preempt, preempt_pre_7_2=pre_7_2)
    assert phase(cut) is SourcePhase.PAUSED
    assert cut.ended
    assert cut.error == "no route"
    assert cut.waiting_for() == ""
    assert cut.next_output(EVERYTHING) is None
    before = dict(cut.sent)
    cut.resume()
    drive(cut, answerer)
    assert phase(cut) is SourcePhase.COMPLETED
    assert cut.error == ""
    connected = [output.channel for output in answerer.outputs if isinstance(output, Connect)]
    assert connected[-1 - preempt :] == ["main-2", "preempt-2"][: 1 + preempt]
    same_memory(small("postcopy"), answerer)
    resent = [
        event for channel, event in answerer.told if channel == "main-2" and isinstance(event, ram.RamPages)
    ]
    assert cut.sent["main"] == before["main"]
    assert sum(event.normal + event.zero for event in resent) <= 8  # m0 pages 4 to 11, pc.bios had come
    commands = [type(event) for channel, event in answerer.told if channel == "main-2"]
    assert commands[:3] == [cmd.RecvBitmap, cmd.RecvBitmap, cmd.PostcopyResume]


def test_lost_again_while_recovering() -> None:
    cut, answerer = interrupted()
    cut.resume()
    drive(cut, answerer, until=lambda output: isinstance(output, Send) and b"\x08\x00\x09" in output.data)
    assert phase(cut) is SourcePhase.RECOVERING
    cut.lost("again")
    answerer.cut()
    assert phase(cut) is SourcePhase.PAUSED
    cut.resume()
    drive(cut, answerer)
    assert phase(cut) is SourcePhase.COMPLETED
    same_memory(small("postcopy"), answerer)


def test_lost_behind_eof_it_pauses() -> None:
    cut = source()
    answerer = Answerer(answers=lambda message: () if isinstance(message, rp.RpShut) else (message,))
    drive(cut, answerer)
    assert phase(cut) is SourcePhase.FINISHING
    assert cut.waiting_for() == "SHUT on the return path"
    cut.receive_data(b"")
    assert phase(cut) is SourcePhase.PAUSED
    assert cut.error == "the destination closed the return path"
    cut.lost("more")
    assert cut.error == "the destination closed the return path"


def test_only_a_paused_migration_is_resumed() -> None:
    with pytest.raises(LocalProtocolError, match="not possible in phase setup"):
        source().resume()


def recovering() -> MigrationSource:
    """Waits for the bitmaps."""
    cut, _ = interrupted()
    cut.resume()
    while cut.next_output(EVERYTHING) is not None:
        pass
    assert cut.waiting_for() == "RECV_BITMAP of 'm0' on the return path"
    return cut


def bitmap(block: str, bits: bytes = bytes(8)) -> rp.RpRecvBitmap:
    return rp.RpRecvBitmap(header_len=1 + len(block), block=block, bitmap=bits)


@pytest.mark.parametrize(
    ("messages", "requirement"),
    [
        ([bitmap("m0", bytes(16))], "LEG-RPM-045"),
        ([bitmap("m9")], "LEG-RPM-040"),
        ([bitmap("m0"), bitmap("m0")], "LEG-RPM-040"),
        ([rp.RpResumeAck(value=2)], "LEG-RPM-050"),
        ([rp.RpResumeAck(value=1)], "LEG-RPM-051"),
        ([rp.RpShut(value=0)], "LEG-RPM-012"),
    ],
)
def test_a_recovery_that_goes_wrong_is_paused_again(messages: list[Record], requirement: str) -> None:
    cut = recovering()
    with pytest.raises(RemoteProtocolError) as caught:
        cut.receive_data(said(*messages))
    assert caught.value.requirement == requirement
    assert caught.value.channel == "rp-2"
    assert caught.value.offset == len(said(*messages[:-1]))
    assert phase(cut) is SourcePhase.PAUSED
    assert requirement in cut.error


def test_a_host_page_that_came_in_part_comes_again_as_a_whole() -> None:
    plan = PagePlan(small("postcopy"), SourceSettings())
    left = Pending(plan)
    left.received(bitmap("m0", bytes([0b11101111, 0b00001110]) + bytes(6)))
    found = left.urgent(1)
    assert found is None
    assert left.background(1 << 20) is not None
    ranges = []
    left.received(bitmap("m0", bytes([0b11101111, 0b00001110]) + bytes(6)))
    left.connected()
    while (pages := left.background(1)) is not None:
        ranges.append(pages.numbers)
    assert ranges == [range(4, 8), range(8, 12), range(12, 16)]
    assert not left


# -- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "requirement"),
    [
        ([rp.RpReqPages(start=0, length=PAGE)], "LEG-RPM-034"),
        ([asked("m9", 0, PAGE)], "LEG-RPM-035"),
        ([asked("m0", 16 * PAGE, PAGE)], "LEG-RPM-035"),
        ([asked("m0", 0, 17 * PAGE)], "LEG-RPM-035"),
        ([asked("m0", 1, PAGE)], "LEG-RPM-032"),
        ([asked("m0", 0, 0)], "LEG-RPM-032"),
        ([rp.RpRecvBitmap(header_len=3, block="m0", bitmap=bytes(8))], "LEG-RPM-040"),
        ([rp.RpResumeAck(value=1)], "LEG-RPM-051"),
        ([rp.RpShut(value=0)], "LEG-RPM-012"),
        ([rp.RpUnknown(header_type=99, payload=b"")], "LEG-RPM-003"),
        ([rp.RpSwitchoverAck()], "LEG-RPM-063"),
    ],
)
@pytest.mark.parametrize("postcopy", [False, True])
def test_answers_that_no_source_takes(messages: list[Record], requirement: str, postcopy: bool) -> None:
    wrong = begun() if postcopy else source(postcopy=Postcopy.OFF)
    good = said(rp.RpPong(value=7))
    offset = len(wrong.pongs) * 8 if postcopy else 0
    with pytest.raises(RemoteProtocolError) as caught:
        wrong.receive_data(good + said(*messages))
    assert caught.value.requirement == requirement
    assert caught.value.offset == offset + len(good)
    assert wrong.phase is (SourcePhase.PAUSED if postcopy else SourcePhase.FAILED)
    assert wrong.error


def test_a_failed_load_is_the_outcome() -> None:
    failing = source(postcopy=Postcopy.OFF)
    failing.receive_data(said(rp.RpShut(value=1)))
    assert failing.phase is SourcePhase.FAILED
    assert failing.shut == 1
    assert "SHUT 1" in failing.error
    failing.receive_data(b"")
    assert "SHUT 1" in failing.error


def test_pongs_in_any_order_and_not_all_remembered() -> None:
    waiting = source(postcopy=Postcopy.OFF)
    waiting.receive_data(said(*[rp.RpPong(value=value) for value in (4, 3, 1)]))
    assert waiting.pongs == [4, 3, 1]
    waiting.receive_data(rp.RpPong(value=9).encode() * 2000)
    assert len(waiting.pongs) == 1024


def test_the_end_of_the_return_path() -> None:
    cut = source(postcopy=Postcopy.OFF)
    cut.receive_data(b"\0\2")
    cut.receive_data(b"")
    assert phase(cut) is SourcePhase.FAILED
    assert "ends inside a message" in cut.error
    assert not cut.hungry


def test_switchover_waits_for_the_agreement() -> None:
    held = source(recorded(), postcopy=Postcopy.OFF, switchover_ack=True, switchover_ack_legacy=True)
    answerer = Answerer()
    drive(held, answerer)
    assert held.waiting_for() == "SWITCHOVER_ACK on the return path"
    assert phase(held) is SourcePhase.PRECOPY
    held.receive_data(said(rp.RpSwitchoverAck()))
    assert held.waiting_for() == ""
    drive(held, answerer)
    assert phase(held) is SourcePhase.COMPLETED


def test_without_return_path_all_that_was_sent_is_taken() -> None:
    plain = source(postcopy=Postcopy.OFF, return_path=False, multifd_channels=1)
    assert not plain.hungry
    outputs = []
    while (output := plain.next_output(EVERYTHING)) is not None:
        outputs.append(output)
    assert [output.channel for output in outputs if isinstance(output, End)] == ["multifd-0", "main"]
    assert plain.waiting_for() == "the channels to take all that was sent"
    assert not plain.ended
    plain.delivered()
    assert plain.next_output(EVERYTHING) is None
    assert plain.phase is SourcePhase.COMPLETED


def test_nothing_goes_to_a_channel_that_is_not_ready() -> None:
    slow = source(postcopy=Postcopy.OFF)
    assert slow.next_output(()) == Connect("main")
    assert slow.next_output(()) is None
    first = slow.next_output({"main"})
    assert isinstance(first, Send)


# -- the table --------------------------------------------------------------------------------------------

#: from -> where its phases can lead
LEADS: dict[SourcePhase, set[SourcePhase]] = {
    phase: {target for target in row.values() if target is not phase} for phase, row in TRANSITIONS.items()
}


def test_every_phase_is_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(SourcePhase)
    reached = set().union(*LEADS.values())
    assert reached == set(SourcePhase) - {SourcePhase.SETUP}
    assert {phase for phase, targets in LEADS.items() if not targets} == {
        SourcePhase.COMPLETED,
        SourcePhase.FAILED,
    }
    used = {step for row in TRANSITIONS.values() for step in row if isinstance(step, Step)}
    assert used == set(Step)


def test_a_guest_that_was_given_up_is_never_failed_by_a_lost_connection() -> None:
    for phase in (SourcePhase.POSTCOPY, SourcePhase.RECOVERING):
        assert Step.LOST not in TRANSITIONS[phase]
        assert TRANSITIONS[phase][Step.CUT] is SourcePhase.PAUSED


def test_the_next_run_of_a_page_set() -> None:
    pages = PageSet(Budget())
    pages.add(4090, 10)
    assert pages.next_run(0, 9000) == (4090, 6)
    assert pages.next_run(4096, 9000) == (4096, 4)
    assert pages.next_run(4100, 9000) is None
    assert pages.next_run(0, 4090) is None
