"""The main channel: every item, every order error, every cut, any chunking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._wire import Record
from qmig.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedStream,
    UnsupportedFeature,
)
from qmig.legacy import commands as c
from qmig.legacy import header as h
from qmig.legacy import sections as s
from qmig.legacy.ram import RamEos, RamPages
from qmig.legacy.receiver import CLOSED, LegacyReceiver
from qmig.legacy.sender import LegacySender, Phase
from qmig.legacy.state import StreamState
from qmig.testing import load_vectors
from qmig.testing.streams import FULL, HEAD, PLAIN, RAM, TIMER, read, same, to_bytes


def test_a_plain_stream_in_one_piece() -> None:
    events, error = read(to_bytes(PLAIN))
    assert error is None
    assert same(events, PLAIN)
    position = 0
    for event in events:
        assert event.offset == position
        position += event.size


def test_byte_by_byte_is_the_same_stream() -> None:
    data = to_bytes(PLAIN)
    events, error = read(data, range(len(data)))
    assert error is None
    assert b"".join(event.encode() for event in events) == data
    assert [type(e) for e in events if not isinstance(e, RamPages)] == [
        type(e) for e in PLAIN if not isinstance(e, RamPages)
    ]


@given(st.data())
def test_any_chunking_is_the_same_stream(draw: st.DataObject) -> None:
    data = to_bytes(PLAIN)
    cuts = draw.draw(st.lists(st.integers(1, len(data) - 1), max_size=20))
    events, error = read(data, cuts)
    assert error is None
    assert b"".join(event.encode() for event in events) == data


def test_a_cut_anywhere_delivers_what_came_and_says_truncated() -> None:
    data = to_bytes(PLAIN)
    for end in range(len(data)):
        events, error = read(data[:end])
        whole = b"".join(event.encode() for event in events)
        assert data[:end].startswith(whole)
        if error is None:  # EOF came: the description may be missing
            assert isinstance(events[-1], s.EndOfFile)
        else:
            assert isinstance(error, TruncatedStream)
            assert error.offset <= end
            assert error.record


@given(st.data())
def test_damage_raises_only_our_errors(draw: st.DataObject) -> None:
    data = bytearray(to_bytes(PLAIN))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    _, error = read(bytes(data))
    assert error is None or (error.requirement and error.record)  # type: ignore[attr-defined]


def test_the_end_and_an_error_are_final() -> None:
    receiver = LegacyReceiver()
    receiver.receive_data(to_bytes(PLAIN))
    receiver.receive_data(b"")
    while receiver.next_event() is not CLOSED:
        pass
    assert receiver.next_event() is CLOSED
    receiver = LegacyReceiver()
    receiver.receive_data(b"what is this?")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="magic"):
            receiver.next_event()


def test_configuration_subsections() -> None:
    events = [
        *HEAD,
        h.Subsection(name="configuration/target-page-bits", version_id=1),
        h.ConfigurationPageBits(target_page_bits=14),
        h.Subsection(name="configuration/capabilities", version_id=1),
        h.ConfigurationCapabilities(capabilities=("x-ignore-shared",)),
        h.Subsection(name="configuration/uuid", version_id=1),
        h.ConfigurationUuid(uuid=bytes(range(16))),
        s.EndOfFile(),
    ]
    state = StreamState()
    found, error = read(to_bytes(events), state=state)
    assert error is None
    assert same(found, events)
    assert (state.machine, state.target_page_size) == ("pc-i440fx-11.1", 16384)
    assert state.capabilities == {"x-ignore-shared"}


def test_without_footers() -> None:
    bare = [event for event in PLAIN if not isinstance(event, s.SectionFooter)]
    state = StreamState()
    found, error = read(to_bytes(bare), state=state)
    assert error is None
    assert same(found, bare)
    assert state.footers is False


ALL_COMMANDS: list[Record] = [
    c.OpenReturnPath(),
    c.Ping(value=1),
    c.PostcopyAdvise(page_sizes=0x201000, target_page_size=4096),
    c.PostcopyAdviseEmpty(),
    c.PostcopyListen(),
    c.PostcopyRun(),
    c.PostcopyRamDiscard(length=1 + 7 + 1 + 32, block="pc.ram", ranges=((0, 4096), (8192, 4096))),
    c.EnableColo(),
    c.PostcopyResume(),
    c.RecvBitmap(length=7, block="pc.ram"),
    c.SwitchoverStart(),
    c.UnknownCommand(command=99, length=3, payload=b"abc"),
]


@pytest.mark.parametrize(("told", "used"), [(0x2000, 0x2000), (0x3000, 4096), (1 << 40, 4096)])
def test_advise_tells_the_page_size_if_it_can_be_one(told: int, used: int) -> None:
    state = StreamState()
    advise = c.PostcopyAdvise(page_sizes=told, target_page_size=told)
    _, error = read(to_bytes([*HEAD, advise, s.EndOfFile()]), state=state)
    assert error is None
    assert state.target_page_size == used


def test_every_command() -> None:
    events = [*HEAD, *ALL_COMMANDS, s.EndOfFile()]
    found, error = read(to_bytes(events))
    assert error is None
    assert same(found, events)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("08 0002 0003 000000", "PING: length 3 does not fit"),
        ("08 0001 0001 00", "OPEN_RETURN_PATH: length is 1, expected 0"),
        ("08 0006 0003 01 00 00", "POSTCOPY_RAM_DISCARD: version is 1, expected 0"),
        ("08 0006 000a 00 00 00 0000000000000000", "POSTCOPY_RAM_DISCARD: length 10 does not fit"),
        ("08 000a 0003 06 7063", "RECV_BITMAP: length 3 does not fit"),
    ],
)
def test_wrong_commands(raw: str, says: str) -> None:
    data = to_bytes(HEAD)
    _, error = read(data + bytes.fromhex(raw))
    assert isinstance(error, RemoteProtocolError)
    assert (error.message, error.requirement, error.offset) == (says, "LEG-CMD-003", len(data))


def package(*content: Record) -> bytes:
    sender = LegacySender(headerless=True)
    return sender.send_package(content)


def test_a_package_is_a_stream_in_the_stream() -> None:
    device = [
        FULL,
        s.DeviceState(section_id=7, boundary="footer", data=b"x" * 8),
        s.SectionFooter(section_id=7),
    ]
    inner: list[Record] = [c.PostcopyListen(), *device, c.Ping(value=3), c.PostcopyRun()]
    data = to_bytes([*HEAD, *RAM]) + package(*inner) + b"\0"
    found, error = read(data)
    assert error is None
    opening = found.index(c.Packaged(size_of_package=len(package(*inner)) - 9))
    assert same(found[opening + 1 :], [*inner, c.PackageEnd(), s.EndOfFile()])
    sender = LegacySender()
    assert b"".join(map(sender.send, found)) == data
    events, error = read(data, range(len(data)))
    assert error is None
    assert b"".join(event.encode() for event in events) == data


def test_what_follows_run_in_a_package_is_ignored_but_kept() -> None:
    inner = c.PostcopyRun().encode() + b"junk"
    data = to_bytes(HEAD) + c.Packaged(size_of_package=len(inner)).encode() + inner + b"\0"
    found, error = read(data)
    assert error is None
    assert s.TrailingBytes(data=b"junk") in [
        s.TrailingBytes(data=bytes(e.data)) for e in found if isinstance(e, s.TrailingBytes)
    ]


def test_packages_in_packages_have_a_bottom() -> None:
    raw = b""
    for _ in range(10):
        raw = c.Packaged(size_of_package=len(raw)).encode() + raw
    _, error = read(to_bytes(HEAD) + raw)
    assert isinstance(error, RemoteProtocolError)
    assert "nested" in error.message


def test_a_recovered_stream_has_no_header() -> None:
    events = [c.RecvBitmap(length=7, block="pc.ram"), c.PostcopyResume(), s.EndOfFile()]
    found, error = read(to_bytes(events, headerless=True), headerless=True)
    assert error is None
    assert same(found, events)


def test_trailing_bytes_are_kept() -> None:
    data = to_bytes(PLAIN) + b"more"
    found, error = read(data)
    assert error is None
    assert b"".join(e.encode() for e in found) == data
    found, error = read(to_bytes([*HEAD, s.EndOfFile()]) + b"\x05")
    assert error is None
    assert isinstance(found[-1], s.TrailingBytes)


def with_ram(*items: Record) -> bytes:
    return to_bytes([*HEAD, *RAM[:5], *items])


@pytest.mark.parametrize(
    ("data", "requirement", "says"),
    [
        (b"QEVN" + bytes(4), "LEG-HDR-001", "magic"),
        (b"QEVM\0\0\0\2", "LEG-HDR-002", "version 2"),
        (to_bytes(HEAD) + b"\x09", "LEG-SEC-002", "unknown section type 0x9"),
        (to_bytes(HEAD) + b"\x06", "LEG-SEC-002", "0x6"),
        (to_bytes(HEAD) + b"\x02\0\0\0\x09", "LEG-SEC-015", "was not started"),
        (
            to_bytes([*HEAD, h.Subsection(name="configuration/x", version_id=1)]),
            "LEG-HDR-023",
            "unknown configuration subsection",
        ),
        (
            to_bytes([*HEAD, h.Subsection(name="configuration/target-page-bits", version_id=1)])
            + b"\0\0\0\x20",
            "LEG-HDR-020",
            "target page bits 32",
        ),
        (
            with_ram(s.SectionPart(section_id=1), RamEos()) + b"\x7e\0\0\0\2",
            "LEG-SEC-021",
            "footer of section 2",
        ),
    ],
)
def test_wrong_bytes(data: bytes, requirement: str, says: str) -> None:
    _, error = read(data)
    assert isinstance(error, RemoteProtocolError)
    assert says in error.message
    assert error.requirement == requirement


def test_an_unknown_live_section_cannot_be_skipped() -> None:
    section = s.SectionStart(section_id=3, idstr="new\x00thing", instance_id=0, version_id=1)
    _, error = read(to_bytes([*HEAD, section]))
    assert isinstance(error, UnsupportedFeature)
    assert error.requirement == "LEG-OTH-001"
    assert "\\x00" in error.message  # names from the wire never reach a terminal as they are


def test_live_sections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIVE_SECTIONS", 0)
    _, error = read(to_bytes([*HEAD, *RAM]))
    assert isinstance(error, LimitExceeded)


@pytest.mark.parametrize("phase", list(Phase))
def test_the_sender_keeps_order(phase: Phase) -> None:
    sender = LegacySender()
    sender.phase = phase
    wrong: dict[Phase, Record] = {
        Phase.HEADER: s.EndOfFile(),
        Phase.CONFIGURATION: RamEos(),
        Phase.ITEMS: RamEos(),
        Phase.LIVE: h.FileHeader(version=3),
        Phase.DEVICE: s.SectionFooter(section_id=1),
        Phase.FOOTER: TIMER[1],
        Phase.ENDED: FULL,
        Phase.DESCRIBED: s.EndOfFile(),
    }
    with pytest.raises(LocalProtocolError, match="cannot come"):
        sender.send(wrong[phase])
    assert sender.phase is phase


@pytest.mark.parametrize("vector", list(load_vectors("legacy/recordings")), ids=lambda vector: vector.id)
def test_sections_of_real_recordings_lie_where_another_decoder_found_them(vector: object) -> None:
    facts = vector.read_facts()  # type: ignore[attr-defined]
    for stream in facts["streams"]:
        name = stream["channel"]
        data = vector.data(name)  # type: ignore[attr-defined]
        expected = [
            (item["offset"], item["idstr"] if item["kind"] == "section" else item["name"])
            for item in stream["items"]
            if item["kind"] in {"section", "command"}
        ]
        state = StreamState()
        first = vector.data("main") if name != "main" else b""  # type: ignore[attr-defined]
        if first:
            read(first, state=state)
        start = 0 if first else data.index(b"QEVM")  # `file:…,offset=N` leaves N bytes before
        events, error = read(data[start:], state=state, headerless=bool(first), offset=start)
        cut = "cut" in vector.flags  # type: ignore[attr-defined]
        assert error is None or (cut and isinstance(error, TruncatedStream)), error
        found = []
        names = {number: section.idstr for number, section in state.sections.items()}
        for event in events:
            if isinstance(event, (s.SectionStart, s.SectionFull)):
                names[event.section_id] = event.idstr
                found.append((event.offset, event.idstr))
            elif isinstance(event, (s.SectionPart, s.SectionEnd)):
                found.append((event.offset, names[event.section_id]))
            elif isinstance(event, Record) and isinstance(getattr(type(event), "command", None), int):
                found.append((event.offset, c.MigCmd(type(event).command).name))  # type: ignore[attr-defined]
        assert found[: len(expected)] == expected
        assert len(found) <= len(expected) + cut
        assert data[start:].startswith(b"".join(event.encode() for event in events))
