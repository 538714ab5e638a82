"""Hostile input made out of recordings of the repository: one thing is wrong in it, the one named."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from qmig.errors import RemoteProtocolError
from qmig.legacy.commands import Packaged, PackageEnd, PostcopyRun
from qmig.legacy.multifd import MultifdPacket
from qmig.legacy.ram import RamPage, RamPages, RamZeroPage
from qmig.legacy.sections import EndOfFile, SectionFooter, SectionFull
from qmig.testing import load_vectors
from qmig.testing.scenario import Scenario
from qmig.testing.variants import variant_names
from qmig_conformance.hostile import connections, families, mapped_ram, postcopy, recovery, sweep
from qmig_conformance.hostile.families import Family
from qmig_conformance.hostile.script import Absent, Script
from qmig_conformance.hostile.table import Row, registered
from qmig_conformance.hostile.tables import rows
from qmig_conformance.play import Close, Connect, End, Good, Play, Send, Step

ROWS: Final = list(rows())
#: a recording for each settings
RECORDINGS: Final[Mapping[str, str]] = {
    "precopy-sink": "11.1-precopy-plain-q35",
    "precopy-file": "11.1-precopy-plain-q35",
    "return-path": "11.1-switchover-ack",
    "mapped-ram": "10.0-mapped-ram",
    "multifd-none-2": "11.1-multifd-rounds-2",
    "postcopy": "11.1-postcopy",
    "postcopy-preempt": "7.2-postcopy-preempt",
    "dirty-bitmaps": "11.1-dirty-bitmaps",
    "block-migration": "5.2-block-migration",
}
#: rows whose stream is a good one
CONTROLS: Final = {row.value for row in ROWS if row.entry.requirement == "LEG-DST-007"} | {
    "dirty-bitmap-capability-off-at-the-destination",
    "stays-open-after-the-end",
    "x-ignore-shared-on-at-the-destination-only",
    "mapped-ram-capability-off-at-the-destination",
    "mapped-ram-offset-where-no-stream-begins",
    "mapped-ram-plain-stream-capability-on",
    "multifd-destination-plain-stream",
    "postcopy-postcopy-ram-off",
}
#: rows that change what is connected, not what is sent
CONNECTIONS: Final = {
    row.value
    for row in ROWS
    if row.chapter in {"channels", "recovery", "preempt"}
    or row.value
    in {
        "multifd-stream-without-its-channels-destination-has-multifd-off",
        "multifd-a-high-channel-id-arrives-first",
        "multifd-id-equal-to-the-number-of-channels",
        "multifd-hello-id-twice",
    }
}


@functools.cache
def recorded(name: str) -> Mapping[str, bytes]:
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]
    return {channel: vector.data(channel) for channel in vector.channels}


def good(settings: Scenario) -> Good:
    return Good(settings=settings, channels=recorded(RECORDINGS[settings.name]))


def sent(play: Play) -> dict[str, bytes]:
    """Everything that goes over each connection."""
    found: dict[str, bytes] = {step.name: b"" for step in play.steps if isinstance(step, Connect)}
    for step in play.steps:
        if isinstance(step, Send):
            found[step.name] += step.data
    return found


def common(left: bytes, right: bytes) -> int:
    """How many bytes are equal at the beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return low


def test_every_row_of_the_registry_is_there_once() -> None:
    assert sorted(row.value for row in ROWS) == sorted(registered())
    ids = [row.case.id for row in ROWS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.value)
def test_a_row_is_wrong_in_one_place(row: Row) -> None:
    """Nothing is connected twice, everything that is sent is sent on a connection, and what differs from the
    good stream is one stretch of one channel."""
    source = good(row.settings)
    play = row.make(source)
    names = [step.name for step in play.steps if isinstance(step, Connect)]
    assert len(set(names)) == len(names)
    channels = sent(play)
    changed = [name for name, data in channels.items() if source.channels.get(name) != data]
    if row.value in CONNECTIONS:
        return
    if row.value in CONTROLS:
        assert changed == []
        return
    closes = {step.name for step in play.steps if isinstance(step, End | Close)}
    if changed == ["multifd-0", "multifd-1"]:  # both only say hello
        assert [len(channels[name]) for name in changed] == [64, 64]
        return
    if not changed:  # cut by nothing but its connection's end, or extra connections
        assert closes or len(names) > 1
        return
    (name,) = [n for n in changed if n in source.channels]
    assert common(source.channels[name], channels[name]) < max(
        len(source.channels[name]), len(channels[name])
    )


def shown() -> Iterator[tuple[Family, list[sweep.Item]]]:
    for family in families.FAMILIES:
        yield family, [item for item in sweep.ITEMS if item.subject.family is family]


