"""A session: channels in any interleaving and chunking, one story."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy import commands as cmd
from qmig.legacy import ram, sections
from qmig.legacy import returnpath as rp
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Told
from qmig.legacy.multifd import MultifdPacket
from qmig.legacy.receiver import CLOSED, NEED_DATA, Sentinel
from qmig.legacy.session import MAX_CHANNELS, MigrationSession
from qmig.legacy.sync import SyncMode
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors, migrations
from qmig.testing.migrations import hello, on, packet, pages, part, sync


class Line(NamedTuple):
    """What stays of an event of the story when its views are gone."""

    channel: str
    name: str
    offset: int
    wire: bytes
    round: int
    attempt: int


class Heard(NamedTuple):
    """A whole story, batches of pages of one pass joined: how they are cut depends on the chunks."""

    lines: list[Line]
    errors: list[RemoteProtocolError]
    session: MigrationSession

    def of(self, channel: str) -> bytes:
        return b"".join(line.wire for line in self.lines if line.channel == channel)

    def names(self, *channels: str) -> list[str]:
        return [f"{line.channel} {line.name}" for line in self.lines if line.channel in channels]

    def findings(self) -> list[tuple[str, str]]:
        return [(finding.channel, finding.requirement) for finding in self.session.finish()]


def hear(
    data: Mapping[str, bytes],
    sizes: Iterator[int] | None = None,
    *,
    live: bool = False,
    page_size: int = 4096,
) -> Heard:
    """Tells the story of these channels: each is fed when it is wanted, in pieces of `sizes` bytes."""
    session = MigrationSession(live=live, page_size=page_size)
    for name in data:
        session.open(name)
    given = dict.fromkeys(data, 0)
    heard = Heard([], [], session)
    while True:
        try:
            item = session.next_event()
        except RemoteProtocolError as error:
            heard.errors.append(error)
            continue
        if item is CLOSED:
            break
        if item is NEED_DATA:
            assert session.next_event() is NEED_DATA, "there was more to tell"
            wanted = session.wants()
            assert wanted
            assert all(given[name] <= len(data[name]) for name in wanted), "asked for more after the end"
            for name in wanted:
                size = len(data[name]) if sizes is None else next(sizes)
                piece = data[name][given[name] : given[name] + size]
                given[name] += len(piece) or 1
                session.receive_data(name, bytearray(piece))
            continue
        assert isinstance(item, Told)
        _add(heard.lines, item)
    return heard


def _add(lines: list[Line], told: Told) -> None:
    event = told.event
    line = Line(told.channel, type(event).__name__, event.offset, event.encode(), told.round, told.attempt)
    last = lines[-1] if lines else None
    whole = line.name == "RamPages" and told.last_round == told.round
    if last and whole and (last.channel, last.name, last.round) == (line.channel, line.name, line.round):
        lines[-1] = last._replace(wire=last.wire + line.wire)
    else:
        lines.append(line)


def channels_of(story: migrations.Story) -> dict[str, bytes]:
    return {name: story.bytes_of(name) for name in story.channels()}


STORIES = {
    "precopy": migrations.precopy,
    "xbzrle": migrations.xbzrle,
    "postcopy": migrations.postcopy,
    "recovery": migrations.recovery,
    "multifd": migrations.multifd,
}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("name", STORIES)
def test_every_channel_is_told_whole(name: str, live: bool) -> None:
    data = channels_of(STORIES[name]())
    heard = hear(data, live=live)
    for channel, content in data.items():
        assert heard.of(channel) == content
    cut = name == "recovery"
    assert [type(error) for error in heard.errors] == [TruncatedStream] * cut
    assert [error.channel for error in heard.errors] == ["main"] * cut
    assert heard.findings() == []


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(STORIES)), sizes=st.lists(st.integers(1, 5000), min_size=1))
def test_a_recording_is_told_in_one_order_whatever_the_chunks(name: str, sizes: list[int]) -> None:
    data = channels_of(STORIES[name]())
    whole, cut = hear(data), hear(data, itertools.cycle(sizes))
    assert whole.lines == cut.lines
    assert [str(error) for error in whole.errors] == [str(error) for error in cut.errors]


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(STORIES)), sizes=st.lists(st.integers(1, 5000), min_size=1))
def test_live_channels_are_told_whole_whatever_the_chunks(name: str, sizes: list[int]) -> None:
    data = channels_of(STORIES[name]())
    heard = hear(data, itertools.cycle(sizes), live=True)
    assert {channel: heard.of(channel) for channel in data} == data
    assert heard.findings() == []


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", STORIES)
def test_bytes_that_nobody_asked_for_are_kept(name: str, order: int) -> None:
    """All channels given whole before the first event, in either order."""
    data = channels_of(STORIES[name]())
    session = MigrationSession(page_size=4096)
    for channel in list(data)[::order]:
        session.receive_data(channel, data[channel])
        session.receive_data(channel, b"")
    lines: list[Line] = []
    while (item := _next(session)) is not CLOSED:
        if isinstance(item, Told):
            _add(lines, item)
    assert lines == hear(data).lines


def _next(session: MigrationSession) -> Told | Sentinel | None:
    try:
        return session.next_event()
    except RemoteProtocolError:
        return None


# -- order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
def test_per_round_main_waits_for_every_channel_and_they_for_main(live: bool) -> None:
    heard = hear(channels_of(migrations.multifd()), live=live)
    order = [
        (line.channel, line.name if line.channel == "main" else line.wire[8:12] == b"\0\0\0\1")
        for line in heard.lines
        if line.name in ("RamMultifdFlush", "MultifdPacket", "RamEos")
    ]
    syncs = {"multifd-0": 0, "multifd-1": 0}
    flushes = 0
    for channel, what in order:
        if what == "RamMultifdFlush":
            flushes += 1
        elif what == "RamEos":
            assert set(syncs.values()) == {flushes}
        else:
            assert syncs[channel] <= flushes, "a packet behind the SYNC came before main's sync point"
            syncs[channel] += what is True
    assert flushes == 3


def test_between_sync_points_the_packet_number_decides() -> None:
    """5.2 and 7.2: one page in two packets; the copy with the higher number is told last."""
    story = migrations.multifd()
    flush = story.at(ram.RamMultifdFlush, 1)
    one, two = packet(3, "m0", [5]), packet(2, "m0", [5])
    story[:] = [
        *on("multifd-0", [hello(0), sync(0), one, sync(4)]),
        *on("multifd-1", [hello(1), sync(1), two, sync(5)]),
        *[item for item in story[: flush + 1] if item[0] == "main"],
    ]
    heard = hear(channels_of(story))
    numbers = [
        int.from_bytes(line.wire[24:32], "big") for line in heard.lines if line.name == "MultifdPacket"
    ]
    assert numbers == [0, 1, 2, 3, 4, 5]


def per_section(*, postcopy_syncs: int = 2, cut: int = 0) -> migrations.Story:
    """Machine type ≤8.0: each EOS is a sync point, those of postcopy too (5.2, 7.2) or not (10.1+)."""
    content = [cmd.PostcopyListen(), cmd.PostcopyRun()]
    main = on(
        "main",
        migrations.opening("pc-q35-7.2"),
        migrations.start(),
        part(pages("m0", 12, 4, zero=True)),
        part(pages("m0", 2, 1, zero=True)),
        migrations.packaged(content),
        part(pages("m0", 0, 2)),
        migrations.end(),
        [sections.EndOfFile()],
    )
    lines = []
    for number in (0, 1):
        story = [
            hello(number), sync(10), packet(20 + number, "m0", [number]), sync(30),
            packet(40, "m0", [number]), sync(50),
        ]  # fmt: skip
        story += [sync(60 + n) for n in range(postcopy_syncs)]
        lines += on(f"multifd-{number}", story[: len(story) - cut * number])
    return migrations.Story([*main, *lines], migrations.known((7, 2), "multifd"))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("syncs", [2, 0])
def test_per_section_each_eos_is_a_sync_point(syncs: int, live: bool) -> None:
    data = channels_of(per_section(postcopy_syncs=syncs))
    heard = hear(data, live=live)
    assert {channel: heard.of(channel) for channel in data} == data
    assert heard.findings() == []
    points = heard.session._connections[1].points
    assert (points.mode, points.reached, points.precopy) == (SyncMode.PER_SECTION, 5, 3)
    rounds = [line.round for line in heard.lines if line.name == "RamPages"]
    assert rounds == [1, 2, 3]


def test_answers_come_behind_what_they_answer() -> None:
    heard = hear(channels_of(migrations.postcopy()))
    names = heard.names("main", "rp")
    for cause, answer in (
        ("main Ping", "rp RpPong"),
        ("main PostcopyListen", "rp RpReqPagesId"),
        ("main EndOfFile", "rp RpShut"),
    ):
        assert names.index(cause) < names.index(answer)
    pings = [line.wire[-4:] for line in heard.lines if line.name in ("Ping", "RpPong")]
    for number, value in enumerate(pings):
        assert pings[: number + 1].count(value) <= 2


def test_in_a_recovery_answers_wait_for_the_second_main_channel() -> None:
    heard = hear(channels_of(migrations.recovery()))
    names = heard.names("main-2", "rp-2")
    assert names[:6] == [
        "main-2 RecvBitmap", "rp-2 RpRecvBitmap", "main-2 RecvBitmap", "rp-2 RpRecvBitmap",
        "main-2 PostcopyResume", "rp-2 RpResumeAck",
    ]  # fmt: skip
    assert {line.attempt for line in heard.lines} == {1}


def test_a_message_of_no_cause_and_one_that_was_not_asked_for() -> None:
    story = migrations.precopy()
    story.append(("rp", rp.RpPong(value=77)))
    story[0:0] = on("rp", [rp.RpSwitchoverAck()])
    heard = hear(channels_of(story))
    names = heard.names("main", "rp")
    assert names.index("rp RpSwitchoverAck") < names.index("main SectionStart")
    assert names[-1] == "rp RpPong"  # told at the end, not lost


@pytest.mark.parametrize("live", [False, True])
def test_requested_pages_of_a_recovery_come_behind_resume(live: bool) -> None:
    story = migrations.recovery()
    story += on("preempt", [pages("m0", 4, 1)]) + on("preempt-2", [pages("m0", 5, 1)])
    data = channels_of(story)
    heard = hear(data, live=live)
    assert {channel: heard.of(channel) for channel in data} == data
    names = [f"{line.channel} {line.name}" for line in heard.lines]
    assert names.index("main-2 PostcopyResume") < names.index("preempt-2 RamPages")
    assert names.index("main PostcopyListen") < names.index("preempt RamPages")


@pytest.mark.parametrize("live", [False, True])
def test_a_second_header_is_a_second_attempt(live: bool) -> None:
    story = migrations.precopy()
    cut = story.bytes_of("main")[:200]
    data = {"main": cut, "main-2": story.bytes_of("main"), "rp-2": story.bytes_of("rp")}
    heard = hear(data, live=live)
    assert {line.channel: line.attempt for line in heard.lines} == {"main": 1, "main-2": 2, "rp-2": 2}
    assert len(heard.session.attempts) == 2
    assert heard.session.attempts[0].state is not heard.session.attempts[1].state


def test_channels_that_were_cut_with_their_attempt_are_not_held_against_each_other() -> None:
    whole = channels_of(migrations.multifd())
    story = migrations.multifd()
    story.drop(max(n for n, (channel, _) in enumerate(story) if channel == "multifd-0"))  # its last SYNC
    first = channels_of(story)
    assert hear(first).findings() == [("multifd-0", "LEG-MFD-056")]
    first["main"] = first["main"][:-1]
    assert hear(first).findings() == [("multifd-0", "LEG-MFD-056")]
    again = {f"{name}-2": data for name, data in whole.items()}
    heard = hear(first | again)
    assert heard.findings() == []
    assert [error.channel for error in heard.errors if not heard.session.overcome(error)] == []
    assert [error.channel for error in heard.errors] == ["main"]


def test_a_recovery_whose_first_part_is_missing() -> None:
    """Its sections were opened on the channel that is not there."""
    data = {"main": migrations.recovery().bytes_of("main-2")}
    heard = hear(data)
    assert [line.name for line in heard.lines[:3]] == ["RecvBitmap", "RecvBitmap", "PostcopyResume"]
    assert [error.requirement for error in heard.errors] == ["LEG-SEC-015"]


def test_cpr_state_and_tls_come_first() -> None:
    vector = next(iter(load_vectors("legacy/recordings#10.0-cpr-transfer")))
    data = {name: vector.data(name) for name in vector.channels}
    heard = hear(data)
    assert heard.errors == []
    assert heard.lines[0].channel == "cpr"
    record = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"
    for live in (False, True):
        both = hear({"tls-0": record, "tls-0.rp": record, "tls-1": record}, live=live)
        assert sorted(both.names("tls-0", "tls-0.rp", "tls-1")) == [
            "tls-0 TlsRecord", "tls-0.rp TlsRecord", "tls-1 TlsRecord",
        ]  # fmt: skip


def test_companions_without_main_are_told_all_the_same() -> None:
    data = channels_of(migrations.multifd())
    del data["main"]
    heard = hear(data)
    assert {channel: heard.of(channel) for channel in data} == data
    assert heard.findings() == []
    second = hear({"main": migrations.precopy().bytes_of("main"), "rp-2": rp.RpShut(value=1).encode()})
    assert second.lines[-1][:2] == ("rp-2", "RpShut")
    assert second.lines[-1].attempt == 1


def test_live_companions_wait_for_main() -> None:
    data = channels_of(migrations.multifd())
    session = MigrationSession(live=True)
    session.receive_data("multifd-0", data["multifd-0"])
    assert session.next_event() is NEED_DATA
    session.open("main-2")
    session.receive_data("main-2", data["main"])
    session.open("main")
    assert session.next_event() is NEED_DATA
    assert "main" in session.wants()
    assert "main-2" not in session.wants()


# -- passes --------------------------------------------------------------------------------


def test_passes_of_a_stream_without_marks() -> None:
    heard = hear(channels_of(migrations.precopy()))
    told = [(line.round, line.offset) for line in heard.lines if line.name == "RamPages"]
    assert [number for number, _ in told] == [1, 1, 2, 2]


def test_a_batch_over_the_end_of_a_pass_says_so() -> None:
    again = ram.RamPages.of("m0", 4096, [(0x1000, 0), (0x2000, 0), (0x1000, 0), (0x1000, 0)], named=True)
    story = migrations.precopy()
    place = story.at(ram.RamPages)
    story[place] = ("main", again)
    session = MigrationSession()
    session.receive_data("main", story.bytes_of("main"))
    items = iter(session.next_event, NEED_DATA)
    batch = next(item for item in items if isinstance(item, Told) and isinstance(item.event, ram.RamPages))
    assert (batch.round, batch.last_round) == (1, 3)


def test_deltas_belong_to_passes_too() -> None:
    heard = hear(channels_of(migrations.xbzrle()))
    assert [line.round for line in heard.lines if line.name == "RamDeltas"] == [2]


def test_marked_passes_are_counted_by_flush_and_postcopy_is_one() -> None:
    heard = hear(channels_of(migrations.multifd()))
    numbers = {
        int.from_bytes(line.wire[24:32], "big"): line.round
        for line in heard.lines
        if line.name == "MultifdPacket"
    }
    assert [numbers[n] for n in (2, 3, 4, 7, 9)] == [1, 1, 1, 2, 2]
    after = hear(channels_of(migrations.postcopy()))
    assert {line.round for line in after.lines if line.channel == "preempt"} == {2}


def test_passes_of_multifd_packets_without_marks() -> None:
    heard = hear(channels_of(per_section()))
    found = [
        (line.channel, int.from_bytes(line.wire[24:32], "big"), line.round)
        for line in heard.lines
        if line.name == "MultifdPacket" and line.wire[16:20] != bytes(4)
    ]
    # two sections: in the second, both scans begin again below where the first ended
    assert found == [("multifd-0", 20, 1), ("multifd-1", 21, 1), ("multifd-0", 40, 2), ("multifd-1", 40, 2)]


# -- what is left open ---------------------------------------------------------------------


def test_a_missing_multifd_channel_is_a_finding_and_no_hang() -> None:
    data = channels_of(migrations.multifd())
    del data["multifd-0"]
    assert hear(data).findings() == [("multifd-0", "LEG-MFD-003")]
    del data["multifd-1"]
    heard = hear(data)
    assert heard.of("main") == data["main"]
    assert heard.findings() == [("main", "LEG-SES-004")]


@pytest.mark.parametrize("live", [False, True])
def test_a_channel_that_ends_before_its_sync(live: bool) -> None:
    story = migrations.multifd()
    place = story.at(MultifdPacket, packet_num=8)
    data = channels_of(story.drop(place))
    heard = hear(data, live=live)
    assert {channel: heard.of(channel) for channel in data} == data
    (finding,) = heard.session.finish()
    assert (finding.channel, finding.requirement) == ("multifd-0", "LEG-MFD-056")
    flush = [line.offset for line in heard.lines if line.name == "RamMultifdFlush"]
    assert f"{flush[2]:#x}" in finding.message
    assert finding.offset == len(data["multifd-0"])


def test_a_sync_that_main_does_not_know() -> None:
    story = migrations.multifd()
    story.append(("multifd-1", sync(11)))
    heard = hear(channels_of(story))
    assert heard.findings() == [("multifd-1", "LEG-MFD-056")]
    assert heard.lines[-1].channel == "multifd-1"


def test_syncs_of_postcopy_are_all_there_or_none() -> None:
    heard = hear(channels_of(per_section(cut=1)))
    assert heard.findings() == [("multifd-1", "LEG-MFD-056")]


@pytest.mark.parametrize("live", [False, True])
def test_a_broken_channel_ends_its_own_part_only(live: bool) -> None:
    data = channels_of(migrations.multifd())
    data["multifd-0"] = data["multifd-0"][:64] + b"\xff" * 400
    heard = hear(data, live=live)
    assert [(error.channel, error.offset) for error in heard.errors] == [("multifd-0", 64)]
    assert heard.of("main") == data["main"]
    assert heard.of("multifd-1") == data["multifd-1"]
    assert heard.findings() == []  # the error says it


@pytest.mark.parametrize("live", [False, True])
def test_companions_of_a_cut_main_channel_are_told_to_their_ends(live: bool) -> None:
    data = channels_of(migrations.multifd())
    data["main"] = data["main"][: data["main"].index(ram.RamMultifdFlush().encode()) + 4]
    heard = hear(data, live=live)
    assert [error.channel for error in heard.errors] == ["main"]
    assert heard.of("multifd-0") == data["multifd-0"]
    assert heard.of("multifd-1") == data["multifd-1"]


def test_ids_against_names() -> None:
    data = channels_of(migrations.multifd())
    data["multifd-0"], data["multifd-1"] = data["multifd-1"], data["multifd-0"]
    assert hear(data).findings() == [("multifd-0", "LEG-MFD-003"), ("multifd-1", "LEG-MFD-003")]
    data = channels_of(migrations.multifd())
    data["multifd-1"] = data["multifd-0"]
    assert ("multifd-1", "LEG-MFD-003") in hear(data).findings()
    empty = hear({**channels_of(migrations.multifd()), "multifd-2": b""})
    assert [(error.channel, error.offset) for error in empty.errors] == [("multifd-2", 0)]
    assert empty.findings() == []


def test_an_end_that_was_not_given() -> None:
    session = MigrationSession()
    session.receive_data("main", migrations.precopy().bytes_of("main"))
    while session.next_event() is not NEED_DATA:
        pass
    assert [(f.channel, f.requirement) for f in session.finish()] == [("main", "LEG-SES-002")]
    assert session.wants() == ("main",)


# -- use -----------------------------------------------------------------------------------


def test_names_of_channels() -> None:
    assert parse_name("main") == ("main", 0, 1)
    assert parse_name("main-2") == ("main", 0, 2)
    assert parse_name("main.rp") == ("rp", 0, 1)
    assert parse_name("multifd-12") == ("multifd", 12, 1)
    assert parse_name("multifd-0-2") == ("multifd", 0, 2)
    assert parse_name("tls-1.rp") == ("tls", 1, 1)
    for wrong in ("", "multifd", "main-0", "multifd-0.rp", "MAIN", "main-99999", "x", "rp.rp", "empty-0"):
        with pytest.raises(LocalProtocolError, match="names no channel"):
            parse_name(wrong)


def test_wrong_use_is_a_local_error() -> None:
    session = MigrationSession()
    session.open("main")
    session.open("rp")
    with pytest.raises(LocalProtocolError, match="open already"):
        session.open("main")
    with pytest.raises(LocalProtocolError, match="open already"):
        session.open("main.rp")
    with pytest.raises(LocalProtocolError, match="names no channel"):
        session.receive_data("side", b"x")
    session.receive_data("main", b"")
    with pytest.raises(LocalProtocolError, match="has ended"):
        session.receive_data("main", b"x")
    session.receive_data("rp", b"")
    with pytest.raises(TruncatedStream):
        session.next_event()
    assert session.next_event() is CLOSED
    with pytest.raises(LocalProtocolError, match="too late"):
        session.open("preempt")
    session.open("main-2")
    assert session.next_event() is NEED_DATA
    assert [line.name for line in session.lines()] == ["main", "rp", "main-2"]


def test_channels_are_bounded() -> None:
    session = MigrationSession()
    for number in range(MAX_CHANNELS):
        session.open(f"multifd-{number % 256}-{number // 256 + 1}")
    with pytest.raises(LocalProtocolError, match="limit"):
        session.open("main")


def test_offsets_count_from_where_the_file_says() -> None:
    session = MigrationSession()
    session.open("main", offset=4096)
    session.receive_data("main", migrations.precopy().bytes_of("main"))
    first, second = session.next_event(), session.next_event()
    assert isinstance(first, Told)
    assert isinstance(second, Told)
    assert (first.event.offset, second.event.offset) == (4096, 4104)


def test_memory_of_a_waiting_channel_stays_with_the_caller() -> None:
    """A channel that must wait is not parsed further than its SYNC, and is not asked for."""
    data = channels_of(migrations.multifd())
    session = MigrationSession(live=True)
    for name in data:
        session.open(name)
    main = data["main"]
    place = main.index(ram.RamMultifdFlush().encode()) + 8
    session.receive_data("main", main[: place - 8])
    for name in ("multifd-0", "multifd-1"):
        session.receive_data(name, data[name])
    told: list[Record] = []
    while isinstance(item := session.next_event(), Told):
        told.append(item.event)
    assert sum(isinstance(event, MultifdPacket) for event in told) == 0
    assert session.wants() == ("main",)
    session.receive_data("main", main[place - 8 : place])
    while isinstance(item := session.next_event(), Told):
        told.append(item.event)
    # the flush frees the first SYNCs, and they free main; each channel then goes on to its second
    assert sum(isinstance(event, MultifdPacket) and event.is_sync for event in told) == 4
    assert session.wants() == ("main",)


#: recordings of several channels; the largest take too long here, and add no other order
SEVERAL = [
    vector
    for vector in load_vectors("legacy/recordings#")
    if len(vector.channels) > 1 and sum(channel.size or 0 for channel in vector.channels.values()) < 4 << 20
]


@pytest.mark.parametrize("vector", SEVERAL, ids=[vector.id for vector in SEVERAL])
def test_recordings_are_told_whole(vector: Vector) -> None:
    """Real migrations: every byte of every channel, and no finding but where a recording was cut."""
    data = {name: vector.data(name) for name in vector.channels}
    heard = hear(data)
    assert heard.findings() == []
    for name, content in data.items():
        cut = [error for error in heard.errors if error.channel == name]
        assert all(isinstance(error, TruncatedStream) for error in cut)
        assert heard.of(name) == (content[: cut[0].offset] if cut else content)
