"""The process that a user started: collects rows from the workers, judges them in the light of the
expectations, writes the report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

import pytest

from qmig_conformance.case import Case, Role, Verdict
from qmig_conformance.expectations import Expectations
from qmig_conformance.options import Options
from qmig_conformance.plugin import PROPERTY, case_of, parts_of
from qmig_conformance.progress import Progress
from qmig_conformance.report.model import Report, Row, condensed, read_case, read_row
from qmig_conformance.report.terminal import print_list

#: pytest's exit code for "tests failed"
FAILED: Final = 1


class Controller:
    """Lives in the first process only. `report` is complete behind `pytest_sessionfinish`."""

    def __init__(self, options: Options, expectations: Expectations, started: str) -> None:
        self.options = options
        self.expectations = expectations
        self.report = Report(
            started=started,
            seconds=0,
            command=options.command,
            targets=[judged.target for judged in options.targets],
        )
        self._began = time.monotonic()
        self._targets = {target.name: target for target in self.report.targets}
        self._rows: list[Row] = []
        self._listed: list[Case] = []
        self._progress = Progress()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            found = [value for name, value in report.user_properties if name == PROPERTY]
            for text in found:
                assert isinstance(text, str)
                played = json.loads(text)
                declared = read_case(played["case"])
                self.report.cases.setdefault(declared.id, declared)
                self._take(read_row(played["row"]))
            if found:
                return
        if report.failed:  # outside of a case: a fixture of ours, or a worker that died
            self._take(self._broken(report))

    def _take(self, row: Row) -> None:
        target = self._targets.get(row.target)
        self._rows.append(self.expectations.judge(row, target) if target else row)
        self._progress.played(row.id)

    def _broken(self, report: pytest.TestReport | pytest.CollectReport) -> Row:
        """A case that did not come to a verdict, because what plays it broke."""
        target, scenario, name = parts_of(report.nodeid)
        return Row(
            case=name or report.nodeid,
            variant=scenario,
            target=target,
            role=str(Role.SOURCE if scenario else Role.DESTINATION),
            level="must",
            verdict=Verdict.ERROR,
            actual=str(report.longrepr).strip().splitlines()[-1] if report.longrepr else "it did not end",
            detail=str(report.longrepr),
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._take(self._broken(report))

    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:
        self._progress.total(len(ids))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:  # played in this process
            self._listed = [case_of(item) for item in session.items]
            self._progress.total(len(session.items))

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> object:
        """Not `--dist loadgroup`: pytest-xdist 3.8 loses the groups with pytest 9.2."""
        from qmig_conformance.scheduling import by_group

        return by_group(config, log)

    def pytest_keyboard_interrupt(self) -> None:
        self.report.interrupted = True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._progress.close()
        if self.options.list_only:
            print_list(self._listed)
            return
        self.report.seconds = time.monotonic() - self._began
        self.report.rows = sorted(condensed(self._rows), key=lambda row: (row.target, row.id))
        self.report.expectations = self.expectations.report()
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            good = self.report.good(strict=self.options.strict)
            session.exitstatus = pytest.ExitCode.OK if good else pytest.ExitCode.TESTS_FAILED
