"""`qmig decode`: what it prints, writes and returns."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zstandard

from qmig.cli import main
from qmig.cli.exits import CommandError
from qmig.cli.extract import LONGEST, OPEN_FILES, Pool, file_name
from qmig.cli.inputs import neighbours, open_input, recognise
from qmig.legacy import ram
from qmig.legacy.mappedram import MappedRamBitmap
from qmig.legacy.returnpath import RpReqPages
from qmig.legacy.sections import SectionEnd
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors, migrations, spec_root

SCHEMA = json.loads((spec_root() / "schema" / "decode.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def write(folder: Path, story: migrations.Story) -> Path:
    """One file for each channel; returns that of main."""
    for channel in story.channels():
        (folder / f"{channel}.bin").write_bytes(story.bytes_of(channel))
    return folder / "main.bin"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["decode", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    _, out, _ = run(capsys, "--json", *arguments)
    found: dict[str, Any] = json.loads(out)
    VALIDATOR.validate(found)
    return found


STORIES = {
    "precopy": migrations.precopy,
    "xbzrle": migrations.xbzrle,
    "postcopy": migrations.postcopy,
    "multifd": migrations.multifd,
    "mapped-ram": migrations.mapped_ram,
    "recovery": migrations.recovery,
}


@pytest.mark.parametrize("name", STORIES)
def test_every_kind_of_migration(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, STORIES[name]())
    cut = name == "recovery"
    code, out, err = run(capsys, file, "--page-size", 4096)
    assert (code, err) == (0, "")
    assert ("overcome: main: offset" in out) is cut
    assert "finding:" not in out
    for line in ("QEVM version 3", "block m0: 0x10000 bytes", "\nRAM\n"):
        assert line in out
    found = document(capsys, file, "--page-size", 4096)
    assert found["good"]
    assert [row["overcome"] for row in found["findings"]] == [True] * cut
    assert [row["block"] for row in found["ram"]] == ["m0", "pc.bios"]
    assert {row["channel"] for row in found["inputs"]} == set(STORIES[name]().channels())
    for row in found["channels"]:
        size = next(source["size"] for source in found["inputs"] if source["channel"] == row["channel"])
        assert row["consumed"] == size or cut


def test_a_cut_is_overcome_only_by_a_connection_that_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = migrations.recovery()
    file = write(tmp_path, story)
    (tmp_path / "main-2.bin").write_bytes(story.bytes_of("main-2")[:-1])
    code, out, err = run(capsys, file, "--page-size", 4096)
    assert code == 1
    assert "finding: main: offset" in out
    assert "finding: main-2: offset" in out
    assert "(and 1 more findings)" in err
    assert [row["overcome"] for row in document(capsys, file)["findings"]] == [False, False]
    code, _, err = run(capsys, file, "--alone")
    assert (code, "input ends at" in err) == (1, True)


def test_what_is_over_a_limit_of_ours_is_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    story.change(story.at(ram.RamMemSize), word=1 << 62 | ram.RamFlag.MEM_SIZE)
    story.change(story.at(ram.RamBlockEntry), used_length=1 << 62)
    for name in story.channels():
        if name != "main":
            story = migrations.Story([x for x in story if x[0] != name], story.known)
    code, out, err = run(capsys, write(tmp_path, story))
    assert code == 2
    assert "finding: main: offset" in out
    assert err.count("\n") == 1


def test_text_names_devices_and_their_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, write(tmp_path, migrations.precopy()))
    assert "FULL  0000:00:02.0/dev (section 3), instance 0, version 3" in out
    assert "+0     regs: uint32[3] = 0x10203, 0x4050607, 0x8090a0b" in out
    assert "dev/extra: subsection" in out
    assert "rp    0x00000000  RpPong value=1" in out
    assert out.index("Ping value=1") < out.index("RpPong value=1")
    assert "pass 2" in out


def test_json_does_not_depend_on_the_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, migrations.precopy())
    whole = document(capsys, file)
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "qmig", "decode", "--json", "-", "--channel", f"rp={tmp_path / 'rp.bin'}"],
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(reader)
    with os.fdopen(writer, "wb", 0) as pipe:
        data = file.read_bytes()
        for at in range(0, len(data), 1009):
            pipe.write(data[at : at + 1009])
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, b"")
    piped = json.loads(out)
    events = [row.pop("events") for row in piped["channels"] + whole["channels"]]
    assert all(events)
    for key in ("events", "channels", "ram", "findings"):
        assert piped[key] == whole[key]


def test_multifd_packets_are_told_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, migrations.multifd())
    found = document(capsys, file)
    packets = [event for event in found["events"] if event["record"] == "MultifdPacket"]
    assert len(packets) == 11
    blocks = {row["block"]: row["passes"] for row in found["ram"]}
    assert blocks["m0"] == [
        {"pass": 1, "multifd_normal": 12, "multifd_zero": 4},
        {"pass": 2, "multifd_normal": 2},
    ]
    _, brief, _ = run(capsys, file)
    _, full, _ = run(capsys, file, "-v")
    assert "packet 3: m0, 4 normal (none), 4 zero" in full
    assert "packet 3" not in brief
    assert "multifd-1: 3 packets, 1 SYNC" in brief


# -- RAM -----------------------------------------------------------------------------------


def pages_of(numbers: list[int]) -> bytes:
    return b"".join(bytes([n]) * 4096 for n in numbers)


def test_extracted_ram_is_the_last_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, migrations.multifd())
    folder = tmp_path / "ram"
    found = document(capsys, file, "--extract-ram", folder)
    rows = {row["block"]: row for row in found["extracted"]}
    assert Path(rows["m0"]["file"]) == folder / "m0"
    assert (folder / "m0").read_bytes() == pages_of([*range(1, 13), 0, 0, 0, 0])
    assert (folder / "pc.bios").read_bytes() == pages_of([1, 2])
    assert (rows["m0"]["never_sent"], rows["m0"]["length"]) == (0, 65536)
    assert (folder / "m0").stat().st_blocks * 512 <= 13 * 4096
    (folder / "m0").write_bytes(b"\xff" * 100000)  # of another run: nothing of it is left
    run(capsys, file, "--extract-ram", folder)
    assert (folder / "m0").read_bytes() == pages_of([*range(1, 13), 0, 0, 0, 0])


def test_a_block_without_a_page_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    while any(isinstance(event, ram.RamPages) and event.block == "pc.bios" for _, event in story):
        story.drop(story.at(ram.RamPages, block="pc.bios"))
    _, out, _ = run(capsys, write(tmp_path, story), "--extract-ram", tmp_path / "ram")
    assert "pc.bios: no page in the stream, no file" in out
    assert [path.name for path in (tmp_path / "ram").iterdir()] == ["m0"]


def test_a_second_attempt_starts_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    (tmp_path / "main.bin").write_bytes(story.bytes_of("main")[:30000])
    (tmp_path / "main-2.bin").write_bytes(story.bytes_of("main"))
    code, out, _ = run(capsys, tmp_path / "main.bin", "--extract-ram", tmp_path / "ram")
    assert code == 0
    assert "overcome: main: offset" in out
    assert "QEVM version 3 (attempt 2)" in out
    assert "RAM, attempt 2" in out
    whole = (tmp_path / "ram" / "m0").read_bytes()
    run(capsys, tmp_path / "main-2.bin", "--alone", "--extract-ram", tmp_path / "again")
    assert (tmp_path / "again" / "m0").read_bytes() == whole


def test_ram_of_a_damaged_payload_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.multifd()
    place = next(n for n, (_, event) in enumerate(story) if getattr(event, "packet_num", None) == 2)
    story.change(place, flags=2)  # says zlib, and is not
    code, out, _ = run(capsys, write(tmp_path, story), "--extract-ram", tmp_path / "ram")
    assert code == 1
    assert "finding: multifd-0: offset" in out
    assert (tmp_path / "ram" / "pc.bios").read_bytes() == pages_of([1, 2])
    code, out, _ = run(
        capsys, tmp_path / "multifd-1.bin", "--alone", "--page-size", 4096, "--extract-ram", tmp_path / "r2"
    )
    assert code == 1
    assert "its RAM cannot be rebuilt" in out


def test_file_names_are_safe_and_distinct() -> None:
    names = [
        "pc.ram",
        "",
        ".",
        "..",
        "../x",
        "/rom@etc/acpi/tables",
        "a/b",
        "a%2fb",
        "a\0b",
        "A",
        "a",
        "\udcff",
        "x" * 255,
    ]
    names += ["x" * 254 + "y", "%", ".hidden", "ram\n"]  # fmt: skip
    files = [file_name(name) for name in names]
    assert len({name.lower() for name in files}) == len(names)
    assert file_name("pc.ram") == "pc.ram"
    for name in files:
        assert name.isascii()
        assert "/" not in name
        assert not name.startswith(".")
        assert 0 < len(name) <= LONGEST + 13


def test_open_files_are_bounded(tmp_path: Path) -> None:
    pool = Pool()
    for number in range(OPEN_FILES + 5):
        os.pwrite(pool.descriptor(tmp_path / str(number)), b"x", 0)
    assert len(pool._open) == 5
    assert os.pread(pool.descriptor(tmp_path / "0"), 1, 0) == b"x"
    pool.close()
    with pytest.raises(FileExistsError):
        Pool().descriptor(tmp_path / "0")


# -- inputs --------------------------------------------------------------------------------


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = migrations.precopy().bytes_of("main")
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(PACKERS[suffix](data))
    assert run(capsys, file)[0] == 0
    file.write_bytes(PACKERS[suffix](b"head" + data))
    assert run(capsys, file, "--offset", 4)[0] == 0
    code, _, err = run(capsys, file)
    assert code == 2
    assert "one seems to begin at byte 4" in err
    packed = PACKERS[suffix](os.urandom(1 << 16))
    file.write_bytes(packed[: len(packed) // 2])
    code, out, err = run(capsys, file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    file.write_bytes(PACKERS[suffix](b""))
    assert run(capsys, file)[0] == 2


def test_the_stream_may_begin_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(5000) + migrations.precopy().bytes_of("main"))
    code, _, err = run(capsys, file)
    assert code == 2
    assert "one seems to begin at byte 5000" in err
    found = document(capsys, file, "--offset", 5000)
    assert found["good"]
    assert found["events"][0]["offset"] == 5000
    assert run(capsys, file, "--offset", 1 << 20)[0] == 2


def test_what_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    text = tmp_path / "text"
    text.write_text("hello, world\n")
    good = write(tmp_path, migrations.precopy())
    for arguments in (
        [empty], [text], [tmp_path], [tmp_path / "none"], [good, "--channel", "rp"],
        [good, "--channel", "x=y"],
        [good, "--channel", f"side={good}"], [good, "--channel", f"main={good}"], [good, "--page-size", 3000],
        [good, "--snapshot", "x"], ["-", "--offset", 3], [good, "--schema", text], [good, "--schema", empty],
        [good, "--channel", f"rp={good}", "--channel", f"rp={good}"],
    ):  # fmt: skip
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("qmig: ")
        assert err.count("\n") == 1


def test_companions_by_name_by_list_or_as_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    for name in ("guest.main.x", "guest.rp.x"):
        (tmp_path / name).write_bytes(story.bytes_of(name.split(".")[1]))
    assert neighbours(str(tmp_path / "guest.main.x")) == ("main", {"rp": str(tmp_path / "guest.rp.x")})
    assert neighbours(str(tmp_path / "guest.x")) == (None, {})
    assert {row["channel"] for row in document(capsys, tmp_path / "guest.main.x")["inputs"]} == {"main", "rp"}
    alone = document(capsys, tmp_path / "guest.main.x", "--alone")
    assert [row["channel"] for row in alone["inputs"]] == ["main"]
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "a").write_bytes(story.bytes_of("main"))
    (listed / "b").write_bytes(story.bytes_of("rp"))
    channels = [
        {"name": "main", "forward": {"file": "a"}, "reverse": {"file": "b"}},
        {"name": "preempt"},
        {"name": "multifd-0", "forward": {"file": "../a"}},
        {"name": "side", "forward": {"file": "c"}},
    ]
    (listed / "meta.json").write_text(json.dumps({"channels": channels}))
    assert {row["channel"] for row in document(capsys, listed / "a")["inputs"]} == {"main", "rp"}
    assert neighbours(str(listed / "b")).channel == "rp"
    for other in ("[]", "{", '{"channels": 3}', '{"channels": [3]}'):
        (listed / "meta.json").write_text(other)
        assert neighbours(str(listed / "a")) == (None, {})
    (tmp_path / "nothing").write_bytes(b"")
    code, out, _ = run(capsys, listed / "a", "--channel", f"rp={tmp_path / 'nothing'}")
    assert code == 0
    assert "rp: 0x0 bytes, 0 records" in out


def test_single_channels_are_recognised(tmp_path: Path) -> None:
    stories = [migrations.multifd(), migrations.postcopy(), migrations.recovery()]
    expected = {"multifd-1": "multifd-1", "preempt": "preempt", "rp": "rp", "main-2": "main", "main": "main"}
    for story in stories:
        for channel in story.channels():
            if channel in expected:
                (tmp_path / "x").write_bytes(story.bytes_of(channel))
                assert recognise(open_input(str(tmp_path / "x"))) == expected[channel]
    (tmp_path / "x").write_bytes(b"\xde\xad" * 40)
    for likely in ("rp", "preempt"):
        assert recognise(open_input(str(tmp_path / "x")), likely) == likely
    wrong: tuple[str | None, ...] = ("main", "multifd-0", None)
    for name in wrong:
        with pytest.raises(CommandError, match="no migration stream begins with"):
            recognise(open_input(str(tmp_path / "x")), name)


@pytest.mark.parametrize(
    "vector", list(load_vectors("legacy/containers#")), ids=lambda vector: str(vector.id)
)
def test_containers(vector: Vector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a container holds: an exit code, and at most one line on stderr."""
    for name in vector.channels:
        (tmp_path / "x").write_bytes(vector.data(name))
        code, _, err = run(capsys, tmp_path / "x", "--extract-ram", tmp_path / "ram")
        assert code in (0, 1, 2)
        assert err.count("\n") == int(code != 0)


