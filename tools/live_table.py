"""pytest plugin: writes what came of the live tests as a table (`make live` writes protocol/LIVE.md).

    pytest -p live_table --live-table protocol/LIVE.md …

A test says what it plays with the property ``live``: role, scenario, target and version of the build.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from qmig.testing.scenario import Role
from qmig.testing.scenarios import EXCLUDED, SCENARIOS

_MARKS = {"passed": "yes", "failed": "FAILED", "skipped": "no"}
#: role, scenario, target, version -> outcome and the reason of a skip
Results = dict[tuple[str, str, str, str], tuple[str, str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--live-table", type=Path, metavar="PATH", help="write what came of the live tests here")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--live-table")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(path), "live-table")


class _Table:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: Results = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        played = dict(report.user_properties).get("live")
        if played is None or (report.when != "call" and report.outcome != "failed"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        role, scenario, target, version = cast("tuple[str, str, str, str]", played)
        self.results[role, scenario, target, version] = report.outcome, reason.removeprefix("Skipped: ")

    def pytest_sessionfinish(self) -> None:
        if self.results:
            self.path.write_text("\n".join(page(self.results)) + "\n", encoding="utf-8")


def page(results: Results) -> Iterator[str]:
    """The page, line by line."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    counts = {word: sum(outcome == word for outcome, _ in results.values()) for word in _MARKS}
    yield "# Live against QEMU"
    yield ""
    yield "Written by `make live`; what is played stands in `qmig/testing/scenarios.py`."
    yield ""
    yield "- D: our destination took a real QEMU's guest; its RAM then equals the source's, byte for byte."
    yield "- S: our source made a real QEMU run the guest; the memory there is what was sent."
    yield "- A number is a reason below; an empty cell was not played."
    yield ""
    yield f"Last run: {now}, {os.cpu_count()} CPUs, {platform.release()}; {counts['passed']} played, "
    yield f"{counts['skipped']} refused by the build or the host, {counts['failed']} failed."
    reasons: list[str] = []
    for target in ("x86_64", "aarch64"):
        versions = sorted({key[3] for key in results if key[2] == target}, key=_number)
        if versions:
            yield from _table(results, target, versions, reasons)
    yield ""
    yield "## Why not"
    yield ""
    yield from (f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    yield ""
    yield "Recorded by others, and played by neither peer:"
    yield ""
    yield from (f"- `{name}`: {reason}" for name, reason in sorted(EXCLUDED.items()))


def _table(results: Results, target: str, versions: list[str], reasons: list[str]) -> Iterator[str]:
    roles = {Role.DESTINATION: "D", Role.SOURCE: "S"}
    yield f"\n## {target}\n"
    heads = [f"{version} {mark}" for version in versions for mark in roles.values()]
    yield f"| scenario | {' | '.join(heads)} |"
    yield f"|---|{'---|' * (len(versions) * len(roles))}"
    for scenario in SCENARIOS:
        if scenario.target != target:
            continue
        cells = []
        for version in versions:
            for role in roles:
                key = (role.value, scenario.name, target, version)
                outcome, reason = results.get(key, ("skipped", scenario.why_not(role)))
                if outcome == "skipped" and reason:
                    reason = reason.removeprefix(f"QEMU {version}: ")
                    if reason not in reasons:
                        reasons.append(reason)
                    cells.append(f"[{reasons.index(reason) + 1}]")
                else:
                    cells.append(_MARKS[outcome] if key in results else "")
        yield f"| {scenario.name} | {' | '.join(cells)} |"


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
