"""The document that a run leaves behind: `qmig/conformance-report/2` (`spec/schema/conformance-report.json`).

A document holds any number of targets, so merging documents is a union. It is made of plain JSON values; here
are its parts with types, and how documents are made, read and merged.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qmig.errors import QmigError
from qmig.spec.ids import read_requirements
from qmig.testing import spec_root
from qmig_conformance.case import Case, Level, Profile, Role, Verdict

SCHEMA: Final = "qmig/conformance-report/2"
#: what makes a run bad
BAD: Final = frozenset({Verdict.FAIL, Verdict.ERROR, Verdict.UNEXPECTED_PASS})
#: order in which several verdicts count: the worst is shown
SEVERITY: Final = (
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.UNEXPECTED_PASS,
    Verdict.NON_STRICT,
    Verdict.WAIVED,
    Verdict.PASS,
    Verdict.UNSUPPORTED,
    Verdict.INFORMATIONAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was judged. `name` is unique in a document."""

    name: str
    #: qemu, pair, recordings, reference, endpoint
    kind: str
    version: str = ""
    package: str = ""
    binary: str = ""
    #: of a pair: its destination; what stands above is its source
    peer_version: str = ""
    peer_package: str = ""
    peer_binary: str = ""

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return "".join(c if c.isalnum() or c in "-._" else "_" for c in self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one case, or of one variant of it (a scenario, say), on one target.

    `outcome` is a word of QEMU's migration tests, where a destination was looked at. `artefacts` is a folder
    beside the report; `detail` a traceback of ours; `waiver` the number of the expectation that it met, 0 for
    none. `sent` and `received` are short transcripts; `repeat` is the command that plays it again."""

    case: str
    variant: str = ""
    target: str
    role: str
    level: str
    verdict: Verdict
    outcome: str = ""
    expected: str = ""
    actual: str = ""
    detail: str = ""
    artefacts: str = ""
    repeat: str = ""
    seconds: float = 0.0
    waiver: int = 0
    sent: str = ""
    received: str = ""
    stderr: str = ""

    @property
    def id(self) -> str:
        return f"{self.case}@{self.variant}" if self.variant else self.case


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An expectation as the report has it. `state`: used, fixed, unmatched, expired."""

    number: int
    case: str
    versions: str
    message: str
    reason: str
    link: str
    expires: str
    state: str
    rows: int


@dataclass(slots=True, kw_only=True)
class Report:
    """One run, or several that were merged."""

    started: str
    seconds: float
    command: Sequence[str]
    #: it was ended before all cases were played
    interrupted: bool = False
    targets: list[Target] = field(default_factory=list)
    cases: dict[str, Case] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    expectations: list[Expected] = field(default_factory=list)

    def counts(self, target: str = "") -> dict[Verdict, int]:
        seen = Counter(row.verdict for row in self.rows if target in ("", row.target))
        return {verdict: seen[verdict] for verdict in SEVERITY if seen[verdict]}

    def good(self, *, strict: bool = False) -> bool:
        """Whether everything is met that has to be; with `strict`, what should be as well."""
        bad = {*BAD, Verdict.NON_STRICT} if strict else BAD
        loose = strict and any(expected.state == "unmatched" for expected in self.expectations)
        return not loose and not any(row.verdict in bad for row in self.rows)

    def by_requirement(self) -> dict[str, list[Row]]:
        """Rows by the statement that their case is about, in its order."""
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (self.requirement_of(row), row.id, row.target)):
            found.setdefault(self.requirement_of(row), []).append(row)
        return found

    def requirement_of(self, row: Row) -> str:
        declared = self.cases.get(row.case)
        return declared.requirement if declared else ""


def worst(rows: Iterable[Row]) -> Verdict:
    """The verdict that stands for several rows."""
    verdicts = {row.verdict for row in rows}
    return next(verdict for verdict in SEVERITY if verdict in verdicts)


def condensed(rows: Iterable[Row]) -> list[Row]:
    """Without variants of a case that show nothing, where another one of the same case and target shows
    something; of those where none does, the first stands for all."""
    kept: list[Row] = []
    seen: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        seen.setdefault((row.case, row.target), []).append(row)
    for group in seen.values():
        showing = [row for row in group if row.verdict is not Verdict.INFORMATIONAL]
        kept += showing or [replace(group[0], variant="")]
    return kept