def test_a_schema_from_another_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    whole = tmp_path / "whole"
    whole.write_bytes(story.bytes_of("main"))
    (tmp_path / "description").write_bytes(migrations.vmdesc(migrations.description()).json)
    story.drop(len(story) - 3)  # the vmdescription
    bare = tmp_path / "bare"
    bare.write_bytes(story.bytes_of("main"))
    for schema in (whole, tmp_path / "description"):
        _, out, _ = run(capsys, bare, "--schema", schema)
        assert "+0     regs: uint32[3] = 0x10203, 0x4050607, 0x8090a0b" in out
        assert "fields by schema" in out
    assert run(capsys, bare, "--schema", bare)[0] == 2


# -- damage --------------------------------------------------------------------------------


def test_cut_anywhere_everything_before_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.precopy()
    data = story.bytes_of("main")
    file = tmp_path / "x"
    end = data.index(SectionEnd(section_id=1).encode())
    for at in (1, 3, 4, 7, 8, 12, 60, 200, 5000, end, end + 3, len(data) - 600, len(data) - 1):
        file.write_bytes(data[:at])
        code, out, err = run(capsys, file)
        assert (code, err.count("\n")) == (1, 1), at
        assert out.count("finding: ") == 1
        assert ("START ram" in out) is (at > 50)
        found = document(capsys, file)
        assert [row["channel"] for row in found["findings"]] == ["main"]