def test_the_ids_of_the_sweep_last() -> None:
    """They depend on declarations only, and are all there before a stream is."""
    ids = [item.id for item in sweep.ITEMS] + [item.id for item in connections.ARRANGED]
    assert len(set(ids)) == len(ids)
    assert "legacy.destination.sweep.main.footer.section-id.plus-1" in ids
    assert "legacy.destination.sweep.postcopy.run.left-out" in ids
    assert "legacy.destination.sweep.multifd.packet.normal-pages.max" in ids
    assert "legacy.destination.sweep.main.page.cut-inside-open" in ids
    assert "legacy.destination.sweep.mapped-ram.header.cut-inside-open" not in ids  # a file always ends
    assert "legacy.destination.sweep.multifd.multifd-1.silent" in ids
    for subject in sweep.SUBJECTS:
        names = {item.name for item in sweep.ITEMS if item.subject is subject}
        assert names >= {*variant_names(subject.kind), *sweep.ORDERS, "cut-inside-closed"}


def steps_of(item: sweep.Item, source: Good) -> tuple[Step, ...] | None:
    """None where the change changes nothing in this recording."""
    try:
        return item.play(source).steps
    except Absent as absent:
        if "changes nothing" not in str(absent):
            raise
        return None


@pytest.mark.parametrize(("family", "items"), list(shown()), ids=lambda value: getattr(value, "name", ""))
def test_each_item_of_the_sweep_is_a_stream_of_its_own(family: Family, items: list[sweep.Item]) -> None:
    """Every subject is in the recording, and what is sent is not the good stream."""
    source = good(family.settings)
    subjects = set()
    untouched = 0
    whole = family.play(source, family.script(source), None).steps
    for item in items:
        steps = steps_of(item, source)
        if steps is None:
            continue
        subjects.add(item.subject.name)
        untouched += steps == whole
    assert subjects == {item.subject.name for item in items}
    assert untouched <= len(items) // 50  # records that are their own neighbours


def test_arrangements_of_connections() -> None:
    source = good(families.MULTIFD.settings)
    plays = {
        item.id.rpartition("sweep.")[2]: item.play(source)
        for item in connections.ARRANGED
        if item.family is families.MULTIFD
    }

    def names(key: str) -> list[str]:
        return list(sent(plays[f"multifd.{key}"]))

    assert names("main.missing") == ["multifd-0", "multifd-1"]
    assert names("multifd-1.missing") == ["main", "multifd-0"]
    assert names("multifd-1.early") == ["multifd-1", "main", "multifd-0"]
    assert names("multifd-1.twice") == ["main", "multifd-0", "multifd-1", "multifd-1-again"]
    assert names("main.late") == ["multifd-0", "multifd-1", "main"]
    assert sent(plays["multifd.main.late"])["main"] == source.channels["main"]
    assert sent(plays["multifd.multifd-1.silent"])["multifd-1"] == b""
    assert sent(plays["multifd.multifd-1.garbage"])["multifd-1"] == b"\x55" * 64


# -- scripts ---------------------------------------------------------------------------------------------


def test_a_script_is_the_channel() -> None:
    for name in ("11.1-postcopy", "7.2-postcopy-preempt", "10.0-mapped-ram", "11.1-dirty-bitmaps"):
        channels = recorded(name)
        main = Script.main(channels["main"])
        assert main.data() == channels["main"]
        if "preempt" in channels:
            assert Script.preempt(channels["preempt"], main.state).data() == channels["preempt"]
    channels = recorded("11.1-multifd-rounds-2")
    state = Script.main(channels["main"]).state
    assert Script.multifd(channels["multifd-1"], state).data() == channels["multifd-1"]


def test_a_file_that_begins_later_is_kept_whole() -> None:
    data = recorded("10.0-mapped-ram-offset")["main"]
    script = Script.main(data, offset=data.find(b"QEVM"))
    assert script.data() == data
    assert script[0].record is None


def test_a_package_follows_its_content_and_keeps_its_size_when_it_is_cut() -> None:
    script = Script.main(recorded("11.1-postcopy")["main"])
    place, stop = postcopy.package(script)
    size = script.record(place).size_of_package
    longer = script.put(stop, b"abc")
    assert Script.main(longer.data()).record(place).size_of_package == size + 3
    cut = script.before(place + 3)
    assert cut[script.offset(place) :][:9] == Packaged(size_of_package=size).encode()
    by_hand = script.write(place, Packaged(size_of_package=7).encode())
    assert by_hand.data()[by_hand.offset(place) :][:9] == Packaged(size_of_package=7).encode()
    assert script.has(PackageEnd)
    assert not script.drop(script.find(PostcopyRun)).has(PostcopyRun)


