"""What a destination answers, in every phase: the core without a connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, UnsupportedFeature
from qmig.legacy import commands as cmd
from qmig.legacy import destination as core
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy.connection import Told
from qmig.legacy.destination import IN_FLIGHT, TRANSITIONS, Cause, Incoming, Phase
from qmig.legacy.header import Configuration
from qmig.legacy.pageset import PIECE, Budget, PageSet
from qmig.legacy.ram import RamDeltas, RamEos, RamPages
from qmig.legacy.ramimage import BlockImage
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.sections import EndOfFile
from qmig.legacy.session import MigrationSession
from qmig.legacy.vfio import VfioInitDataSent
from qmig.legacy.wanted import WantedPages
from qmig.testing import load_vectors
from qmig.testing import migrations as mig
from qmig.testing.migrations import HOST_PAGE, PAGE, Story


def destination(**options: Any) -> Incoming:
    return Incoming(Rebuild(lambda _, length: bytearray(length)), **options)


def feed(incoming: Incoming, items: Iterable[tuple[str, Record]]) -> list[Record]:
    """Takes events; all answers, in order."""
    answers: list[Record] = []
    for channel, event in items:
        incoming.take(Told(channel, event, 1, 1, 1))
        answers += [answer.message for answer in incoming.answers()]
    return answers


def phase(incoming: Incoming) -> Phase:
    return incoming.phase


def forward(story: Story) -> list[tuple[str, Record]]:
    return [(channel, event) for channel, event in story if not channel.startswith("rp")]


def on_main(*parts: Iterable[Record]) -> list[tuple[str, Record]]:
    return mig.on("main", *parts)


def opened(*more: Record, machine: str = "pc-q35-11.1") -> list[tuple[str, Record]]:
    return on_main(mig.opening(machine), mig.return_path(), more)


ADVISE = cmd.PostcopyAdvise(page_sizes=PAGE | HOST_PAGE, target_page_size=PAGE)
UNKNOWN = cmd.UnknownCommand(command=255, length=0, payload=b"")


def running() -> list[tuple[str, Record]]:
    """A postcopy up to its package's end; nothing was sent before."""
    return opened(ADVISE, *mig.start(huge=True), cmd.PostcopyListen(), *mig.devices(), cmd.PostcopyRun())


# -- plain migrations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("story", [mig.precopy, mig.multifd, mig.xbzrle], ids=lambda made: made.__name__)
def test_what_a_whole_migration_is_answered(story: Any) -> None:
    told = story()
    incoming = destination()
    answers = feed(incoming, sorted(forward(told), key=lambda item: item[0] != "main"))
    assert answers == [event for channel, event in told if channel == "rp"]
    assert phase(incoming) is Phase.COMPLETED
    assert incoming.over
    incoming.broken("closed")
    assert phase(incoming) is Phase.COMPLETED
    incoming.refuse("too late")
    assert phase(incoming) is Phase.COMPLETED
    assert incoming.answers() == []


RETURNING = [
    vector
    for vector in load_vectors("legacy/recordings")
    if "rp" in vector.channels and "cut" not in vector.flags
]


@pytest.mark.parametrize("vector", RETURNING, ids=lambda vector: vector.id)
def test_what_recorded_sources_are_answered(vector: Any) -> None:
    """Fed with what a real source sent, it answers what the real destination did, page requests apart: those
    follow from what a guest touches."""
    session = MigrationSession()
    for name in vector.channels:
        session.open(name)
    left = {name: vector.data(name) for name in vector.channels}
    incoming = destination(in_flight=0, switchover_ack="switchover-ack" in vector.id)
    ours: list[Record] = []
    theirs: list[Record] = []
    while True:
        told = session.next_event()
        if isinstance(told, Told):
            if told.channel.startswith("rp"):
                theirs.append(told.event)
            else:
                ours += feed(incoming, [(told.channel, told.event)])
        elif session.wants():
            for name in session.wants():
                session.receive_data(name, left.pop(name, b""))
        else:
            break
    for name in vector.channels:
        incoming.channel_ended(name)
    ours += [answer.message for answer in incoming.answers()]
    asked = (rp.RpReqPages, rp.RpReqPagesId)
    assert sorted(map(repr, ours)) == sorted(repr(event) for event in theirs if not isinstance(event, asked))
    assert phase(incoming) is Phase.COMPLETED


