"""Finding builds: versions, what a program says of itself, the order of places, records; no archive."""

import json
import shutil
from pathlib import Path

import pytest

from qmig.builds import BuildError, find, installed, probe
from qmig.builds.archive import first_complaint
from qmig.builds.store import version_key, version_matches
from qmig.builds.unpack import interpreter
from qmig.cli import main


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


def run_qmig(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("wanted", "version", "good"),
    [
        ("10.0", "10.0.13+ds-0+deb13u1", True),
        ("10.0", "10.0", True),
        ("10.0", "10.0~rc1+ds-1", True),
        ("10.0.2", "10.0.2+ds-2", True),
        ("10.0.2", "10.0.20", False),
        ("10.0", "10.01", False),
        ("7.2", "7.2+dfsg-7+deb12u18+b3", True),
        ("7.2", "17.2", False),
        ("10.0", "10", False),
    ],
)
def test_version_matches(wanted: str, version: str, good: bool) -> None:
    assert version_matches(wanted, version) is good


def test_versions_are_ordered_by_number() -> None:
    assert sorted(["10.0.13", "7.2.22", "5.2.0", "10.0.2"], key=version_key) == [
        "5.2.0",
        "7.2.22",
        "10.0.2",
        "10.0.13",
    ]


def test_first_complaint_prefers_errors() -> None:
    assert first_complaint("W: odd\nE: The reason\nE: next") == "The reason"
    assert first_complaint("\nplain words\n") == "plain words"
    assert first_complaint("") == ""


def test_probe_refuses_what_is_no_qemu(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot start"):
        probe(tmp_path / "nothing")
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\necho something else\n")
    fake.chmod(0o755)
    with pytest.raises(BuildError, match="does not answer as a QEMU does"):
        probe(fake)
    fake.write_text("#!/bin/sh\necho broken library >&2; exit 127\n")
    with pytest.raises(BuildError, match="broken library"):
        probe(fake)
    fake.write_text("#!/bin/sh\necho 'QEMU emulator version 9.1.50 (v9.1.0-123-gabcdef)'\n")
    assert (probe(fake).version, probe(fake).package) == ("9.1.50", "v9.1.0-123-gabcdef")
    assert probe(fake).target == "x86_64"


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x01" + bytes(100)]
)
def test_interpreter_of_what_is_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BuildError):
        interpreter(tmp_path / "x")


def fake_qemu(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Test 1)'\n")
    path.chmod(0o755)
    return path


def test_order_of_finding(tmp_path: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fake_qemu(tmp_path / "own/qemu-system-x86_64", "8.2.1")
    monkeypatch.setenv("PATH", f"{tmp_path}/host:/usr/bin:/bin" if not shutil.which("qemu-system-x86_64") else
                       f"{tmp_path}/host:/bin")  # fmt: skip
    assert installed(prefix) == []
    fake_qemu(tmp_path / "host/qemu-system-x86_64", "7.2.22")
    on_path = find("x86_64", prefix=prefix)
    assert on_path is not None
    assert (on_path.version, on_path.found) == ("7.2.22", "path")
    # Builds that another tool unpacked have no record: they are asked.
    fake_qemu(prefix / "bin/qemu-system-x86_64-5.2", "5.2.0")
    fake_qemu(prefix / "bin/qemu-system-x86_64-10.0", "10.0.13")
    assert [build.name for build in installed(prefix)] == ["5.2", "10.0"]
    newest = find("x86_64", prefix=prefix)
    assert newest is not None
    assert (newest.version, newest.found) == ("10.0.13", "prefix")
    named = find("x86_64", "5.2", prefix=prefix)
    assert named is not None
    assert named.version == "5.2.0"
    assert find("x86_64", "10.0.13", prefix=prefix) == newest
    from_path = find("x86_64", "7.2", prefix=prefix)
    assert from_path is not None
    assert from_path.found == "path"
    assert find("x86_64", "9.9", prefix=prefix) is None
    assert find("aarch64", "10.0", prefix=prefix) is None
    explicit = find("x86_64", explicit=own, prefix=prefix)
    assert explicit is not None
    assert (explicit.version, explicit.binary) == ("8.2.1", own)
    with pytest.raises(BuildError, match=r"is QEMU 8\.2\.1, not 10\.0"):
        find("x86_64", "10.0", explicit=own, prefix=prefix)


def test_usage_errors(capfd: pytest.CaptureFixture[str], prefix: Path) -> None:
    lines = ["get", "get 10.0 --targets vax", "get 10.0 --targets=", "nonsense", "get 10.0 --unsigned"]
    for arguments in lines:
        code, out, err = run_qmig(capfd, "builds", *arguments.split())
        assert (code, out) == (2, ""), arguments
        assert err.startswith("qmig: ")
        assert err.count("\n") == 1
    code, _, err = run_qmig(capfd, "builds", "get", "../etc", "--prefix", prefix)
    assert (code, err) == (3, "qmig: ../etc: '../etc' is not a QEMU version such as 10.0 or 7.2.22\n")


def test_list_of_an_empty_prefix(capfd: pytest.CaptureFixture[str], prefix: Path) -> None:
    code, out, err = run_qmig(capfd, "builds", "list", "--prefix", prefix, "--json")
    assert (code, json.loads(out), err) == (0, {"schema": "qmig/builds/1", "builds": []}, "")
    code, _, err = run_qmig(capfd, "builds", "list", "--prefix", prefix)
    assert code == 0
    assert err == f"no builds in {prefix}; get one with: qmig builds get 10.0\n"


def test_a_damaged_record_is_named(capfd: pytest.CaptureFixture[str], prefix: Path) -> None:
    fake_qemu(prefix / "bin/qemu-system-x86_64-5.2", "5.2.0")
    (prefix / "5.2").mkdir()
    for content in ("{", "[]", "{}"):
        (prefix / "5.2/build.json").write_text(content)
        code, _, err = run_qmig(capfd, "builds", "list", "--prefix", prefix)
        assert code == 3
        assert err.startswith(f"qmig: {prefix}/5.2/build.json is damaged")