def test_single_pages_come_out_of_batches() -> None:
    script = Script.main(recorded("11.1-precopy-plain-q35")["main"])
    place = script.find(RamPages)
    for number in range(5):
        split = script.single(place, number)
        assert split.data() == script.data()
        assert isinstance(split.record(place + (number > 0)), RamPage | RamZeroPage)
    with pytest.raises(Absent, match="no PostcopyRun"):
        script.find(PostcopyRun)


def test_sections_are_moved_as_a_whole() -> None:
    script = Script.main(recorded("11.1-precopy-plain-q35")["main"])
    first = script.section(script.find(SectionFull))
    second = script.section(first[1])
    swapped = script.swap(first, second)
    names = [script.record(place).idstr for place in (first[0], second[0])]
    fulls = [swapped.record(place).idstr for place in swapped.places(SectionFull)]
    assert fulls[:2] == names[::-1]
    assert sorted(map(len, (script.data(), swapped.data()))) == [len(script.data())] * 2
    moved = script.move(*second, 1)
    assert moved.record(1) is script.record(second[0])
    assert len(moved) == len(script)


# -- a few streams, looked at ----------------------------------------------------------------------------


def made(value: str) -> dict[str, bytes]:
    (row,) = [row for row in ROWS if row.value == value]
    return sent(row.make(good(row.settings)))


@pytest.mark.parametrize(
    ("value", "requirement"),
    [
        ("ram-a-block-twice-in-the-list", "LEG-RAM-013"),
        ("page-continue-before-any-block", "LEG-RAM-041"),
        ("ram-page-and-zero", "LEG-RAM-002"),
        ("page-block-name-unknown", "LEG-RAM-040"),
        ("page-offset-beyond-the-block", "LEG-RAM-042"),
        ("mapped-ram-version-2", "LEG-MAP-011"),
        ("dirty-bitmap-reserved-start-flags", "LEG-DBM-011"),
        ("block-flags-0", "LEG-BLK-002"),
        ("postcopy-behind-run-unknown-section-type", "LEG-SEC-002"),
        ("postcopy-behind-run-footer-wrong", "LEG-SEC-021"),
    ],
)
def test_our_reader_finds_what_the_row_breaks(value: str, requirement: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Script.main(made(value)["main"])
    assert caught.value.requirement == requirement
    (row,) = [row for row in ROWS if row.value == value]
    assert requirement in row.violates


def test_packets_differ_in_the_named_field() -> None:
    whole = recorded("11.1-multifd-rounds-2")["multifd-0"]
    for value, at, size, number in (
        ("multifd-pages-alloc-129", 12, 4, 129),
        ("multifd-packet-with-100000-pages", 16, 4, 100000),
        ("multifd-packet-of-2-gib", 20, 4, 0x7FFFFFFF),
        ("multifd-zero-pages-200", 32, 4, 200),
        ("multifd-packet-page-offset-beyond-the-block", 320, 8, 1 << 40),
    ):
        wrong = made(value)["multifd-0"]
        assert len(wrong) == len(whole)
        state = Script.main(recorded("11.1-multifd-rounds-2")["main"]).state
        script = Script.multifd(whole, state)
        place = next(p for p in script.places(MultifdPacket) if script.record(p).normal_pages)
        start = script.offset(place) + at
        assert int.from_bytes(wrong[start : start + size], "big") == number
        assert wrong[:start] + whole[start : start + size] + wrong[start + size :] == whole


def test_ends() -> None:
    assert made("postcopy-cut-before-the-eof-byte")["main"] == recorded("11.1-postcopy")["main"][:-1]
    ended = Script.main(made("postcopy-behind-run-eof-at-once")["main"])
    assert isinstance(ended.record(len(ended) - 1), EndOfFile)
    assert made("mapped-ram-empty-file")["main"] == b""


def test_a_recovery_goes_on_where_the_connection_was_lost() -> None:
    broken = recovery.Broken(recorded("11.1-postcopy")["main"])
    channels = made("recovery-control")
    assert channels["main"] == broken.script.before(broken.cut)
    rest = Script.main(channels["main-2"], state=broken.script.state, headerless=True)
    assert len(list(rest.places(SectionFooter))) == len(list(broken.script.places(SectionFooter, broken.cut)))
    assert rest.has(EndOfFile)


def test_settings_of_files_say_where_they_begin() -> None:
    play = next(r for r in ROWS if r.value == "mapped-ram-offset-where-no-stream-begins").make(
        good(mapped_ram.SETTINGS)
    )
    assert play.settings.offset == 0x1000