def test_a_ping_behind_the_end_is_not_answered() -> None:
    incoming = destination()
    feed(incoming, forward(mig.precopy()))
    assert feed(incoming, on_main([cmd.Ping(value=9)])) == []


def test_pages_behind_the_end_change_nothing() -> None:
    """A channel may go on behind main's EOF; the guest would run by then."""
    incoming = destination()
    story = mig.multifd()
    end = story.at(EndOfFile)
    main = [item for item in story[:end] if item[0] == "main"]
    feed(incoming, [*main, *(item for item in story if item[0] != "main"), story[end]])
    assert phase(incoming) is Phase.COMPLETED
    image = incoming.memory.image.blocks["m0"]
    assert image.get(0, PAGE) == bytes([1]) * PAGE
    assert feed(incoming, mig.on("multifd-0", [mig.packet(99, "m0", zero=[0])])) == []
    assert image.get(0, PAGE) == bytes([1]) * PAGE


def test_without_a_return_path_nothing_is_answered() -> None:
    incoming = destination()
    assert feed(incoming, forward(mig.xbzrle())) == []
    assert not incoming.told_failure


# -- switchover-ack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "legacy", "asked", "answers"),
    [
        ("pc-q35-11.0", None, False, 1),
        ("pc-q35-11.1", None, False, 0),
        ("pc-q35-11.1", None, True, 1),
        ("pc-q35-11.0", None, True, 1),
        ("none", None, False, 1),
        ("pc-q35-11.1", True, False, 1),
        ("pc-q35-11.0", False, False, 0),
    ],
)
def test_switchover_ack(machine: str, legacy: bool | None, asked: bool, answers: int) -> None:
    incoming = destination(switchover_ack=True, legacy_ack=legacy)
    got = feed(incoming, opened(*([VfioInitDataSent()] if asked else []), machine=machine))
    assert sum(isinstance(answer, rp.RpSwitchoverAck) for answer in got) == answers
    assert feed(destination(), opened(VfioInitDataSent(), machine=machine)) == [rp.RpPong(value=1)]


# -- postcopy ---------------------------------------------------------------------------------------------


def test_postcopy_asks_for_what_is_missing_and_ends_with_it() -> None:
    incoming = destination()
    incoming.channel_opened("preempt")
    answers = feed(incoming, forward(mig.postcopy()))
    asked = [answer for answer in answers if isinstance(answer, rp.RpReqPages | rp.RpReqPagesId)]
    # Three host pages of m0 and one page of pc.bios were discarded.
    assert [(request.start, request.length) for request in asked] == [
        (0, HOST_PAGE), (HOST_PAGE, HOST_PAGE), (2 * HOST_PAGE, HOST_PAGE), (0, PAGE),
    ]  # fmt: skip
    assert [type(request).__name__ for request in asked] == [
        "RpReqPagesId", "RpReqPages", "RpReqPages", "RpReqPagesId",
    ]  # fmt: skip
    assert answers[-1] == rp.RpShut(value=0)
    assert incoming.requests == 4
    assert phase(incoming) is Phase.COMPLETED


def test_requests_under_way_are_bounded() -> None:
    incoming = destination(in_flight=2)
    asked = feed(incoming, running())
    assert sum(isinstance(answer, rp.RpReqPages | rp.RpReqPagesId) for answer in asked) == 2
    more = feed(incoming, on_main([mig.pages("m0", 0, 4)]))
    assert [type(answer) for answer in more] == [rp.RpReqPages]
    assert IN_FLIGHT > 2


