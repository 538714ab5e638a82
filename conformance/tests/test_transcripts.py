"""Transcripts: what they show of good, damaged and hostile channels, and what they never do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmig.testing import load_vectors
from qmig.testing.scenario import Scenario
from qmig_conformance import artefacts
from qmig_conformance.play import Connect, End, Good, Outcome, Play, Qmp, Seen, Send, Settle, Step
from qmig_conformance.report.transcript import (
    LIMIT,
    RECORDS,
    Transcripts,
    difference,
    transcripts,
    transcripts_of_folder,
    transcripts_of_play,
)


def recording(name: str) -> dict[str, bytes]:
    (vector,) = load_vectors(f"legacy/recordings#{name}")
    return {channel: vector.data(channel) for channel in vector.channels}


SMALL = recording("7.2-precopy-plain-none")["main"]


def check(made: Transcripts) -> Transcripts:
    """What holds for every transcript."""
    for text in made:
        assert len(text) <= LIMIT
        assert all(line.isprintable() for line in text.split("\n"))
        assert "defect in qmig" not in text
    return made


def test_a_stream_has_its_beginning_its_end_and_pages_as_a_sum() -> None:
    there, back = check(
        transcripts({"main": SMALL}, {"main": bytes.fromhex("00020004000000010001000400000000")})
    )
    lines = there.split("\n")
    assert lines[0] == "0x00000000  FileHeader QEVM version=3"
    assert "SectionStart 2 ram, instance 0, version 4" in there
    assert any("ram: 512 zero" in line and line.startswith("…") for line in lines)
    assert "SectionFull 0 timer, instance 0, version 2, 24 bytes, end by vmdesc" in there
    assert lines[-1] == f"main: {len(SMALL)} bytes, all read"
    assert back == "0x00000000  RpPong value=1\n0x00000008  RpShut value=0\nmain: 16 bytes, all read"


def test_channels_are_named_and_each_direction_has_its_own() -> None:
    channels = recording("11.1-cross-q35-multifd-to-7.2")
    back = {"rp": channels.pop("rp")}
    there, answers = check(transcripts(channels, back))
    assert "multifd-1  0x" in there
    assert "MultifdPacket" in there
    assert "RpPong" not in there
    assert answers.startswith("0x00000000  RpPong value=1")


def test_an_error_has_offset_requirement_and_the_bytes_around_it() -> None:
    data = bytearray(SMALL)
    data[0x2000] ^= 0xFF
    there, _ = check(transcripts({"main": data}, {}))
    assert "0x00001ff9  !! RAM record: unknown combination of RAM flags 0xdd [LEG-RAM-002]" in there
    assert '    00001ff0  00 00 00 00 00 38 40 22 00[00]00 00 00 00 38 50  |.....8@"......8P|' in there
    assert "read to 0x1ff9" in there


def test_an_error_stays_where_much_follows_on_another_connection() -> None:
    channels = recording("7.2-postcopy-preempt-recover")
    back = {name: channels.pop(name) for name in list(channels) if name.startswith("rp")}
    there, answers = check(transcripts(channels, back))
    assert (
        there.index("lines left out") < there.index("!! section: input ends") < there.index("main-2     0x")
    )
    assert "[end of the bytes]" in there
    assert "RpResumeAck" in answers


def test_names_of_a_play_are_told_by_their_bytes() -> None:
    """`second` begins with a header, so it is read; the others are not what any reader is for."""
    there, back = check(
        transcripts(
            {"first": b"hello world", "second": SMALL, "silent": b""}, {"second": b"", "first": b"\x1b[2J"}
        )
    )
    assert "second  0x00000000  FileHeader" in there
    assert "first   11 bytes, of which no reader is known" in there
    assert "|hello world|" in there
    assert "silent  no bytes" in there
    assert "|.[2J|" in back


def test_two_connections_of_one_name_are_two_streams() -> None:
    there, _ = check(transcripts({"main": SMALL[:40], "again": SMALL[:40], "more": SMALL}, {}))
    assert there.count("FileHeader") == 3


def test_reading_has_an_end() -> None:
    """A stream of records of five bytes each is not read to its end, and says so."""
    there, _ = check(transcripts({"main": SMALL[:17] + bytes.fromhex("0800010000") * (RECORDS + 1000)}, {}))
    assert f"reading stopped behind {RECORDS} records" in there
    assert "OpenReturnPath" in there


def test_many_channels_and_long_names_stay_within_the_limit() -> None:
    names = {f"\x1b[31m<script>{number}" * 40: bytes([number]) for number in range(256)}
    there, back = check(transcripts(names, dict(names)))
    assert "<script>" in there
    assert back


@given(data=st.binary(max_size=300), at=st.integers(0, len(SMALL)), name=st.text(max_size=20))
@settings(max_examples=200)
def test_no_bytes_make_it_raise(data: bytes, at: int, name: str) -> None:
    check(transcripts({"main": SMALL[:at] + data + SMALL[at:], name: data}, {"main": data, name: data}))


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (SMALL, "as in the good migration"),
        (b"", "nothing was sent"),
        (SMALL[:100], f"cut at 0x64; the good stream has {len(SMALL)} bytes"),
        (SMALL + b"ab", f"2 bytes more than the good stream, from {len(SMALL):#x} on: 6162"),
        (SMALL[:3] + b"\xff\xfe" + SMALL[5:], "differs from the good stream at 0x3: 4d00 became fffe"),
        (SMALL[:8] + b"\xff" * 40 + SMALL[8:], f"40 bytes put in at 0x8: {'ff' * 16}… (40 bytes)"),
        (SMALL[:4] + SMALL[8:], "4 bytes left out at 0x4: 00000003"),
    ],
)
def test_the_difference_to_a_good_stream_comes_first(sent: bytes, words: str) -> None:
    assert difference(sent, SMALL) == words
    there, _ = check(transcripts({"main": sent}, {}, good={"main": SMALL}))
    assert there.split("\n")[0] == ("as in the good migration" if sent == SMALL else f"main: {words}")


def test_channels_that_only_one_of_both_has() -> None:
    good = {"main": SMALL, **{f"multifd-{number}": b"" for number in range(4)}}
    there, _ = check(transcripts({"main": SMALL, "preempt": b""}, {}, good=good))
    assert there.split("\n")[:4] == [
        "multifd-0: not connected",
        "multifd-1: not connected",
        "multifd-2: not connected",
        "… 2 more channels differ",
    ]
    there, _ = check(transcripts({"main": SMALL, "preempt": b""}, {}, good={"main": SMALL}))
    assert there.startswith("preempt: not in the good migration")


def test_a_folder_of_a_play(tmp_path: Path) -> None:
    steps: list[Step] = [Connect("main")]
    steps += [Send("main", SMALL[at : at + 100]) for at in range(0, 500, 100)]
    steps += [Settle(), Qmp("cont"), End("main"), Connect("more")]
    play = Play(settings=Scenario(name="x", what="x"), steps=tuple(steps))
    seen = Seen(outcome=Outcome.WAITS, answered={"main": bytes.fromhex("0002000400000001")})
    artefacts.save(tmp_path, play, seen, argv=[], qmp=[])
    there, back = check(transcripts_of_folder(tmp_path))
    assert there.split("\n")[0] == (
        "steps: connect main; send main 0x64 ×5; settle; qmp cont; end main; connect more"
    )
    assert "FileHeader" in there
    assert "more  no bytes" in there
    assert "RpPong value=1" in back
    with_good = transcripts_of_play(play, {}, Good(play.settings, {"main": SMALL}))
    assert "main: cut at 0x1f4" in with_good.to_destination


def test_a_play_of_many_steps_stays_within_the_limit() -> None:
    steps: list[Step] = []
    for number in range(999):
        steps += [Connect(f"{number}" * 50), End(f"{number}" * 50)]
    play = Play(settings=Scenario(name="x", what="x"), steps=tuple(steps))
    there, _ = check(transcripts_of_play(play, {}))
    assert "… 1982 more" in there


def test_a_folder_of_a_recording(tmp_path: Path) -> None:
    (tmp_path / "main.bin").write_bytes(b"\0" * 512 + SMALL)
    (tmp_path / "rp.bin").write_bytes(bytes.fromhex("0002000400000001"))
    channels = [
        {"name": "main", "offset": 512, "forward": {"file": "main.bin"}},
        {"name": "rp", "forward": {"file": "rp.bin"}},
    ]
    (tmp_path / "meta.json").write_text(json.dumps({"channels": channels}))
    there, back = check(transcripts_of_folder(tmp_path))
    assert "0x00000200  FileHeader" in there
    assert back.startswith("0x00000000  RpPong value=1")


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        transcripts_of_folder(tmp_path)
