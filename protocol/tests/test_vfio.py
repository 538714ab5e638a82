"""VFIO tags: data in pieces, and a configuration whose end must be found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy.live import READERS, SUFFIXES, open_reader
from qmig.legacy.sections import SectionStart, SectionType
from qmig.legacy.state import StreamState
from qmig.legacy.vfio import (
    VfioConfigLoadReady,
    VfioConfigState,
    VfioData,
    VfioDataState,
    VfioEndOfState,
    VfioInitDataSent,
    VfioReader,
    VfioSetupState,
    full_body,
)
from qmig.testing import load_registry
from qmig.testing.parsers import explore, parse

END = VfioEndOfState()


def section(feed: Feed) -> Steps[None]:
    return VfioReader(feed, StreamState()).section(SectionType.SECTION_PART)


def data(content: bytes) -> list[Record]:
    return [VfioDataState(length=len(content)), *([VfioData(data=content)] if content else [])]


def joined(records: list[Record]) -> bytes:
    return b"".join(record.encode() for record in records)


@pytest.mark.parametrize(
    "records",
    [
        [VfioSetupState(), END],
        [END],
        [*data(b"state"), *data(b""), *data(b"more"), END],
        [*data(b"first"), VfioInitDataSent()],
        [VfioConfigLoadReady()],
    ],
)
def test_sections(records: list[Record]) -> None:
    assert explore(section, joined(records)) == records


def test_data_come_in_pieces_whatever_the_chunks() -> None:
    size = limits.VFIO_PIECE + 10
    whole = VfioDataState(length=size).encode() + b"\x5a" * size + END.encode()
    for cuts in (range(0), range(100_000, len(whole), 100_000)):
        outcome = parse(section, whole, cuts=cuts)
        assert outcome.error is None
        assert [event.size for event in outcome.events] == [16, limits.VFIO_PIECE, 10, 8]


def test_a_length_field_costs_nothing() -> None:
    outcome = parse(section, VfioDataState(length=(1 << 64) - 1).encode() + b"abc")
    assert isinstance(outcome.error, TruncatedStream)
    assert "input ends at 0x13" in outcome.error.message


@pytest.mark.parametrize("tag", [0, 0xFFFFFFFFEF100000, 0xFFFFFFFFEF100007])
def test_unknown_tags(tag: int) -> None:
    error = parse(section, joined(data(b"x")) + tag.to_bytes(8, "big")).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == ("LEG-VFI-002", 17)


def test_setup_state_needs_its_end() -> None:
    error = parse(section, VfioSetupState().encode() + VfioInitDataSent().encode()).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.record) == ("LEG-VFI-010", "VfioEndOfState")


#: a configuration with the end tag inside, which something impossible follows
TRICKY = b"\1" * 20 + END.encode() + b"\x33" + b"\2" * 9


@pytest.mark.parametrize("config", [b"", b"\0" * 300, TRICKY, END.encode()[:7]])
@pytest.mark.parametrize("more", [[], [*data(b"device"), END]])
def test_the_end_of_a_configuration_in_a_live_section_is_inferred(config: bytes, more: list[Record]) -> None:
    """QEMU 5.2 sends it there, before the data; the next byte confirms the end."""
    state = VfioConfigState(boundary="inferred", config=config)
    records = [state, END, *more]
    whole = joined(records)
    for cuts in (range(0), range(1, len(whole) + 5), range(7, len(whole), 7)):
        outcome = parse(section, whole + b"\x7e\0\0\0\1", cuts=cuts)
        assert outcome.error is None
        assert (outcome.events, outcome.left) == (records, 5)
    for end in range(len(whole)):
        assert isinstance(parse(section, whole[:end]).error, TruncatedStream)


def test_a_configuration_without_an_end() -> None:
    outcome = parse(section, VfioConfigState(boundary="", config=bytes(limits.VFIO_CONFIG + 100)).encode())
    assert isinstance(outcome.error, LimitExceeded)
    assert (outcome.error.requirement, outcome.error.offset) == ("LEG-VFI-015", 0)


def test_bodies_of_full_sections() -> None:
    for first in (VfioSetupState(), VfioDataState(length=0)):
        error = parse(full_body, first.encode()).error
        assert isinstance(error, RemoteProtocolError)
        assert error.requirement == "LEG-VFI-016"
    state = VfioConfigState(boundary="given", config=TRICKY)
    whole = joined([state, END])
    for cuts in (range(0), range(1, len(whole))):
        assert parse(full_body, whole, cuts=cuts).events == [state, END]
    tag = whole.index(END.encode()) + 8  # where it ends in TRICKY: such a body is valid too
    for end in {*range(len(whole))} - {tag}:
        assert parse(full_body, whole[:end]).error is not None, end
    wrong = parse(full_body, whole[:-1] + b"\2").error
    assert isinstance(wrong, RemoteProtocolError)
    assert wrong.requirement == "LEG-VFI-010"


def open_section(idstr: str, version: int) -> object:
    start = SectionStart(section_id=3, idstr=idstr, instance_id=0, version_id=version).place(40, 20)
    return open_reader(start, Feed(), StreamState())


@pytest.mark.parametrize("idstr", [*READERS, "vfio", "0000:00:03.0/vfio"])
def test_every_row_has_its_reader_and_version(idstr: str) -> None:
    handler = READERS.get(idstr) or SUFFIXES["/vfio"]
    assert type(open_section(idstr, handler.version)) is handler.load()
    with pytest.raises(UnsupportedFeature) as problem:
        open_section(idstr, handler.version + 1)
    assert (problem.value.requirement, problem.value.offset) == ("LEG-OTH-002", 40)


@pytest.mark.parametrize("idstr", ["", "rams", "x/vfio2", "a/ram", "vfio/x"])
def test_sections_of_unknown_handlers(idstr: str) -> None:
    with pytest.raises(UnsupportedFeature) as problem:
        open_section(idstr, 1)
    assert problem.value.requirement == "LEG-OTH-001"


TAGS = st.sampled_from([r.encode() for r in (END, VfioSetupState(), VfioInitDataSent())])
PIECES = TAGS | st.just(b"\xff\xff\xff\xff\xef\x10\x00\x02") | st.binary(max_size=20)


@given(st.lists(PIECES, max_size=8).map(b"".join), st.integers(1, 9), st.sampled_from([section, full_body]))
def test_any_bytes_end_in_our_errors_however_cut(data: bytes, step: int, parser: object) -> None:
    assert callable(parser)
    whole = parse(parser, data)
    cut = parse(parser, data, cuts=range(step, len(data), step))
    assert cut.events == whole.events
    assert str(cut.error) == str(whole.error)


def test_the_registry_of_live_handlers_is_the_table_of_readers() -> None:
    table = {**READERS, **SUFFIXES}
    rows = load_registry("live-handlers").entries
    assert {row.value: row.extra["version"] for row in rows} == {k: h.version for k, h in table.items()}