def test_pages_that_never_come_are_a_failure() -> None:
    incoming = destination()
    incoming.channel_opened("preempt")
    feed(incoming, running())
    answers = feed(incoming, on_main([EndOfFile()]))
    assert phase(incoming) is Phase.POSTCOPY  # the preempt channel may still bring them
    incoming.take(Told("preempt", RamEos(), 1, 1, 1))
    answers += [answer.message for answer in incoming.answers()]
    assert phase(incoming) is Phase.FAILED
    assert "16 of 'm0', 2 of 'pc.bios'" in incoming.reason
    assert answers[-1] == rp.RpShut(value=1)
    assert incoming.told_failure


def test_postcopy_of_bitmaps_alone_ends_at_eof_and_cannot_be_recovered() -> None:
    begun = opened(
        cmd.PostcopyAdviseEmpty(), *mig.start(), cmd.PostcopyListen(), *mig.devices(), cmd.PostcopyRun()
    )
    incoming = destination()
    feed(incoming, begun)
    assert feed(incoming, on_main([EndOfFile()])) == [rp.RpShut(value=0)]
    incoming = destination()
    feed(incoming, begun)
    incoming.broken("gone")
    assert phase(incoming) is Phase.FAILED
    assert "dirty bitmaps alone" in incoming.reason


def test_recovery_tells_what_came_and_asks_again() -> None:
    incoming = destination()
    story = forward(mig.recovery())
    cut = next(at for at, (channel, _) in enumerate(story) if channel == "main-2")
    feed(incoming, story[:cut])
    incoming.broken("the network")
    assert phase(incoming) is Phase.PAUSED
    assert incoming.reason == "the network"
    assert incoming.answers() == []
    incoming.refuse("a bad recovery")
    assert phase(incoming) is Phase.PAUSED
    answers = []
    for channel, event in story[cut:]:
        incoming.take(Told(channel, event, 1, 1, 1))
        answers += incoming.answers()
    assert {answer.connection for answer in answers} == {2}
    messages = [answer.message for answer in answers]
    bitmaps = [message for message in messages if isinstance(message, rp.RpRecvBitmap)]
    # m0: the first host page has come, and the last one was not discarded.
    assert [(bitmap.block, bitmap.bitmap[:3]) for bitmap in bitmaps] == [
        ("m0", b"\x0f\xf0\x00"), ("pc.bios", b"\x02\x00\x00"),
    ]  # fmt: skip
    assert all(len(bitmap.bitmap) == 8 for bitmap in bitmaps)
    at = messages.index(rp.RpResumeAck(value=1))
    assert isinstance(messages[at + 1], rp.RpReqPagesId)  # named anew on a new connection
    assert messages[-1] == rp.RpShut(value=0)
    assert phase(incoming) is Phase.COMPLETED
    assert incoming.reason == ""


def test_a_recovery_that_breaks_can_be_tried_again() -> None:
    incoming = destination()
    story = forward(mig.recovery())
    cut = next(at for at, (channel, _) in enumerate(story) if channel == "main-2")
    feed(incoming, story[:cut])
    incoming.broken("one")
    feed(incoming, story[cut : cut + 1])
    assert phase(incoming) is Phase.RECOVER
    incoming.broken("two")
    assert phase(incoming) is Phase.PAUSED
    incoming.broken("three")
    assert incoming.reason == "two"
    feed(incoming, [(channel.replace("-2", "-3"), event) for channel, event in story[cut:]])
    assert phase(incoming) is Phase.COMPLETED


def test_differences_arrive_as_pages_do() -> None:
    image = BlockImage("m0", 4 * PAGE, 0, None)
    wanted = WantedPages({"m0": image}, {"m0": PAGE}, PAGE)
    delta = next(event for _, event in mig.xbzrle() if isinstance(event, RamDeltas))
    wanted.take(delta)
    assert wanted.left == 3
    wanted.take(EndOfFile())
    assert wanted.left == 3