def test_names_from_the_wire_cannot_write_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = migrations.precopy()
    data = story.bytes_of("main").replace(b"pc-q35-10.0", b"\x1b[2J\n\x07\xff-\xc2\x9b!!")
    file = tmp_path / "x"
    file.write_bytes(data)
    _, out, _ = run(capsys, file)
    assert all(character == "\n" or character.isprintable() for character in out)
    assert "\\x1b[2J\\n" in out
    assert document(capsys, file)["events"][1]["fields"]["machine"].startswith("\x1b[2J\n")


def test_long_rows_of_one_record_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = migrations.postcopy()
    place = story.at(RpReqPages)
    story.add(place, *[RpReqPages(start=0, length=4096)] * 9)
    file = write(tmp_path, story)
    _, out, _ = run(capsys, file)
    assert "… 6 more RpReqPages up to here" in out
    _, out, _ = run(capsys, file, "-v")
    assert out.count("RpReqPages start") == 10


def test_parts_that_follow_each_other_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, migrations.precopy())
    _, brief, _ = run(capsys, file, "--alone")
    _, full, _ = run(capsys, file, "--alone", "-v")
    assert brief.count("PART  ram") == 1
    assert "PART  ram (section 1) ×2, up to 0x" in brief
    assert full.count("PART  ram") == 2


