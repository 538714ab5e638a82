"""`qmig verify`: what it prints, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmig.cli import main
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import sections as sec
from qmig.testing import migrations as m
from qmig.testing import spec_root
from qmig.testing.migrations import Story

SCHEMA = json.loads((spec_root() / "schema" / "verify.json").read_text(encoding="utf-8"))


def save(folder: Path, story: Story) -> Path:
    for channel in story.channels():
        (folder / f"{channel}.bin").write_bytes(story.bytes_of(channel))
    return folder / "main.bin"


def describe(folder: Path, **more: Any) -> None:
    """A meta.json that says all there is to say."""
    files = sorted(path.name for path in folder.glob("*.bin"))
    channels = [{"name": name.removesuffix(".bin"), "forward": {"file": name}} for name in files]
    meta = {"channels": channels, "source": {"version": "10.0.13", "argv": []}, **more}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def test_a_good_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(save(tmp_path, m.precopy()))]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 errors, 0 warnings, 0 notes; ")
    assert out.count("\n") == 1


def test_companions_are_found_and_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_file = save(tmp_path, m.multifd())
    assert main(["verify", "-v", str(main_file)]) == 0
    assert "LEG-RAM-052  held" in capsys.readouterr().out
    assert main(["verify", "-v", "--alone", str(main_file)]) == 0
    assert "LEG-RAM-052  not checkable" in capsys.readouterr().out
    one = f"multifd-0={tmp_path / 'multifd-0.bin'}"
    two = f"multifd-1={tmp_path / 'multifd-1.bin'}"
    assert main(["verify", "-v", "--channel", one, "--channel", two, str(main_file)]) == 0
    assert "LEG-RAM-052  held" in capsys.readouterr().out


def test_a_damaged_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = m.precopy()
    for number in range(7):
        story.add(story.at(sec.EndOfFile), *m.full(9, "globalstate", number + 1, 1, m.GLOBAL_STATE))
    story.drop(story.at(sec.VmDescription))
    main_file = save(tmp_path, story)
    assert main(["verify", str(main_file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.endswith("[LEG-SEC-026]") for line in lines[:5])
    assert "main: offset 0x" in lines[0]
    assert lines[5] == "and 2 more of LEG-SEC-026"
    assert lines[6].startswith("5 errors, 0 warnings, 0 notes; ")


def test_a_cut_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_file = save(tmp_path, m.precopy())
    main_file.write_bytes(main_file.read_bytes()[:300])
    assert main(["verify", str(main_file), "--json"]) == 1
    found = document(capsys)
    assert found["good"] is False
    assert found["findings"][0]["severity"] == "error"
    assert found["source"] == {"machine": "pc-q35-10.0", "at_least": "10.0", "at_most": None}


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = m.multifd()
    at = story.at(mfd.MultifdPacket, packet_num=2)
    main_file = save(tmp_path, story.change(at, next_packet_size=1))
    assert main(["verify", str(main_file), "--json"]) == 1
    found = document(capsys)
    assert found["schema"] == "qmig/verify/1"
    assert [row["channel"] for row in found["inputs"]] == ["main", "multifd-0", "multifd-1"]
    (finding,) = found["findings"]
    assert finding["requirement"] == "LEG-MFD-031"
    assert finding["offset"] == 64 + 1344
    rules = {row["requirement"]: row for row in found["rules"]}
    assert rules["LEG-MFD-031"]["status"] == "broken"
    assert rules["LEG-SEC-022"]["status"] == "not checkable"


def status(capsys: pytest.CaptureFixture[str], rule: str, *arguments: str) -> str:
    main(["verify", *arguments, "--json"])
    return next(str(row["status"]) for row in document(capsys)["rules"] if row["requirement"] == rule)


def test_what_is_known_of_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(save(tmp_path, m.precopy()))
    assert status(capsys, "LEG-SEC-022", file) == "not checkable"
    assert status(capsys, "LEG-SEC-022", file, "--no-globals") == "held"
    assert status(capsys, "LEG-SEC-025", file, "--qemu-version", "7.2") == "held"
    assert status(capsys, "LEG-RAM-057", file, "--capabilities", "") == "held"
    assert status(capsys, "LEG-RAM-057", file, "--capabilities", "multifd,xbzrle") == "not applicable"
    describe(tmp_path)
    assert status(capsys, "LEG-SEC-022", file) == "held"
    # A meta.json that is about other files says nothing of this one.
    other = tmp_path / "other.dat"
    other.write_bytes((tmp_path / "main.bin").read_bytes())
    assert status(capsys, "LEG-SEC-022", str(other)) == "not checkable"
    meta = tmp_path / "meta.json"
    assert status(capsys, "LEG-SEC-022", str(other), "--meta", str(meta)) == "held"
    meta.write_text("[]", encoding="utf-8")
    assert status(capsys, "LEG-SEC-022", file) == "not checkable"


@pytest.mark.parametrize("text", ["no JSON", "[1]", "[" * 100000])
def test_a_meta_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path, m.precopy())
    meta = tmp_path / "x.json"
    meta.write_text(text, encoding="utf-8")
    assert main(["verify", str(file), "--meta", str(meta)]) == 2
    assert "no JSON object" in capsys.readouterr().err


def test_a_meta_without_end_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path, m.precopy())
    assert main(["verify", str(file), "--meta", "/dev/zero"]) == 2
    assert "no JSON object" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["decode", "verify"])
@pytest.mark.parametrize("kind", ["pipe", "deep", "endless"])
def test_an_unusable_meta_beside_says_nothing(command: str, kind: str, tmp_path: Path) -> None:
    file, meta = save(tmp_path, m.precopy()), tmp_path / "meta.json"
    if kind == "pipe":
        os.mkfifo(meta)
    elif kind == "deep":
        meta.write_text('{"channels":' + "[" * 100000, encoding="utf-8")
    else:
        meta.symlink_to("/dev/zero")
    assert main([command, str(file)]) == 0


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(save(tmp_path, m.precopy()))
    assert main(["verify"]) == 2
    assert "FILE" in capsys.readouterr().err
    assert main(["verify", file, "--qemu-version", "new"]) == 2
    assert "expected a version" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none")]) == 2
    (tmp_path / "text").write_text("this is no stream at all", encoding="utf-8")
    assert main(["verify", str(tmp_path / "text")]) == 2


def test_the_list_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--rules"]) == 0
    out = capsys.readouterr().out
    assert "LEG-MFD-057  error    two copies of a page are separated by a SYNC" in out
    assert "a note for QEMU before 9.0" in out
    assert "not checkable: a recording does not say when its connections were made" in out
    assert "LEG-DST-*" in out
    assert main(["verify", "--rules", "--json"]) == 0
    found = document(capsys)
    assert found["schema"] == "qmig/verify-rules/1"
    assert {row["by"] for row in found["rules"]} == {"reader", "checker", "nobody"}


def test_what_is_beyond_the_reader_is_not_called_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit of ours is no error of the stream, but what lies behind it was not looked at."""
    story = m.precopy()
    story.change(story.at(ram.RamMemSize), word=1 << 62 | ram.RamFlag.MEM_SIZE)
    huge = story.change(story.at(ram.RamBlockEntry), used_length=1 << 62)
    assert main(["verify", str(save(tmp_path, huge))]) == 2
    out, err = capsys.readouterr()
    assert "0 errors, 1 warnings" in out
    assert "not all of it could be read" in err
    assert err.count("\n") == 1


def test_devices_described_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Machine types up to 2.2 send neither footers nor a description: --schema tells where a device ends."""
    story = m.precopy()
    whole = save(tmp_path, story)
    bare = Story(
        [x for x in story if not isinstance(x[1], (sec.SectionFooter, sec.VmDescription))], story.known
    )
    folder = tmp_path / "bare"
    folder.mkdir()
    path = save(folder, bare)
    assert main(["verify", str(path)]) == 2
    assert "LEG-SEC-014" in capsys.readouterr().err
    assert main(["verify", "--schema", str(whole), str(path)]) == 0
