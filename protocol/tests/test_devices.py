"""Where device state ends: by a schema, by the stream's own description, by its footer, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._wire import NeedBytes, Record
from qmig.errors import LimitExceeded, TruncatedStream, UnsupportedFeature
from qmig.legacy import commands as c
from qmig.legacy import sections as s
from qmig.legacy.ram import RamEos
from qmig.legacy.state import StreamState
from qmig.testing.streams import DEVICE, FIELDS, FULL, HEAD, RAM, TAIL, TIMER, VMDESC, read, same, to_bytes


class Fixed:
    """A schema that proposes these lengths for every device."""

    origin = "schema"

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def ends(self, section: s.SectionFull, view: memoryview) -> Iterable[int]:
        if len(view) < 1:
            raise NeedBytes(1)
        yield from self.lengths


def device(body: bytes, *, boundary: str) -> list[Record]:
    return [FULL, s.DeviceState(section_id=7, boundary=boundary, data=body), s.SectionFooter(section_id=7)]


def bodies(events: list[Record]) -> list[tuple[bytes, str]]:
    return [(bytes(e.data), e.boundary) for e in events if isinstance(e, s.DeviceState)]


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("footers", [True, False])
def test_a_given_schema_needs_no_description_behind(step: int, footers: bool) -> None:
    body = b"ab" + b"\x7e\0\0\0\x07\x00"  # holds what looks like its own footer
    events = [*HEAD, *RAM, *device(body, boundary="schema"), *device(body, boundary="schema"), TAIL[0]]
    if not footers:
        events = [event for event in events if not isinstance(event, s.SectionFooter)]
    data = to_bytes(events)
    found, error = read(data, range(0, len(data), step), state=StreamState(schema=Fixed(1, 8)))
    assert error is None
    assert bodies(found) == [(body, "schema")] * 2


def test_a_wrong_schema_gives_way_to_the_footer() -> None:
    data = to_bytes([*HEAD, *RAM, *device(b"abc", boundary="footer"), TAIL[0]])
    found, error = read(data, state=StreamState(schema=Fixed(1, 2)))
    assert error is None
    assert bodies(found) == [(b"abc", "footer")]


def test_early_state_is_found_by_its_footer() -> None:
    data = to_bytes([*HEAD, *device(b"early", boundary="footer"), *RAM, *TIMER, *TAIL])
    for cuts in ((), range(len(data))):
        found, error = read(data, cuts)
        assert error is None
        assert bodies(found) == [(b"early", "footer"), (bytes(TIMER[1].data), "vmdesc")]  # type: ignore[attr-defined]


def test_a_footer_inside_state_needs_a_plausible_record_behind() -> None:
    body = b"ab" + s.SectionFooter(section_id=7).encode() + b"\x44cd"
    data = to_bytes([*HEAD, *RAM, *device(body, boundary="footer"), TAIL[0]])
    for cuts in ((), range(len(data))):
        found, error = read(data, cuts)
        assert error is None
        assert bodies(found) == [(body, "footer")]


def test_no_description_and_no_footer_is_said() -> None:
    events = [e for e in [*HEAD, *RAM, *TIMER, TAIL[0]] if not isinstance(e, s.SectionFooter)]
    data = to_bytes(events)
    for cuts in ((), range(len(data))):
        found, error = read(data, cuts)
        assert isinstance(error, UnsupportedFeature)
        assert isinstance(found[-1], s.UnreadState)
        assert "-dump-vmstate" in error.message
        assert b"".join(event.encode() for event in found) == data


def test_a_stream_without_configuration_ram_or_footers() -> None:
    """What `xen-save-devices-state` writes."""
    events: list[Record] = [HEAD[0], FULL, TIMER[1], FULL, TIMER[1], s.EndOfFile()]
    data = to_bytes(events)
    for cuts in ((), range(len(data))):
        found, error = read(data, cuts, state=StreamState(schema=Fixed(8)))
        assert error is None
        assert b"".join(e.encode() for e in found) == data
        assert [body for body, _ in bodies(found)] == [bytes(TIMER[1].data)] * 2  # type: ignore[attr-defined]


def test_an_interrupted_stream_ends_in_the_device() -> None:
    data = to_bytes([*HEAD, *RAM, *device(b"abcdefgh", boundary="footer")])
    for end in range(len(data) - 8, len(data) - 1):
        found, error = read(data[:end])
        assert isinstance(error, TruncatedStream)
        assert "timer" in error.record
        assert isinstance(found[-1], s.SectionFull)
        found, error = read(data[:end], state=StreamState(schema=Fixed(8)))
        assert isinstance(error, TruncatedStream)
    found, error = read(data)
    assert isinstance(error, TruncatedStream)  # at the next section
    assert bodies(found) == [(b"abcdefgh", "footer")]


def test_json_that_is_no_description_is_passed_over() -> None:
    fake = b'\0\x06\0\0\0\x05{"a"x' + b'\0\x06\xff\xff\xff\xff{"' + b'\0\x06\0\0\x10\0{"later"'
    size = 8 + len(fake)
    description = {
        "page_size": 4096,
        "devices": [{**DEVICE, "fields": [{**FIELDS[0], "type": "buffer", "size": size}]}],
    }
    body = bytes(8) + fake
    tail = [s.EndOfFile(), s.VmDescription(json=json.dumps(description).encode())]
    data = to_bytes([*HEAD, *RAM, *device(body, boundary="vmdesc"), *tail])
    for cuts in ((), range(len(data))):
        found, error = read(data, cuts)
        assert error is None
        assert bodies(found) == [(body, "vmdesc")]


def test_the_search_for_a_description_gives_up() -> None:
    fake = b"\0\x06\0\0\0\x02{ " * 100
    body = fake
    data = to_bytes([*HEAD, *RAM, *device(body, boundary="footer"), *TAIL])
    found, error = read(data)
    assert error is None
    assert bodies(found) == [(body, "footer")]


def test_held_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICE_STATE", 100)
    data = to_bytes([*HEAD, *RAM, FULL]) + bytes(1000)
    _, error = read(data, range(0, len(data), 50))
    assert isinstance(error, LimitExceeded)
    _, error = read(data, range(0, len(data), 50), state=StreamState(schema=Fixed(500)))
    assert isinstance(error, LimitExceeded)


def test_a_package_has_no_description() -> None:
    inner: list[Record] = [c.PostcopyListen(), *device(b"a" * 9, boundary="footer"), c.PostcopyRun()]
    content = b"".join(event.encode() for event in inner)
    data = to_bytes([*HEAD, *RAM, c.Packaged(size_of_package=len(content))]) + content + b"\0"
    found, error = read(data)
    assert error is None
    assert bodies(found) == [(b"a" * 9, "footer")]
    assert same([found[-1]], [s.EndOfFile()])


def test_description_is_the_same_object_the_stream_ends_with() -> None:
    state = StreamState()
    found, error = read(to_bytes([*HEAD, *RAM, *TIMER, *TAIL]), state=state)
    assert error is None
    assert state.schema is not None
    assert found[-1] == s.VmDescription(json=VMDESC)


class Greedy:
    """A schema that wants to see more than there is before it proposes anything."""

    origin = "schema"

    def ends(self, section: s.SectionFull, view: memoryview) -> Iterable[int]:
        raise NeedBytes(len(view) + 10_000)


@pytest.mark.parametrize("schema", [Fixed(5000), Greedy()])
def test_a_schema_that_asks_for_more_than_there_is_gives_way_to_the_footer(schema: Fixed | Greedy) -> None:
    data = to_bytes([*HEAD, *RAM, *device(b"abc", boundary="footer"), TAIL[0]])
    for cuts in ((), range(0, len(data), 7)):
        found, error = read(data, cuts, state=StreamState(schema=schema))
        assert error is None
        assert bodies(found) == [(b"abc", "footer")]


def test_a_description_is_tried_once_however_often_the_bytes_are_searched() -> None:
    endless = b'\0\x06\0\0\x40\0{"never complete'  # holds the place where the search resumes
    nothing = b"\0\x06\0\0\0\x02{ "
    body = endless + nothing + bytes(300)
    data = to_bytes([*HEAD, *RAM, *device(body, boundary="footer"), *TAIL])
    for step in (1, 16, 100):
        found, error = read(data, range(0, len(data), step))
        assert error is None
        assert bodies(found) == [(body, "footer")]


#: what may stand behind a device in a package, or at the end of a stream without description
BEHIND: dict[str, list[Record]] = {
    "another device": [
        s.SectionFull(section_id=9, idstr="0000:00:01.1/ide", instance_id=0, version_id=3),
        s.DeviceState(section_id=9, boundary="footer", data=b"x"),
        s.SectionFooter(section_id=9),
        TAIL[0],
    ],
    "a command": [c.Ping(value=3), TAIL[0]],
    "more of a live section": [s.SectionEnd(section_id=1), RamEos(), s.SectionFooter(section_id=1), TAIL[0]],
    "the end": [TAIL[0]],
}


@pytest.mark.parametrize("behind", BEHIND)
@given(st.lists(st.sampled_from([0x7E, 0]), max_size=40).map(bytes), st.integers(1, 200))
def test_what_looks_like_a_footer_in_the_state_is_none(behind: str, body: bytes, step: int) -> None:
    """A timer whose count ends in 0x7e in front of reserved zeros, as section 0: seen with QEMU 7.2."""
    body += b"A"  # state of nothing but zeros and 0x7e may end anywhere
    device = [
        s.SectionFull(section_id=0, idstr="timer", instance_id=0, version_id=2),
        s.DeviceState(section_id=0, boundary="footer", data=body),
        s.SectionFooter(section_id=0),
    ]
    data = to_bytes([*HEAD, *RAM, *device, *BEHIND[behind]])
    found, error = read(data, range(0, len(data), step))
    assert error is None
    assert bodies(found)[0] == (body, "footer")


def test_a_footer_with_an_odd_record_behind_it_is_taken_when_there_is_no_better() -> None:
    odd = [
        s.SectionFull(section_id=9, idstr="\x01", instance_id=0, version_id=1),
        s.DeviceState(section_id=9, boundary="footer", data=b"x"),
        s.SectionFooter(section_id=9),
        TAIL[0],
    ]
    data = to_bytes([*HEAD, *RAM, *device(b"abc", boundary="footer"), *odd])
    for step in (1, 7, 1000):
        found, error = read(data, range(0, len(data), step))
        assert error is None
        assert bodies(found) == [(b"abc", "footer"), (b"x", "footer")]


@pytest.mark.parametrize("cut", range(1, 37))
def test_an_interrupted_record_behind_a_footer_confirms_it(cut: int) -> None:
    data = to_bytes([*HEAD, *RAM, *device(b"abc", boundary="footer"), *BEHIND["another device"]])
    found, error = read(data[:-cut], (5, 6))
    assert bodies(found)[0] == (b"abc", "footer")
    assert error is not None


#: what follows bytes that look like the section's own footer, and is no record that QEMU writes
IMITATIONS = {
    "a device without a printable name": b"\x04\0\0\0\x09\x03a\0b" + bytes(8),
    "a device without a name": b"\x04\0\0\0\x09\0" + bytes(8),
    "a live section without a printable name": b"\x01\0\0\0\x09\x02\xff\xfe" + bytes(8),
    "a command that does not exist": b"\x08\x7f\xff\0\0",
    "a command that is too long": b"\x08\0\x02\xff\xff",
    "more of a section that was not begun": b"\x02\0\0\x12\x34",
    "the end of a section that was not begun": b"\x03\0\0\x12\x34",
    "the end, and no description": b"\0\x01",
}


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("name", IMITATIONS)
def test_an_imitation_of_a_footer_needs_a_record_behind_it(name: str, step: int) -> None:
    body = b"ab\x7e\0\0\0\x07" + IMITATIONS[name] + b"cd"
    data = to_bytes([*HEAD, *RAM, *device(body, boundary="footer"), TAIL[0]])
    found, error = read(data, range(0, len(data), step))
    assert error is None
    assert bodies(found) == [(body, "footer")]
