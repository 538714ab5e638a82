"""The suite itself: what it says of good and of damaged recordings, and how it says it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qmig.legacy.verify import RULES, By
from qmig.testing import spec_root
from qmig.testing.scenario import Unsupported
from qmig_conformance.case import Level, NotShown, Unmet, Verdict, verdict_of
from qmig_conformance.judge import judge
from qmig_conformance.report import model


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "qmig_conformance", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("error", "level", "verdict"),
    [
        (None, Level.MUST, Verdict.PASS),
        (Unmet(expected="a", actual="b"), Level.MUST, Verdict.FAIL),
        (Unmet(expected="a", actual="b"), Level.SHOULD, Verdict.NON_STRICT),
        (Unsupported("no"), Level.MUST, Verdict.UNSUPPORTED),
        (NotShown("no"), Level.MUST, Verdict.INFORMATIONAL),
        (RuntimeError("ours"), Level.MUST, Verdict.ERROR),
    ],
)
def test_how_a_case_ends_is_its_verdict(error: Exception | None, level: Level, verdict: Verdict) -> None:
    assert verdict_of(error, level) is verdict


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run over the repository's recordings."""
    folder = tmp_path_factory.mktemp("report")
    return run("run", "--recordings-only", "--report", str(folder)), folder


def test_recordings_pass(judged: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = judged
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((folder / "report.json").read_text())
    assert document["schema"] == model.SCHEMA
    assert [target["kind"] for target in document["targets"]] == ["recordings"]
    assert set(document["counts"]) == {"pass", "informational"}
    ids = [(row["case"], row["variant"]) for row in document["rows"]]
    assert len(set(ids)) == len(ids)
    assert {case["requirement"] for case in document["cases"]} >= {
        rule.requirement for rule in RULES.values() if rule.by is not By.NOBODY
    }
    assert str(folder / "report.json") in done.stdout


def test_the_report_obeys_its_schema(judged: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((spec_root() / "schema" / "conformance-report.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads((judged[1] / "report.json").read_text()))


def test_rows_of_a_recording_have_what_went_over_the_wire(
    judged: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = judged
    rows = [
        row for row in json.loads((folder / "report.json").read_text())["rows"] if row["verdict"] == "pass"
    ]
    assert {bool(row["sent"]) for row in rows} == {True}
    assert "RpPong" in next(row["received"] for row in rows if row["variant"] == "10.0-return-path")
    tool, command, main = shlex.split(rows[0]["repeat"])
    assert (tool, command) == ("qmig", "verify")
    assert Path(main).is_file()


def test_the_page_is_named_last(judged: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = judged
    assert done.stdout.split("\n")[-2] == f"report: {folder / 'report.html'}"
    assert (folder / "report.html").stat().st_size > 100_000


def test_junit_says_the_same(judged: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    folder = judged[1]
    rows = json.loads((folder / "report.json").read_text())["rows"]
    root = ElementTree.parse(folder / "junit.xml").getroot()
    assert len(root.findall(".//testcase")) == len(rows)
    assert not root.findall(".//failure")
    skipped = sum(row["verdict"] == "informational" for row in rows)
    assert len(root.findall(".//skipped")) == skipped


def test_list_names_every_rule_once() -> None:
    done = run("list")
    assert done.returncode == 0
    requirements = [line.split("\t")[2] for line in done.stdout.splitlines()]
    assert {rule.requirement for rule in RULES.values() if rule.by is not By.NOBODY} <= set(requirements)
    assert run("list", "--select", "LEG-SEC-0").stdout.count("\n") < len(requirements)


@pytest.mark.parametrize("arguments", [(), ("judge",), ("run", "--bogus")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """4 is pytest's code for it; its 2 would be an interruption, and 130 for the user."""
    assert run(*arguments).returncode == 4
    command = [sys.executable, "-P", "-m", "qmig", "conformance", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_a_qemu_that_is_none_is_an_environment_problem(tmp_path: Path) -> None:
    done = run("run", "--qemu", str(tmp_path / "nothing"), "--report", str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "nothing" in done.stderr


def test_damage_is_found(judged: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    """A page that differs from the source's memory, and a footer that differs from its section."""
    folder = judged[1] / "11.1-precopy-plain-microvm"
    meta = json.loads((folder / "meta.json").read_text())
    data = (folder / "main.bin").read_bytes()
    (tmp_path / "main.bin").write_bytes(data)
    good = judge(tmp_path, meta)
    assert (good.error, good.differs, good.memory_differences) == ("", "", ())
    (tmp_path / "memory-0.bin").write_bytes(bytes(4096))
    memory = {"microvm.ram": {"file": "memory-0.bin", "ranges": [[0, 4096]], "used_length": 1}}
    wrong = judge(tmp_path, {**meta, "memory": memory})
    assert len(wrong.memory_differences) == 1
    footer = data.index(b"\x7e\x00\x00\x00")
    (tmp_path / "main.bin").write_bytes(data[: footer + 4] + b"\xff" + data[footer + 5 :])
    broken = judge(tmp_path, meta)
    assert "LEG-SEC-021" in broken.error
    assert any(finding.requirement == "LEG-SEC-021" for finding in broken.findings)
