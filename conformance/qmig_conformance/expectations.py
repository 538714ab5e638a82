"""What is known to fail, outside the cases: `expectations/*.toml`, one table per defect.

    [[expect]]
    case = "legacy.destination.multifd.*"       # glob over case ids, or over case@variant; or a list of them
    versions = ">=5.2, <=10.0"                  # of the target, or of a pair's source; may be left out
    to = ">=11"                                 # of a pair's destination; may be left out
    message = "crash \\\\(signal 5\\\\)"            # must be found in what was expected, seen or said
    reason = "why, and which field of which record"
    link = "LEG-DST-016"
    expires = 2027-06-30                        # optional
    kind = "reference"                          # of the target; left out: any but our own peers

Rule 1: a row that fails as an expectation says is waived; one that passes although all its message, case and
version fit is an unexpected pass, which is as bad as a failure.
Rule 2: an expired expectation waives nothing. One that no row of a fitting target met is reported.
"""

from __future__ import annotations

import datetime
import fnmatch
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qmig.errors import QmigError
from qmig_conformance.case import Verdict
from qmig_conformance.report.model import Expected, Row, Target

FOLDER: Final = Path(__file__).parent / "expectations"
_BOUND = re.compile(r"(>=|<=|<|>|==)\s*(\d+(?:\.\d+)*)")
_KEYS: Final = {"case", "versions", "to", "message", "reason", "link", "expires", "package", "steady", "kind"}


@dataclass(slots=True, kw_only=True)
class Expectation:
    """One of them, and what it met in this run. `steady` is false for what a build does not always do: then a
    pass is no surprise, and the reason says why."""

    number: int
    cases: tuple[str, ...]
    versions: str
    to: str
    message: re.Pattern[str]
    reason: str
    link: str
    package: re.Pattern[str]
    kind: str
    expires: datetime.date | None
    steady: bool
    met: int = 0
    passed: int = 0
    fitting: int = field(default=0, repr=False)

    def fits(self, row: Row, target: Target) -> bool:
        """Whether it is about this row, whatever its verdict."""
        return (
            (target.kind == self.kind if self.kind else target.kind != "reference")
            and in_range(target.version, self.versions)
            and in_range(target.peer_version, self.to)
            and any(fnmatch.fnmatchcase(name, case) for case in self.cases for name in (row.case, row.id))
            and bool(self.package.search(target.package))
        )

    def tells(self, row: Row) -> bool:
        """Whether the row failed in this way."""
        said = "\n".join((row.outcome, row.expected, row.actual, row.stderr))
        return bool(self.message.search(said))


def in_range(version: str, bounds: str) -> bool:
    """Whether "10.0.13" is in ">=7.2, <11". A bound is as exact as it is written: 10.0.13 is in "<=10.0"."""
    if not bounds:
        return True
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    if not numbers:
        return False
    for sign, text in _BOUND.findall(bounds):
        bound = [int(part) for part in text.split(".")]
        own = numbers[: len(bound)]
        good = {
            ">=": own >= bound,
            "<=": own <= bound,
            "<": own < bound,
            ">": own > bound,
            "==": own == bound,
        }
        if not good[sign]:
            return False
    return True


class Expectations:
    """All that hold for a run on the day `today`."""

    def __init__(self, found: Sequence[Expectation], today: datetime.date) -> None:
        self.entries = found
        self._today = today

    def judge(self, row: Row, target: Target) -> Row:
        """The row with the verdict that it has in their light."""
        for one in self.entries:
            if not one.fits(row, target):
                continue
            one.fitting += 1
            if self._expired(one):
                continue
            if row.verdict in {Verdict.FAIL, Verdict.NON_STRICT} and one.tells(row):
                one.met += 1
                return replace(row, verdict=Verdict.WAIVED, waiver=one.number)
            if row.verdict is Verdict.PASS:
                one.passed += 1
                if one.steady:
                    actual = f"it passes, and was expected to fail: {one.reason}"
                    return replace(
                        row,
                        verdict=Verdict.UNEXPECTED_PASS,
                        waiver=one.number,
                        expected=f"a failure that says {one.message.pattern}",
                        actual=actual,
                    )
        return row

    def report(self) -> list[Expected]:
        """Those that were about any row of this run."""
        return [
            Expected(
                number=one.number,
                case=", ".join(one.cases),
                versions=f"{one.versions} to {one.to}" if one.to else one.versions,
                message=one.message.pattern,
                reason=one.reason,
                link=one.link,
                expires=one.expires.isoformat() if one.expires else "",
                state=self._state(one),
                rows=one.met,
            )
            for one in self.entries
            if one.fitting
        ]

    def _expired(self, one: Expectation) -> bool:
        return one.expires is not None and one.expires < self._today

    def _state(self, one: Expectation) -> str:
        if self._expired(one):
            return "expired"
        if one.met or (one.passed and not one.steady):
            return "used"  # what does not always happen need not have happened
        return "fixed" if one.passed else "unmatched"


def load(paths: Iterable[Path], today: datetime.date) -> Expectations:
    """Those of some files. Raises QmigError for a file that is none."""
    found: list[Expectation] = []
    for path in paths:
        found += _read(path, len(found) + 1)
    return Expectations(found, today)


def shipped() -> list[Path]:
    """The files that come with the suite."""
    return sorted(FOLDER.glob("*.toml"))


def _read(path: Path, number: int) -> Iterator[Expectation]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = document["expect"]
        for place, entry in enumerate(entries):
            yield _entry(entry, number + place)
    except (OSError, ValueError, KeyError, TypeError, re.error) as problem:
        raise QmigError(f"{path}: {type(problem).__name__}: {problem}") from None


def _entry(entry: dict[str, Any], number: int) -> Expectation:
    if unknown := set(entry) - _KEYS:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    bounds = {key: entry.get(key, "") for key in ("versions", "to")}
    for key, text in bounds.items():
        if text and not re.fullmatch(rf"\s*{_BOUND.pattern}(\s*,\s*{_BOUND.pattern})*\s*", text):
            raise ValueError(f"{key} {text!r}: write >=7.2, <11 and the like")
    cases = entry["case"]
    expires = entry.get("expires")
    if expires is not None and type(expires) is not datetime.date:
        raise ValueError(f"expires {expires!r} is no date")
    return Expectation(
        number=number,
        cases=(cases,) if isinstance(cases, str) else tuple(cases),
        versions=bounds["versions"],
        to=bounds["to"],
        message=re.compile(entry["message"]),
        reason=entry["reason"],
        link=entry["link"],
        package=re.compile(entry.get("package", "")),
        kind=entry.get("kind", ""),
        expires=expires,
        steady=entry.get("steady", True),
    )