# -- documents --------------------------------------------------------------------------------------------


def to_document(report: Report) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": SCHEMA,
        "started": report.started,
        "seconds": round(report.seconds, 3),
        "command": list(report.command),
        "interrupted": report.interrupted,
        "host": host(),
        "counts": {str(verdict): count for verdict, count in report.counts().items()},
        "targets": [asdict(target) for target in report.targets],
        "cases": [case_values(report.cases[id_]) for id_ in sorted(report.cases)],
        "requirements": {
            requirement.id: {
                "text": requirement.text,
                "side": requirement.side,
                "versions": requirement.versions,
                "chapter": requirement.file,
            }
            for requirement in read_requirements(spec_root())[0].values()
        },
        "rows": [asdict(row) for row in report.rows],
        "expectations": [asdict(expected) for expected in report.expectations],
    }


def host() -> dict[str, str]:
    """Where it ran: no names, only what may matter."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def case_values(case: Case) -> dict[str, Any]:
    """A case as a document has it."""
    return {**asdict(case), "violates": list(case.violates)}


def write(document: Mapping[str, Any], path: Path) -> None:
    """As `report.json`, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def from_document(document: Mapping[str, Any]) -> Report:
    """Raises QmigError for what is no document of this schema."""
    if document.get("schema") != SCHEMA:
        raise QmigError(f"not a report of the schema {SCHEMA}: {document.get('schema')!r}")
    try:
        return Report(
            started=document["started"],
            seconds=document["seconds"],
            command=document["command"],
            interrupted=document["interrupted"],
            targets=[Target(**target) for target in document["targets"]],
            cases={case["id"]: read_case(case) for case in document["cases"]},
            rows=[read_row(row) for row in document["rows"]],
            expectations=[Expected(**expected) for expected in document["expectations"]],
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise QmigError(f"a damaged report: {type(problem).__name__}: {problem}") from None


def read_row(row: Mapping[str, Any]) -> Row:
    """A row of a document."""
    return Row(**{**row, "verdict": Verdict(row["verdict"])})


def read_case(case: Mapping[str, Any]) -> Case:
    """A case of a document."""
    return Case(
        **{
            **case,
            "level": Level(case["level"]),
            "roles": Role(case["roles"]),
            "profile": Profile(case["profile"]),
            "violates": tuple(case["violates"]),
        }
    )


def read(path: Path) -> Report:
    """A report from its file. Raises QmigError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise QmigError(f"{path}: {problem}") from None
    if not isinstance(document, dict):
        raise QmigError(f"{path}: not a report")
    try:
        return from_document(document)
    except QmigError as problem:
        raise QmigError(f"{path}: {problem}") from None


def merged(reports: Sequence[Report], command: Sequence[str]) -> Report:
    """The union: shards of one run, or runs on other builds. Of two rows of one id, the first counts."""
    rows: dict[tuple[str, str], Row] = {}
    targets: dict[str, Target] = {}
    cases: dict[str, Case] = {}
    expected: dict[int, Expected] = {}
    for report in reports:
        for row in report.rows:
            rows.setdefault((row.target, row.id), row)
        targets |= {target.name: target for target in report.targets}
        cases |= report.cases
        for one in report.expectations:
            before = expected.get(one.number)
            expected[one.number] = one if before is None else _together(before, one)
    return Report(
        started=min(report.started for report in reports),
        seconds=sum(report.seconds for report in reports),
        command=command,
        interrupted=any(report.interrupted for report in reports),
        targets=list(targets.values()),
        cases=cases,
        rows=list(rows.values()),
        expectations=[expected[number] for number in sorted(expected)],
    )


_STATES = ("expired", "fixed", "used", "unmatched")


def _together(first: Expected, second: Expected) -> Expected:
    """An expectation that one shard had no row for was used by another."""
    state = min(first.state, second.state, key=_STATES.index)
    return replace(first, state=state, rows=first.rows + second.rows)