# -- what it waits for ------------------------------------------------------------------------------------


def test_what_every_channel_waits_for() -> None:
    session = MigrationSession(live=True)
    story = mig.multifd()
    for name in ("main", "multifd-0", "multifd-1", "preempt"):
        session.open(name)

    def waiting(channel: str, data: bytes) -> list[str]:
        if data:
            session.receive_data(channel, data)
        while isinstance(session.next_event(), Told):
            pass
        return [text.partition(": ")[2] for text in session.waiting_for()]

    main, one, two = map(story.bytes_of, ("main", "multifd-0", "multifd-1"))
    hello, listen, first = (
        "a MultifdHello at 0x0",
        "POSTCOPY_LISTEN or POSTCOPY_RESUME on main",
        "its first byte",
    )
    sync_point = "the first sync point of main"
    assert waiting("main", b"") == [first, sync_point, sync_point, listen]
    rest = "the rest of a Configuration at 0x8 (2 of 5 bytes)"
    assert waiting("main", main[:10]) == [rest, hello, hello, listen]
    both = "at sync point 1, the SYNC of multifd-0, multifd-1"
    assert waiting("main", main[10:]) == [both, hello, hello, listen]
    late, behind = "at sync point 1, the SYNC of multifd-1", "behind its SYNC 1, main's sync point"
    assert waiting("multifd-0", one) == [late, behind, hello, listen]
    rest = "the rest of a MultifdPacket at 0x8a80 (1244 of 1344 bytes)"
    assert waiting("multifd-1", two[:-100])[2] == rest
    assert waiting("preempt", b"x")[3] == listen


def test_what_has_ended_waits_for_nothing() -> None:
    session = MigrationSession(live=True)
    story = mig.precopy()
    for name in ("main", "rp"):
        session.receive_data(name, story.bytes_of(name))
    assert session.waiting_for() == ("main: its turn", "rp: its turn")
    for name in ("main", "rp"):
        while isinstance(session.next_event(), Told):
            pass
        session.receive_data(name, b"")
    while isinstance(session.next_event(), Told):
        pass
    assert session.waiting_for() == ()


# -- what is refused --------------------------------------------------------------------------------------

