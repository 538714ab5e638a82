"""The promises of every command: exit code, one line on stderr, never a traceback."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from qmig import cli
from qmig.cli import main
from qmig.cli.conformance import EXIT_OF_PYTEST, run_module
from qmig.cli.exits import CommandError, Exit, exit_for, one_line, verdict
from qmig.errors import (
    LimitExceeded,
    LocalProtocolError,
    QmigError,
    RemoteProtocolError,
    TruncatedStream,
    UnsupportedFeature,
)

REMOTE: Any = {"requirement": "LEG-GEN-001", "offset": 8, "record": "stream"}

CASES: list[tuple[BaseException, Exit, str]] = [
    (CommandError("no such thing", Exit.ENVIRONMENT), Exit.ENVIRONMENT, "no such thing"),
    (CommandError("what"), Exit.USAGE, "what"),
    (click.UsageError("Bad."), Exit.USAGE, "Bad; see 'qmig --help'"),
    (click.ClickException("Bad."), Exit.USAGE, "Bad."),
    (KeyboardInterrupt(), Exit.CANCELLED, "cancelled"),
    (click.Abort(), Exit.CANCELLED, "cancelled"),
    (BrokenPipeError(), Exit.CANCELLED, ""),
    (UnsupportedFeature("qpl", **REMOTE), Exit.USAGE, "offset 0x8, stream: qpl [LEG-GEN-001]"),
    (LimitExceeded("big", **REMOTE), Exit.USAGE, "offset 0x8, stream: big [LEG-GEN-001]"),
    (RemoteProtocolError("bad", **REMOTE), Exit.BAD, "offset 0x8, stream: bad [LEG-GEN-001]"),
    (TruncatedStream("cut", **REMOTE), Exit.BAD, "offset 0x8, stream: cut [LEG-GEN-001]"),
    (LocalProtocolError("wrong", requirement="LEG-GEN-001"), Exit.USAGE, "wrong [LEG-GEN-001]"),
    (QmigError("no"), Exit.USAGE, "no"),
    (FileNotFoundError(errno.ENOENT, "No such file", "x.bin"), Exit.USAGE, "x.bin: No such file"),
    (OSError(errno.ENOSPC, "No space left"), Exit.ENVIRONMENT, "No space left"),
    (OSError(), Exit.ENVIRONMENT, "OSError"),
    (MemoryError(), Exit.ENVIRONMENT, "out of memory"),
]


@pytest.mark.parametrize(("problem", "code", "line"), CASES, ids=lambda v: type(v).__name__)
def test_exception_to_exit_code(problem: BaseException, code: Exit, line: str) -> None:
    assert exit_for(problem) == (code, line)


def test_one_fault_makes_an_input_bad() -> None:
    limit, unknown, cut = (
        kind("x", **REMOTE) for kind in (LimitExceeded, UnsupportedFeature, TruncatedStream)
    )
    assert verdict([]) is Exit.GOOD
    assert verdict([limit]) is verdict([unknown]) is verdict([limit, unknown]) is Exit.USAGE
    assert verdict([cut]) is verdict([limit, cut]) is Exit.BAD


def test_unforeseen_exception_is_named_as_our_defect(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_raising(ZeroDivisionError("division by zero")) == Exit.ENVIRONMENT
    err = capfd.readouterr().err
    assert err.startswith("qmig: defect in qmig: ZeroDivisionError: division by zero at ")
    assert err.count("\n") == 1
    assert exit_for(ZeroDivisionError("x"))[1].startswith(
        "defect in qmig: ZeroDivisionError: x at unknown place"
    )


def test_a_traceback_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMIG_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run_raising(ZeroDivisionError())


def run_raising(problem: BaseException) -> int:
    """`main` with a command that raises."""

    @click.command()
    def raising() -> None:
        raise problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.LazyGroup, "get_command", lambda *_: raising)
        return main(["raising"])


#: A closed pipe replaces file descriptor 1, so `test_output_into_a_closed_pipe` has a process for it.
PRINTED = [case[0] for case in CASES if not isinstance(case[0], BrokenPipeError)]


@pytest.mark.parametrize("problem", PRINTED, ids=lambda v: type(v).__name__)
def test_main_prints_at_most_one_line(problem: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_raising(problem) == exit_for(problem)[0]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("qmig: ")


@pytest.mark.parametrize(("code", "status"), [(None, 0), (7, 7), ("text", 1)])
def test_system_exit_passes(code: int | str | None, status: int) -> None:
    assert run_raising(SystemExit(code)) == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command; see 'qmig --help'"),
        (["nonsense"], "No such command 'nonsense'; see 'qmig --help'"),
        (["--nonsense"], "see 'qmig --help'"),
        (["spec", "show"], "Missing argument 'ID-PREFIX'; see 'qmig spec show --help'"),
        (["spec", "show", "LEG-XYZ"], "no statement begins with 'LEG-XYZ'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == Exit.USAGE
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["spec", "--help"]])
def test_help_and_version_are_good(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == Exit.GOOD
    assert capfd.readouterr().err == ""


def test_names_from_the_wire_cannot_drive_a_terminal() -> None:
    assert one_line("a\x1b[2Jb\nc\udcff é") == "a\\x1b[2Jb\\nc\\udcff é"


def qmig_process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qmig", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_output_into_a_closed_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    process = qmig_process("spec", "show", "LEG", stdout=write)
    os.close(write)
    assert process.communicate()[1] == ""
    assert process.returncode == Exit.CANCELLED


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "line"),
    [
        ("1", ["spec", "show", "LEG"], Exit.ENVIRONMENT, "standard output: Bad file descriptor"),
        ("0", ["decode", "-"], Exit.USAGE, "standard input is closed"),
    ],
)
def test_closed_standard_streams(closed: str, arguments: list[str], code: Exit, line: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "qmig", *arguments]
    process = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert process.returncode == code
    assert line in process.stderr
    assert process.stderr.count("\n") == 1


MODULE = "import os, signal, sys\n"


@pytest.mark.parametrize("code", EXIT_OF_PYTEST)
def test_pytest_codes_are_mapped(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_suite(tmp_path, monkeypatch, f"sys.exit({code})") == EXIT_OF_PYTEST[code]


def test_suite_gets_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_suite(tmp_path, monkeypatch, "sys.exit(sys.argv[1:] != ['--x', 'y'])", "--x", "y") == Exit.GOOD


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_suite_ended_by_a_signal_is_cancelled(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"signal.signal({number:d}, signal.SIG_DFL); os.kill(os.getpid(), {number:d})"
    assert run_suite(tmp_path, monkeypatch, body) == Exit.CANCELLED


def test_termination_is_passed_on_to_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child ends by the signal that it asks its parent to get, and for no other reason."""
    body = "os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    assert run_suite(tmp_path, monkeypatch, body) == Exit.CANCELLED


@pytest.mark.parametrize("body", ["sys.exit(77)", "os.abort()"])
def test_unknown_end_of_the_suite_is_an_environment_problem(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="suite_for_test ended with unexpected status") as caught:
        run_suite(tmp_path, monkeypatch, body)
    assert caught.value.code == Exit.ENVIRONMENT


def run_suite(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, *arguments: str) -> Exit:
    (folder / "suite_for_test.py").write_text(MODULE + body)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        return run_module("suite_for_test", arguments)
    finally:
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_suite_without_its_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qmig.cli.conformance.find_spec", lambda name: None if name == "pytest" else name)
    assert main(["conformance", "list"]) == Exit.ENVIRONMENT
    assert "pip install 'qmig[conformance]'" in capfd.readouterr().err