def test_tls_is_listed_and_opaque(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hello = b"\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd"
    (tmp_path / "x").write_bytes(hello + b"\x17\x03\x03\x00\x10" + bytes(16))
    code, out, _ = run(capsys, tmp_path / "x")
    assert code == 0
    assert "tls-0: " in out
    assert out.count("TlsRecord") == 2


#: name in the facts -> in ours, where they differ
KINDS = {"compress": "compressed", "mapped_present": "mapped"}
#: smaller recordings of each kind; the others are as good and take longer
FACTS = [
    vector
    for vector in load_vectors("legacy/recordings#")
    if sum(channel.size or 0 for channel in vector.channels.values()) < 3 << 20
    and not vector.id.endswith("mapped-ram-offset")
]


@pytest.mark.parametrize("vector", FACTS, ids=[vector.id for vector in FACTS])
def test_the_independent_decoder_agrees(
    vector: Vector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RAM, counts, sections, messages, bytes consumed: as the facts beside the recording say."""
    for name in vector.channels:
        (tmp_path / f"{name}.bin").write_bytes(vector.data(name))
    found = document(capsys, tmp_path / "main.bin", "--extract-ram", tmp_path / "ram")
    facts = _facts(vector)
    assert {row["channel"]: row["consumed"] for row in found["channels"]} == facts["channels"]
    counted = {(row["attempt"], row["block"]): row["passes"] for row in found["ram"]}
    for attempt, blocks in enumerate(facts["ram"], 1):
        for block in blocks:
            passes = counted[attempt, block["idstr"]]
            for kind, pages in block["counts"].items():
                assert sum(row.get(KINDS.get(kind, kind), 0) for row in passes) == pages, block["idstr"]
    files = {row["block"]: row["file"] for row in found["extracted"]}
    for block in facts["ram"][-1]:
        path = files[block["idstr"]]
        if path is None:  # ignored blocks: listed, and not sent
            assert block["sha256"] is None
        else:
            assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == block["sha256"], block["idstr"]
    for stream in facts["streams"]:
        told = [
            (event["offset"], event["record"].removeprefix("Section").lower())
            for event in found["events"]
            if event["channel"] == stream["channel"]
            and event["record"] in ("SectionStart", "SectionPart", "SectionEnd", "SectionFull")
        ]
        listed = [(i["offset"], i["type"]) for i in stream["items"] if i["kind"] == "section"]
        # the facts leave out the section in which a recording ends
        assert told[: len(listed)] == listed
        assert len(told) - len(listed) <= (not found["good"])


def _facts(vector: Vector) -> dict[str, Any]:
    stem = vector.id.partition("#")[2]
    with lzma.open(spec_root() / "vectors" / "legacy" / f"{stem}-facts.xz") as file:
        facts: dict[str, Any] = json.load(file)
    return facts


def test_a_block_that_is_zero_by_its_bitmap_is_extracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen with mapped-ram of 10.0 and 11.1: a video memory of which no page is in the file."""
    story = migrations.mapped_ram()
    story.change(story.at(MappedRamBitmap, block="m0"), data=bytes(8))
    found = document(capsys, write(tmp_path, story), "--extract-ram", tmp_path / "ram")
    row = next(row for row in found["extracted"] if row["block"] == "m0")
    size = migrations.BLOCKS["m0"] * migrations.PAGE
    assert (row["length"], row["never_sent"]) == (size, 0)
    assert Path(row["file"]).read_bytes() == bytes(size)
