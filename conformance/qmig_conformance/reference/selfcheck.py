"""The suite held to reference peers: an honest one passes, and each case fails on one with a fault.

A pytest plugin beside the suite's own: what a case has seen of the honest peer is shown to it again as each
faulty peer would have it. Whether the honest one is good is the suite's own verdict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from qmig.legacy.verify import Known, Verifier
from qmig.testing.damaged import DAMAGED, UNREADABLE
from qmig.testing.scenario import Scenario
from qmig_conformance.case import Case, NotShown, Verdict, verdict_of
from qmig_conformance.judge import KNOWN, Judgement, judge_channels
from qmig_conformance.play import Good, Play, Seen
from qmig_conformance.plugin import case_of
from qmig_conformance.reference.faults import destination_faults, statement_of
from qmig_conformance.report.model import BAD, Report
from qmig_conformance.rig import Rig

#: part of the faults that has to be caught
CAUGHT: Final = 0.95


@dataclass(slots=True)
class Shown:
    """A case that came to a verdict on the honest peer, and how it is called again."""

    case: Case
    call: Callable[..., None]
    arguments: Mapping[str, Any]
    #: of a destination; None for a source
    rig: Rig | None
    seen: Seen | None


@dataclass(slots=True)
class Checked:
    """What came of it: cases by fault, and faults by case."""

    caught: dict[str, set[str]] = field(default_factory=dict)
    tripped: dict[str, set[str]] = field(default_factory=dict)

    def note(self, fault: str, case: str, *, fails: bool) -> None:
        self.caught.setdefault(fault, set())
        self.tripped.setdefault(case, set())
        if fails:
            self.caught[fault].add(case)
            self.tripped[case].add(fault)

    @property
    def missed(self) -> list[str]:
        """Faults that no case fails on."""
        return sorted(fault for fault, cases in self.caught.items() if not cases)

    @property
    def untripped(self) -> list[str]:
        """Cases that fail on no fault."""
        return sorted(case for case, faults in self.tripped.items() if not faults)

    def good(self) -> bool:
        enough = len(self.missed) <= (1 - CAUGHT) * len(self.caught)
        return bool(self.caught) and enough and not self.untripped


class SelfCheck:
    """The plugin."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        result = yield
        names = inspect.signature(pyfuncitem.obj).parameters
        given = {name: pyfuncitem.funcargs[name] for name in names}
        rig = given.get("destination")
        declared, call = case_of(pyfuncitem), pyfuncitem.obj
        if isinstance(rig, Rig):
            if rig.seen is not None:
                self.shown.append(Shown(declared, call, given, rig, rig.seen))
        elif all(one.case.id != declared.id for one in self.shown):
            self.shown.append(Shown(declared, call, given, None, None))
        return result

    def check(self) -> Checked:
        """Shows every faulty peer to every case."""
        checked = Checked()
        destinations = [shown for shown in self.shown if shown.seen is not None]
        statements = {statement_of(shown.seen) for shown in destinations if shown.seen} - {""}
        for fault in destination_faults(statements):
            for shown in destinations:
                assert shown.seen is not None
                changed = fault.change(shown.seen)
                if changed is not None:
                    stub = _Stub(shown, changed)
                    verdict = _verdict(shown, {**shown.arguments, "destination": stub})
                    checked.note(fault.name, shown.case.id, fails=verdict)
        sources = [shown for shown in self.shown if shown.seen is None]
        for name, judgement in source_faults():
            recording = SimpleNamespace(judgement=judgement, meta={"memory": {"pc.ram": {}}}, name=name)
            for shown in sources:
                fails = _verdict(shown, {**shown.arguments, "recording": recording})
                checked.note(name, shown.case.id, fails=fails)
        return checked


class _Stub:
    """A destination of which this was seen."""

    version = ""

    def __init__(self, shown: Shown, seen: Seen) -> None:
        self._rig, self._seen = shown.rig, seen

    def good(self, settings: Scenario) -> Good:
        assert self._rig is not None
        return self._rig.good(settings)

    def play(self, play: Play) -> Seen:
        return self._seen

    def keep(self, folder: Path) -> None:
        raise NotImplementedError("nothing was played")


def _verdict(shown: Shown, arguments: Mapping[str, Any]) -> bool:
    """Whether the case says that something is not met, or tells of what is no more than a note."""
    try:
        shown.call(**arguments)
    except Exception as problem:  # noqa: BLE001 (every way to end is a verdict)
        if isinstance(problem, NotShown) and str(problem).startswith(KNOWN):
            return True
        return verdict_of(problem, shown.case.level) in {Verdict.FAIL, Verdict.NON_STRICT}
    return False


def source_faults() -> Iterator[tuple[str, Judgement]]:
    """Migrations of a source that does one thing wrong, judged."""
    for number, (rule, story_of) in enumerate(DAMAGED):
        story = story_of()
        verifier = Verifier(story.known)
        for channel, event in story:
            verifier.check(channel, event)
        report = verifier.finish()
        outcomes = {outcome.requirement: outcome for outcome in report.outcomes}
        yield (
            f"source {number}: breaks {rule}",
            Judgement(
                error="", differs="", findings=report.findings, outcomes=outcomes, memory_differences=()
            ),
        )
    for rule, bytes_of in UNREADABLE:
        yield f"source: bytes that break {rule}", judge_channels(bytes_of(), Known())
    whole = Judgement(error="", differs="", findings=(), outcomes={}, memory_differences=("it differs",))
    yield "source: memory is not what was sent", whole
    yield (
        "source: the same is written otherwise",
        Judgement(error="", differs="offset 0", findings=(), outcomes={}, memory_differences=()),
    )


def told(report: Report, checked: Checked) -> Iterator[str]:
    """The page, line by line."""
    bad = [row for row in report.rows if row.verdict in BAD]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())
    caught = len(checked.caught) - len(checked.missed)
    yield "# The suite held to reference peers"
    yield ""
    yield "Written by `make self-check`. What a fault is: `conformance/qmig_conformance/reference/faults.py`."
    yield ""
    yield f"* Honest peer: {counts}."
    yield f"* Seeded faults: {len(checked.caught)}, caught by at least one case: {caught}."
    yield f"* Cases that came to a verdict: {len(checked.tripped)}; {len(checked.untripped)} fail on none."
    for title, names in (
        ("The honest peer does not pass", [f"{row.id}: {row.actual}" for row in bad]),
        ("Faults that nothing catches", checked.missed),
        ("Cases that fail on nothing", checked.untripped),
    ):
        if names:
            yield from ("", f"## {title}", "", *(f"* {name}" for name in names))
