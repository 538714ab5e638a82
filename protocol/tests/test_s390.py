"""s390x handlers and the bodies of FULL sections that are no VMState."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import NeedBytes, Record
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy import sections as s
from qmig.legacy.oldstyle import OPAQUE, decode_body, self_delimiting
from qmig.legacy.s390 import (
    StorageAttributes,
    StorageAttributesDone,
    StorageAttributesEos,
    StorageAttributesReader,
    StorageKeys,
    StorageKeysEnd,
    TodClock,
    storage_keys,
    tod_clock,
)
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState
from qmig.legacy.vfio import VfioConfigLoadReady, VfioConfigState, VfioEndOfState
from qmig.testing.parsers import explore, parse
from qmig.testing.streams import HEAD, RAM, read, to_bytes

MORE = StorageAttributes(word=0x4000_0000 | 2, count=5, data=b"\1\2\3\4\5")
DONE, EOS = StorageAttributesDone(), StorageAttributesEos()


def attributes(feed: Feed) -> Steps[None]:
    return StorageAttributesReader(feed, StreamState()).section(SectionType.SECTION_END)


def attribute_sections(feed: Feed) -> Steps[None]:
    reader = StorageAttributesReader(feed, StreamState())
    for kind in (SectionType.SECTION_START, SectionType.SECTION_PART, SectionType.SECTION_END):
        yield from reader.section(kind)


def joined(records: list[Record]) -> bytes:
    return b"".join(record.encode() for record in records)


def test_attribute_sections() -> None:
    """START is EOS alone, PART has attributes, END has DONE before EOS (as QEMU sends them)."""
    records = [EOS, MORE, MORE, EOS, MORE, DONE, EOS]
    assert explore(attribute_sections, joined(records)) == records
    assert MORE.address == 0x4000_0000
    assert MORE.encode()[:16] == bytes.fromhex("0000000040000002 0000000000000005")


def test_a_section_may_end_behind_done() -> None:
    """The next byte decides: a footer is no record, since no address is that high."""
    outcome = parse(attributes, joined([MORE, DONE]) + b"\x7e\0\0\0\5\4")
    assert outcome.error is None
    assert (outcome.events, outcome.left) == ([MORE, DONE], 6)


def test_records_behind_done_are_read_as_the_loader_reads_them() -> None:
    assert explore(attributes, joined([DONE, MORE, EOS])) == [DONE, MORE, EOS]


@pytest.mark.parametrize(
    ("word", "requirement"),
    [(0x5004, "LEG-ZAR-013"), (0, "LEG-ZAR-002"), (3, "LEG-ZAR-002"), (0x1001, "LEG-ZAR-002"),
     (0x1008, "LEG-ZAR-002"), ((1 << 64) - 1, "LEG-ZAR-002")],
)  # fmt: skip
def test_attribute_words_that_end_the_reading(word: int, requirement: str) -> None:
    error = parse(attributes, MORE.encode() + word.to_bytes(8, "big")).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == (requirement, 21)


@pytest.mark.parametrize("count", [limits.STORAGE_ATTRIBUTES + 1, (1 << 64) - 1])
def test_a_huge_count_costs_nothing(count: int) -> None:
    outcome = parse(attributes, MORE.encode()[:8] + count.to_bytes(8, "big"))
    assert isinstance(outcome.error, LimitExceeded)


KEYS: list[Record] = [
    StorageKeys(word=2, count=3, data=b"\x06\x06\x00"),
    StorageKeys(word=0x10_0002, count=0, data=b""),
    StorageKeysEnd(word=1),
]
CLOCK = TodClock(flag=1, high=0, low=0xD0123456789ABCDE)


def test_storage_keys() -> None:
    assert explore(storage_keys, joined(KEYS)) == KEYS
    assert decode_body("s390-skeys", joined(KEYS), offset=70) == KEYS
    failed = StorageKeysEnd(word=4)
    assert explore(storage_keys, failed.encode()) == [failed]


def test_unknown_key_flags_and_huge_counts() -> None:
    error = parse(storage_keys, joined(KEYS[:1]) + bytes(8)).error
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == ("LEG-ZAR-003", 19)
    huge = joined(KEYS[:1])[:8] + (limits.STORAGE_KEYS + 1).to_bytes(8, "big")
    assert isinstance(parse(storage_keys, huge).error, LimitExceeded)


def test_clock() -> None:
    missing = TodClock(flag=0)
    assert explore(tod_clock, CLOCK.encode()) == [CLOCK]
    assert explore(tod_clock, missing.encode()) == [missing]
    assert CLOCK.encode() == bytes.fromhex("01 00 d0123456789abcde")
    assert decode_body("todclock", b"\0") == [missing]
    assert decode_body("todclock", b"\x07" + CLOCK.encode()[1:]) == [
        TodClock(flag=7, high=CLOCK.high, low=CLOCK.low)
    ]


@pytest.mark.parametrize(("flag", "high", "low"), [(0, 0, None), (0, None, 0), (1, None, None), (1, 0, None)])
def test_a_clock_that_contradicts_itself(flag: int, high: int | None, low: int | None) -> None:
    with pytest.raises(LocalProtocolError):
        TodClock(flag=flag, high=high, low=low)


def test_pages_and_bytes_agree() -> None:
    with pytest.raises(LocalProtocolError, match="2 bytes for 3 pages"):
        StorageKeys(word=2, count=3, data=b"ab")


def test_bodies_are_decoded_by_name() -> None:
    assert decode_body("slirp", b"anything") is None
    assert "slirp" in OPAQUE
    ready = VfioConfigLoadReady()
    for idstr in ("vfio", "0000:00:02.0/vfio"):
        assert decode_body(idstr, ready.encode()) == [ready]
    config = VfioConfigState(boundary="given", config=b"\0" * 8 + VfioEndOfState().encode() + b"\1")
    assert decode_body("x/vfio", config.encode() + VfioEndOfState().encode()) == [config, VfioEndOfState()]


@pytest.mark.parametrize("idstr", ["s390-skeys", "todclock", "vfio"])
def test_a_body_that_goes_on(idstr: str) -> None:
    body = {"s390-skeys": joined(KEYS), "todclock": CLOCK.encode(), "vfio": VfioEndOfState().encode()}[idstr]
    with pytest.raises(RemoteProtocolError) as problem:
        decode_body(idstr, body + b"\0", offset=1000)
    assert (problem.value.requirement, problem.value.offset) == ("LEG-OTH-010", 1000 + len(body))


def test_a_body_that_is_cut() -> None:
    with pytest.raises(TruncatedStream):
        decode_body("s390-skeys", joined(KEYS)[:-1])


def test_bodies_that_tell_their_end() -> None:
    data = memoryview(joined(KEYS) + b"\x7e\0\0\0\1")
    assert self_delimiting("s390-skeys", data) == len(joined(KEYS))
    assert self_delimiting("timer", data) is None
    for end in range(len(joined(KEYS))):
        with pytest.raises(NeedBytes) as need:
            self_delimiting("s390-skeys", data[:end])
        assert end < need.value.size <= len(joined(KEYS))


@given(
    st.binary(max_size=200), st.integers(1, 9), st.sampled_from([attribute_sections, storage_keys, tod_clock])
)
def test_any_bytes_end_in_our_errors_however_cut(data: bytes, step: int, parser: object) -> None:
    assert callable(parser)
    whole = parse(parser, data)
    cut = parse(parser, data, cuts=range(step, len(data), step))
    assert cut.events == whole.events
    assert str(cut.error) == str(whole.error)


def full(idstr: str, body: bytes, footer: bool) -> bytes:
    head = s.SectionFull(section_id=9, idstr=idstr, instance_id=0, version_id=1)
    return head.encode() + body + s.SectionFooter(section_id=9).encode() * footer


#: keys that look like the footer of their own section and a type byte
LURE = StorageKeys(word=2, count=6, data=b"\x7e\0\0\0\x09\x04")


@pytest.mark.parametrize("footer", [True, False])
@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_bodies_that_tell_their_end_need_no_description(footer: bool, step: int) -> None:
    bodies = {"s390-skeys": joined([LURE, KEYS[2]]), "todclock": CLOCK.encode()}
    parts = [full(idstr, body, footer) for idstr, body in bodies.items()]
    ram = [event for event in RAM if footer or not isinstance(event, s.SectionFooter)]
    data = to_bytes([*HEAD, *ram]) + b"".join(parts) + b"\0"
    for cut in range(step, len(data), step) if step == 1 else [len(data)]:
        found, error = read(data[:cut])
        assert (error is None) == (cut == len(data))
    found, error = read(data, range(step, len(data), step))
    assert error is None
    states = [event for event in found if isinstance(event, s.DeviceState)]
    assert [bytes(state.data) for state in states] == list(bodies.values())
    assert {state.boundary for state in states} == {"built-in"}


def test_a_body_not_of_its_layout_ends_at_the_footer() -> None:
    for body in (b"\x05" * 30, joined([LURE, KEYS[2]]) + b"more"):
        found, _ = read(to_bytes([*HEAD, *RAM]) + full("s390-skeys", body, footer=True) + b"\0")
        states = [event for event in found if isinstance(event, s.DeviceState)]
        assert [state.boundary for state in states] == ["footer"]


def test_layouts_are_not_tried_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these bodies could be read to the end of the input before it turns out to be none."""
    tried: list[str] = []

    def counting(idstr: str, view: memoryview) -> int | None:
        tried.append(idstr)
        return self_delimiting(idstr, view)

    monkeypatch.setattr("qmig.legacy.oldstyle.self_delimiting", counting)
    far = StorageKeys(word=2, count=0, data=b"").encode()
    parts = full("s390-skeys", far[:8] + (20_000).to_bytes(8, "big"), footer=True) * 500
    found, error = read(to_bytes([*HEAD, *RAM]) + parts + far * 5000)
    assert error is None
    states = [event for event in found if isinstance(event, s.DeviceState)]
    assert [state.boundary for state in states] == ["footer"] * 500
    assert len(tried) <= 64
