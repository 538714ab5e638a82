"""pytest plugin of the suite: chooses the target, selects cases, makes one `Row` per case."""

from __future__ import annotations

import datetime
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qmig_conformance import report
from qmig_conformance.case import Case, Unmet, Verdict, verdict_of
from qmig_conformance.recording import Recording, recordings_of
from qmig_conformance.target import choose_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for."""

    command: Sequence[str]
    report: Path
    qemu: str | None = None
    recordings_only: bool = False
    select: str = ""
    strict: bool = False
    list_only: bool = False


class Suite:
    """The plugin, and the run it makes."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.recordings: list[Recording] = []
        self.run = report.Run(
            target={},
            command=options.command,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "case(case): a conformance case")
        target = choose_target(self.options.qemu, recordings_only=self.options.recordings_only)
        self.run.target = target.describe()
        self.options.report.mkdir(parents=True, exist_ok=True)
        self.recordings = recordings_of(target, self.options.report)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "recording" in metafunc.fixturenames:
            ids = [recording.name for recording in self.recordings]
            metafunc.parametrize("recording", self.recordings, ids=ids)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._selected(item)]

    def _selected(self, item: pytest.Item) -> bool:
        declared = case_of(item)
        ids = (row_id(item), declared.requirement)
        return any(text.startswith(self.options.select) for text in ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Takes the verdict; pytest only hears of what is bad, without a traceback of ours."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except Exception as problem:  # noqa: BLE001 (every way to end is a verdict)
            error = problem
        row = self._row(pyfuncitem, error, time.perf_counter() - started)
        self.run.rows.append(row)
        bad = {*report.BAD, Verdict.NON_STRICT} if self.options.strict else report.BAD
        if row.verdict in bad:
            pytest.fail(row.actual, pytrace=False)
        return True

    def _row(self, item: pytest.Function, error: Exception | None, seconds: float) -> report.Row:
        declared = case_of(item)
        recording = recording_of(item)
        verdict = verdict_of(error, declared.level)
        return report.Row(
            id=row_id(item),
            title=declared.title,
            requirement=declared.requirement,
            level=str(declared.level),
            role=str(declared.roles),
            scenario=recording.name if recording else "",
            verdict=verdict,
            expected=error.expected if isinstance(error, Unmet) else "",
            actual=error.actual if isinstance(error, Unmet) else _one_line(error),
            detail="".join(traceback.format_exception(error)) if verdict is Verdict.ERROR else "",
            artefacts=recording.artefacts if recording else "",
            seconds=seconds,
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.options.list_only:
            report.print_list(case_of(item) for item in session.items)
            return
        report.write_json(self.run, self.options.report / "report.json")
        report.write_junit(self.run, self.options.report / "junit.xml")
        report.print_summary(self.run, self.options.report)


def case_of(item: pytest.Item) -> Case:
    """What the test function, or its parameter, was declared as."""
    marker = item.get_closest_marker("case")
    if marker is None:
        raise pytest.UsageError(f"{item.nodeid} is no case: it lacks @case")
    declared: Case = marker.args[0]
    return declared


def recording_of(item: pytest.Item) -> Recording | None:
    """The recording that the item judges."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("recording") if callspec else None


def row_id(item: pytest.Item) -> str:
    """The case's id, with the recording it was judged on."""
    recording = recording_of(item)
    return f"{case_of(item).id}@{recording.name}" if recording else case_of(item).id


def _one_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0] if error is not None else ""
