"""What other readers of this format get wrong, one test for each known defect.

Readers: QEMU's scripts/analyze-migration.py (7.2 to 10.2), crash's qemu-load.c, volatility3's layers/qemu.py.
Each test names the reader and what it does with the same input; here our commands are driven with it.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from qmig._wire import Record
from qmig.cli import main
from qmig.errors import RemoteProtocolError
from qmig.legacy import ram
from qmig.legacy import sections as sec
from qmig.legacy.header import Configuration, FileHeader
from qmig.legacy.htab import HtabChunk, HtabEnd, HtabHeader
from qmig.legacy.mappedram import MappedRamPages
from qmig.legacy.s390 import StorageAttributes, StorageAttributesDone, StorageAttributesEos
from qmig.testing import migrations
from qmig.testing.streams import FIELDS, HEAD, PLAIN, RAM, TIMER, read, to_bytes, zero_page

PAGE = 4096
Capture = pytest.CaptureFixture[str]


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "main.bin"
    path.write_bytes(data)
    return path


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def decoded(capsys: Capture, path: Path, *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, "decode", "--json", *arguments, path)
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def memory(blocks: dict[str, int], *records: Record | bytes, page_size: int = PAGE) -> bytes:
    """A stream whose only content is RAM: a block list, then one round."""
    total = sum(blocks.values())
    start: list[Record] = [
        sec.SectionStart(section_id=1, idstr="ram", instance_id=0, version_id=4),
        ram.RamMemSize(word=total | ram.RamFlag.MEM_SIZE),
        *(ram.RamBlockEntry(idstr=name, used_length=size) for name, size in blocks.items()),
        ram.RamEos(),
        sec.SectionFooter(section_id=1),
        sec.SectionEnd(section_id=1),
    ]
    content = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in records)
    last = [ram.RamEos(), sec.SectionFooter(section_id=1), sec.EndOfFile(), vmdesc(page_size=page_size)]
    return to_bytes([*HEAD, *start]) + content + b"".join(record.encode() for record in last)


def page(address: int, data: bytes, block: str = "") -> bytes:
    flags = ram.RamFlag.PAGE | (0 if block else ram.RamFlag.CONTINUE)
    name = bytes([len(block)]) + block.encode() if block else b""
    return (address | flags).to_bytes(8, "big") + name + data


def vmdesc(*devices: Any, page_size: int = PAGE) -> sec.VmDescription:
    return sec.VmDescription(json=json.dumps({"page_size": page_size, "devices": list(devices)}).encode())


def pattern(size: int, seed: int = 7) -> bytes:
    return bytes((seed + 37 * i) & 0xFF for i in range(size))


# -- analyze-migration.py --------------------------------------------------------------------------------


def test_analyze_1_page_with_content_is_extracted(tmp_path: Path, capsys: Capture) -> None:
    """`-m` ends in a TypeError on the first page that is not zero."""
    data = pattern(PAGE)
    path = stored(tmp_path, memory({"pc.ram": 2 * PAGE}, page(PAGE, data, "pc.ram")))
    decoded(capsys, path, "--extract-ram", tmp_path / "ram")
    assert (tmp_path / "ram" / "pc.ram").read_bytes() == bytes(PAGE) + data


FLUSH = int(ram.RamFlag.MULTIFD_FLUSH)


def hanging(word: int) -> bytes:
    """67 bytes up to a record word with the flush bit; behind it is only the end of the file."""
    begin = to_bytes([*HEAD[:1], Configuration(machine="pc-1.2"), *RAM[:3]])
    data = begin + word.to_bytes(8, "big")
    assert len(data) == 67
    return data


@pytest.mark.parametrize("word", [FLUSH, FLUSH | 0x800, 0, FLUSH | int(ram.RamFlag.CONTINUE)])
def test_analyze_2_short_file_does_not_hang(word: int, tmp_path: Path, capsys: Capture) -> None:
    """Zeros behind the end of the file are records without end to it, a flush bit hides unknown flags."""
    _, error = read(hanging(word))
    assert isinstance(error, RemoteProtocolError)
    assert error.requirement
    assert error.offset is not None
    assert error.offset >= 67 - 8
    for command in ("decode", "verify"):
        code, _, err = run(capsys, command, stored(tmp_path, hanging(word)))
        assert (code, err.count("\n")) == (1, 1 if command == "decode" else err.count("\n"))


def test_analyze_2_zero_words_are_no_records() -> None:
    for word in (FLUSH, 0):
        _, error = read(hanging(word) + bytes(64))
        assert isinstance(error, RemoteProtocolError)
        assert error.offset == (67 if word else 59)


@pytest.mark.parametrize("length", [0x7B, 0x1_7B, 0x7B_00, 0x7B_7B, 0x1_7B_27, 0x7B_00_00])
def test_analyze_3_brace_in_the_length_of_the_description(
    length: int, tmp_path: Path, capsys: Capture
) -> None:
    """It looks for the first `{` behind the last NUL, and takes a byte of the length for it."""
    text = json.dumps({"page_size": PAGE, "devices": []}).encode()
    events = [*HEAD, *RAM, sec.EndOfFile(), sec.VmDescription(json=text.ljust(length))]
    document = decoded(capsys, stored(tmp_path, to_bytes(events)))
    assert document["events"][-1]["record"] == "VmDescription"
    assert document["events"][-1]["size"] == 5 + length


def test_analyze_4_mapped_ram(tmp_path: Path, capsys: Capture) -> None:
    """mapped-ram is an AttributeError to it, a hang to crash."""
    story = migrations.mapped_ram()
    place = story.at(MappedRamPages)
    content = pattern(story[place][1].size)
    at = story[place][1].offset
    data = story.bytes_of("main")
    data = data[:at] + content + data[at + len(content) :]
    document = decoded(capsys, stored(tmp_path, data), "--extract-ram", tmp_path / "ram")
    counts = {row["block"]: row["passes"] for row in document["ram"]}
    assert counts["m0"] == [{"pass": 0, "mapped": migrations.BLOCKS["m0"]}]
    assert (tmp_path / "ram" / "m0").read_bytes() == content


def test_analyze_5_fill_byte_that_is_not_zero(tmp_path: Path, capsys: Capture) -> None:
    """`-x` writes a str into a binary file where a page is filled with another byte."""
    zero = ram.RamFlag.ZERO
    fill = (PAGE | zero).to_bytes(8, "big") + b"\x06pc.ram\x5a"
    path = stored(tmp_path, memory({"pc.ram": 3 * PAGE}, fill))
    decoded(capsys, path, "--extract-ram", tmp_path / "ram")
    assert (tmp_path / "ram" / "pc.ram").read_bytes() == bytes(PAGE) + b"\x5a" * PAGE + bytes(PAGE)


@pytest.mark.parametrize("length", [127, 128, 200, 255])
def test_analyze_6_names_longer_than_127_bytes(length: int, tmp_path: Path, capsys: Capture) -> None:
    """It reads the length byte of a name as a signed one."""
    device, block = "d" * length, "b" * length
    events: list[Record] = [
        *HEAD,
        sec.SectionStart(section_id=1, idstr="ram", instance_id=0, version_id=4),
        ram.RamMemSize(word=PAGE | ram.RamFlag.MEM_SIZE),
        ram.RamBlockEntry(idstr=block, used_length=PAGE),
        ram.RamEos(),
        sec.SectionFooter(section_id=1),
        sec.SectionEnd(section_id=1),
        ram.RamPages(block=block, page_size=PAGE, data=zero_page(0, block=block)),
        ram.RamEos(),
        sec.SectionFooter(section_id=1),
        sec.SectionFull(section_id=7, idstr=device, instance_id=0, version_id=2),
        sec.DeviceState(section_id=7, boundary="vmdesc", data=bytes(7) + b"\5"),
        sec.SectionFooter(section_id=7),
        sec.EndOfFile(),
        vmdesc({"name": device, "instance_id": 0, "vmsd_name": device, "version": 2, "fields": FIELDS}),
    ]
    document = decoded(capsys, stored(tmp_path, to_bytes(events)))
    full = next(event for event in document["events"] if event["record"] == "SectionFull")
    assert full["fields"]["idstr"] == device
    assert [row["block"] for row in document["ram"]] == [block]


def test_analyze_6_int32_le_is_an_upper_bound(tmp_path: Path, capsys: Capture) -> None:
    """`int32 le` means "less or equal" (vmstate_info_int32_le): big-endian as every number, whatever it is
    called. A reader that takes the name for a byte order is wrong."""
    fields = [{"name": "count", "type": "int32 le", "size": 4}]
    device = {"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 2, "fields": fields}
    events: list[Record] = [
        *HEAD, *RAM, TIMER[0],
        sec.DeviceState(section_id=7, boundary="vmdesc", data=(258).to_bytes(4, "big")),
        TIMER[2], sec.EndOfFile(), vmdesc(device),
    ]  # fmt: skip
    code, out, _ = run(capsys, "decode", stored(tmp_path, to_bytes(events)))
    assert code == 0
    assert "count: int32 le = 258" in out


def live(idstr: str, version: int, start: bytes, end: bytes) -> bytes:
    opening = sec.SectionStart(section_id=5, idstr=idstr, instance_id=0, version_id=version)
    footer = sec.SectionFooter(section_id=5).encode()
    head = to_bytes([*HEAD, *RAM[:5]]) + opening.encode() + start + footer
    tail = to_bytes([*HEAD, *RAM])[len(to_bytes([*HEAD, *RAM[:5]])) :]
    closing = sec.SectionEnd(section_id=5).encode() + end + footer
    return head + tail + closing + sec.EndOfFile().encode() + vmdesc().encode()


def test_analyze_7_storage_attributes_of_s390(tmp_path: Path, capsys: Capture) -> None:
    """Its reader of storage attributes cannot be reached behind a return."""
    more = StorageAttributes(word=0x4000_0000 | 2, count=5, data=b"\1\2\3\4\5")
    eos = StorageAttributesEos().encode()
    data = live("s390-storage_attributes", 0, eos, more.encode() + StorageAttributesDone().encode() + eos)
    records = [event["record"] for event in decoded(capsys, stored(tmp_path, data))["events"]]
    assert records.count("StorageAttributes") == 1
    assert records.count("StorageAttributesDone") == 1


def test_analyze_7_hash_table_of_pseries(tmp_path: Path, capsys: Capture) -> None:
    """Its reader of the hash table compares an unsigned number with -1, "no table", and goes on."""
    none = (0xFFFF_FFFF).to_bytes(4, "big")
    chunk = HtabChunk(index=0x100, n_valid=2, n_invalid=3, data=pattern(32))
    table = HtabHeader(word=0).encode() + chunk.encode() + HtabEnd().encode()
    for start, end, chunks in ((none, none, 0), (HtabHeader(word=24).encode(), table, 1)):
        data = live("spapr/htab", 1, start, end)
        records = [event["record"] for event in decoded(capsys, stored(tmp_path, data))["events"]]
        assert records.count("HtabChunk") == chunks
        assert records[-1] == "VmDescription"


def test_analyze_8_failure_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    """Any failure prints the whole description, about 97 KB."""
    events: list[Record] = list(PLAIN)
    padded = sec.VmDescription(json=bytes(events[-1].json).ljust(97_000))  # type: ignore[attr-defined]
    data = to_bytes([*events[:-1], padded])
    broken = data.replace(sec.SectionFooter(section_id=7).encode(), b"\x7e\0\0\0\x08")
    code, out, err = run(capsys, "decode", stored(tmp_path, broken))
    assert code == 1
    assert err.count("\n") == 1
    assert len(err) < 500
    assert len(out) < 10_000


# -- crash -------------------------------------------------------------------------------------------------


def test_crash_unknown_device_is_not_searched_through(tmp_path: Path, capsys: Capture) -> None:
    """It looks for the next known name; what a device's state contains is not a section of the stream."""
    inner = sec.SectionFull(section_id=8, idstr="cpu", instance_id=0, version_id=12).encode()
    fields = [{"name": "buffer", "type": "buffer", "size": len(inner) + 5}]
    device = {"name": "nobody-knows", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": fields}
    events: list[Record] = [
        *HEAD, *RAM,
        sec.SectionFull(section_id=7, idstr="nobody-knows", instance_id=0, version_id=1),
        sec.DeviceState(section_id=7, boundary="vmdesc", data=inner + b"\x7e\0\0\0\x07"),
        sec.SectionFooter(section_id=7), sec.EndOfFile(), vmdesc(device),
    ]  # fmt: skip
    document = decoded(capsys, stored(tmp_path, to_bytes(events)))
    sections = [event for event in document["events"] if event["record"] == "SectionFull"]
    assert [event["fields"]["idstr"] for event in sections] == ["nobody-knows"]


def test_crash_flag_0x01_is_an_error_not_an_abort(tmp_path: Path, capsys: Capture) -> None:
    """RAM_SAVE_FLAG_FULL is obsolete: no build sends it; an assertion is no answer."""
    data = memory({"pc.ram": PAGE}, (1).to_bytes(8, "big"))
    code, _, err = run(capsys, "decode", stored(tmp_path, data))
    assert code == 1
    assert err.count("\n") == 1
    _, error = read(data)
    assert isinstance(error, RemoteProtocolError)
    assert error.offset == data.index((1).to_bytes(8, "big"), 80)


@pytest.mark.parametrize("size", [1024, 4096, 8192, 16384, 65536])
def test_crash_pages_that_are_not_4_kib(size: int, tmp_path: Path, capsys: Capture) -> None:
    """It and volatility3 know 4 KiB pages only."""
    first, second = pattern(size), pattern(size, 99)
    data = memory({"m": 2 * size}, page(0, first, "m"), page(size, second), page_size=size)
    path = stored(tmp_path, data)
    decoded(capsys, path, "--page-size", size, "--extract-ram", tmp_path / "ram")
    assert (tmp_path / "ram" / "m").read_bytes() == first + second


# -- volatility3 -------------------------------------------------------------------------------------------


def test_volatility_reads_on_behind_the_first_device(tmp_path: Path, capsys: Capture) -> None:
    """It stops at the first device and at the first command (SWITCHOVER_START, sent since 10.0)."""
    records = [event["record"] for event in decoded(capsys, stored(tmp_path, to_bytes(PLAIN)))["events"]]
    assert "SwitchoverStart" in records
    assert records[-2:] == ["EndOfFile", "VmDescription"]


def test_volatility_page_sent_again_ends_in_its_last_state(tmp_path: Path, capsys: Capture) -> None:
    """A page that was zero and is sent again with content stays expanded by a page there, and the reverse."""
    first, second = pattern(PAGE), pattern(PAGE, 55)
    zero = zero_page(0, block="pc.ram")
    again = [zero, page(0, first), page(PAGE, second), zero_page(PAGE)]
    path = stored(tmp_path, memory({"pc.ram": 2 * PAGE}, *again))
    decoded(capsys, path, "--extract-ram", tmp_path / "ram")
    assert (tmp_path / "ram" / "pc.ram").read_bytes() == first + bytes(PAGE)


def test_volatility_compressed_page_is_not_xbzrle(tmp_path: Path, capsys: Capture) -> None:
    """It says "XBZRLE" of a page that the old `compress` capability sent."""
    data = pattern(PAGE)
    packed = zlib.compress(data)
    word = int(ram.RamFlag.COMPRESS_PAGE).to_bytes(8, "big")
    record = word + b"\x06pc.ram" + len(packed).to_bytes(4, "big") + packed
    document = decoded(
        capsys, stored(tmp_path, memory({"pc.ram": PAGE}, record)), "--extract-ram", tmp_path / "ram"
    )
    assert [p for row in document["ram"] for p in row["passes"]] == [{"pass": 1, "compressed": 1}]
    assert (tmp_path / "ram" / "pc.ram").read_bytes() == data


@pytest.mark.parametrize("machine", ["pc-q35-10.0", "pc-q35-11.1", "pc-q35-rhel9.8.0", "pseries-10.0", "x"])
def test_volatility_any_machine_type(machine: str, tmp_path: Path, capsys: Capture) -> None:
    """What it reads depends on a table of machine names; the stream does not."""
    events = [FileHeader(version=3), Configuration(machine=machine), *PLAIN[2:]]
    document = decoded(capsys, stored(tmp_path, to_bytes(events)))
    assert document["good"] is True
    assert document["events"][1]["fields"]["machine"] == machine


# -- all of them -------------------------------------------------------------------------------------------


def test_main_channel_of_multifd_alone_says_that_ram_is_missing(tmp_path: Path, capsys: Capture) -> None:
    """All three end well without a word, although the pages went through channels that they never saw."""
    path = stored(tmp_path, migrations.multifd().bytes_of("main"))
    code, out, err = run(capsys, "decode", path, "--extract-ram", tmp_path / "ram")
    assert "multifd" in out + err
    assert code == 1 or "not " in out