BAD: dict[str, tuple[list[tuple[str, Record]], str]] = {
    "ping without return path": (on_main(mig.opening("x"), [cmd.Ping(value=1)]), "LEG-DST-062"),
    "listen without advise": (opened(cmd.PostcopyListen()), "LEG-DST-064"),
    "listen twice": (opened(ADVISE, *mig.start(huge=True), *[cmd.PostcopyListen()] * 2), "LEG-DST-064"),
    "run without listen": (opened(ADVISE, cmd.PostcopyRun()), "LEG-DST-064"),
    "discard without advise": (opened(*mig.start(), mig.discard("m0", (0, PAGE))), "LEG-DST-064"),
    "end in the package": (opened(ADVISE, cmd.PostcopyListen(), EndOfFile()), "LEG-PCP-022"),
    "advised page size": (
        opened(
            cmd.PostcopyAdvise(page_sizes=PAGE, target_page_size=PAGE + 1), *mig.start(), cmd.PostcopyListen()
        ),
        "LEG-DST-063",
    ),
    "advised nothing": (
        opened(cmd.PostcopyAdvise(page_sizes=0, target_page_size=PAGE), *mig.start(), cmd.PostcopyListen()),
        "LEG-DST-063",
    ),
    "colo": (opened(cmd.EnableColo()), "LEG-DST-068"),
    "unknown command": (opened(UNKNOWN), "LEG-DST-060"),
    "advise twice": (opened(ADVISE, ADVISE), "LEG-DST-123"),
    "discard nothing": (opened(ADVISE, *mig.start(), mig.discard("m0")), "LEG-DST-125"),
    "discard of an unknown block": (
        opened(ADVISE, *mig.start(), mig.discard("xy", (0, PAGE))),
        "LEG-DST-126",
    ),
    "discard of a part": (opened(ADVISE, *mig.start(), mig.discard("m0", (1, PAGE))), "LEG-DST-126"),
    "bitmap of an unknown block": (opened(*mig.start(), mig.recv_bitmap("xy")), "LEG-DST-129"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    items, requirement = BAD[name]
    incoming = destination()
    with pytest.raises((RemoteProtocolError, UnsupportedFeature)) as problem:
        feed(incoming, items)
    assert problem.value.requirement == requirement
    incoming.refuse(str(problem.value))
    assert phase(incoming) is Phase.FAILED
    told = [answer.message for answer in incoming.answers()]
    assert (rp.RpShut(value=1) in told) == (requirement != "LEG-DST-062") == incoming.told_failure
    incoming.refuse("again")
    assert incoming.answers() == []


@pytest.mark.parametrize(
    ("capability", "advise", "requirement"),
    [
        (False, ADVISE, "LEG-DST-063"),
        (True, cmd.PostcopyAdviseEmpty(), "LEG-DST-122"),
        (True, ADVISE, ""),
        (False, cmd.PostcopyAdviseEmpty(), ""),
    ],
)
def test_advise_is_held_to_this_sides_capability(capability: bool, advise: Record, requirement: str) -> None:
    incoming = destination(postcopy_ram=capability)
    if not requirement:
        feed(incoming, opened(advise))
        return
    with pytest.raises(RemoteProtocolError) as problem:
        feed(incoming, opened(advise))
    assert problem.value.requirement == requirement


@pytest.mark.parametrize(
    ("event", "requirement"),
    [
        (ram.RamMultifdFlush(), "LEG-DST-149"),
        (ram.RamMemSize(word=PAGE | ram.RamFlag.MEM_SIZE), "LEG-DST-149"),
        (UNKNOWN, "LEG-DST-060"),
        (cmd.PostcopyRun(), "LEG-DST-064"),
        (mig.pages("m0", 0, 1), "LEG-DST-150"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_behind_run_pauses(event: Record, requirement: str) -> None:
    """The guest runs here: only the connection is lost by it (LEG-DST-149)."""
    incoming = destination()
    feed(incoming, running())
    feed(incoming, [("main", mig.pages("m0", 0, 1))])
    with pytest.raises(RemoteProtocolError) as problem:
        feed(incoming, [("main", event)])
    assert problem.value.requirement == requirement
    incoming.refuse(str(problem.value))
    assert phase(incoming) is Phase.PAUSED
    assert incoming.reason == str(problem.value)
    assert incoming.answers() == []
    assert feed(incoming, [("main", cmd.Ping(value=3))]) == []  # the rest of what is lost
    assert phase(incoming) is Phase.PAUSED


def test_what_is_refused_in_a_recovery() -> None:
    incoming = destination()
    story = forward(mig.recovery())
    cut = next(at for at, (channel, _) in enumerate(story) if channel == "main-2")
    feed(incoming, story[:cut])
    incoming.broken("cut")
    feed(incoming, [("main-2", mig.recv_bitmap("m0"))])
    for event, requirement in [
        (mig.pages("m0", 4, 1), "LEG-PCP-042"),
        (mig.recv_bitmap("xy"), "LEG-DST-129"),
    ]:
        with pytest.raises(RemoteProtocolError) as problem:
            feed(incoming, [("main-2", event)])
        assert problem.value.requirement == requirement


def test_recovery_commands_outside_of_one_change_nothing() -> None:
    incoming = destination()
    answers = feed(incoming, opened(*mig.start(), mig.recv_bitmap("m0"), cmd.PostcopyResume()))
    assert answers == [rp.RpPong(value=1)]


def test_more_memory_than_can_be_told_apart_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmig.legacy.wanted.Budget", lambda: Budget(0))
    with pytest.raises(LimitExceeded):
        feed(destination(), running())


def test_the_table_is_whole() -> None:
    """Every phase knows what a break and a refusal do, and every phase but the first can be reached."""
    for phase, cause in itertools.product(Phase, (Cause.BREAK, Cause.REFUSE)):
        assert (phase, cause) in TRANSITIONS
    assert set(TRANSITIONS.values()) == set(Phase) - {Phase.SETUP}
    assert {cause for _, cause in TRANSITIONS} == set(Cause)
    ends = {Phase.COMPLETED, Phase.FAILED}
    assert all(after is before for (before, _), after in TRANSITIONS.items() if before in ends)


def test_a_machine_type_that_names_no_version_is_old() -> None:
    incoming = destination(switchover_ack=True)
    feed(incoming, on_main([Configuration(machine="isapc")]))
    assert core._MACHINE_VERSION.search("isapc") is None


# -- wanted pages -----------------------------------------------------------------------------------------

PAGES = 3 * 64 + 5
spans = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 40)), max_size=6)


@given(spans, spans, st.sampled_from([1, 4, 16]), st.integers(1, 9))
@example([(0, PAGES)], [], 1, 1)
def test_every_missing_page_is_asked_for_once(
    sent: Sequence[tuple[int, int]], arriving: Sequence[tuple[int, int]], factor: int, in_flight: int
) -> None:
    image = BlockImage("b", PAGES * PAGE, 0, None)
    there: set[int] = set()
    for first, count in sent:
        span = range(first, min(first + count, PAGES))
        image.note(first, len(span), PAGE)
        there |= set(span)
    wanted = WantedPages({"b": image}, {"b": factor * PAGE}, PAGE)
    assert wanted.left == PAGES - len(there)
    assert ("b" in wanted, "c" in wanted) == (True, False)
    asked: list[int] = []
    pending = list(arriving)
    while True:
        new = list(wanted.ask(in_flight))
        asked += [request.start // PAGE for request in new]
        if pending:
            first, count = pending.pop()
        elif asked and new:
            first, count = asked[-1], factor
        else:
            again = list(wanted.again())
            if not again:
                break
            first, count = again[0].start // PAGE, factor
        pages = [(number * PAGE, 0) for number in range(first, min(first + count, PAGES))]
        wanted.take(RamPages.of("b", PAGE, pages, named=True))
        there |= {address // PAGE for address, _ in pages}
        whole = {
            n
            for n in range(PAGES)
            if all(m in there for m in range(n // factor * factor, min(n // factor * factor + factor, PAGES)))
        }
        bitmap = wanted.bitmap("b")
        assert len(bitmap) % 8 == 0
        assert {n for n in range(len(bitmap) * 8) if bitmap[n // 8] >> n % 8 & 1} == whole
    assert wanted.left == 0
    assert wanted.summary() == ""
    assert len(asked) == len(set(asked))


@given(
    st.lists(st.tuples(st.integers(0, 2 * PIECE), st.integers(1, PIECE)), max_size=4), st.integers(1, 9000)
)
def test_a_set_as_a_bitmap(parts: list[tuple[int, int]], pages: int) -> None:
    found = PageSet(Budget())
    expected: set[int] = set()
    for first, count in parts:
        found.add(first, count)
        expected |= set(range(first, first + count))
    bitmap = found.bitmap(pages)
    assert len(bitmap) == -(-pages // 8)
    assert {n for n in range(len(bitmap) * 8) if bitmap[n // 8] >> n % 8 & 1} == {
        n for n in expected if n < pages
    }
    other = PageSet(Budget())
    other.add(5, PIECE)
    assert found.discard(0, 3) == len(expected & {0, 1, 2})
    found.subtract(other)
    assert found.count() == len(expected - {0, 1, 2} - set(range(5, PIECE + 5)))
