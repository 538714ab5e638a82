"""pytest plugin of the suite: makes a `Row` of every case played; the controlling process makes the report.

Workers (pytest-xdist) play, the controller listens: rows travel as user properties of test reports. Without
workers one process is both. Cases never fail as tests do; what is bad is in the rows.

PYTEST_DONT_REWRITE: the command line imports this before pytest does.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
import traceback
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from qmig_conformance.bracket import Bracket
from qmig_conformance.case import Case, Profile, Unmet, Verdict, verdict_of
from qmig_conformance.destination import QemuDestination
from qmig_conformance.options import Judged, Options
from qmig_conformance.play import Destination
from qmig_conformance.recording import Recording, recordings_of
from qmig_conformance.reference.destination import ReferenceDestination
from qmig_conformance.report.model import Row, case_values
from qmig_conformance.rig import Rig

PROPERTY: Final = "qmig-row"
#: characters kept of what a build said
WORDS: Final = 4000
#: so many groups are made of the hostile streams of one chapter
PIECES: Final = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--qmig-options", default="", help="of `qmig conformance`")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(case): a conformance case")
    text = config.getoption("--qmig-options")
    config.pluginmanager.register(Suite(Options.from_text(text) if text else Options()), "qmig-suite")


class Suite:
    """What plays."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._recordings = {
            judged.target.name: recordings_of(judged, options.report) for judged in options.targets
        }
        self.destinations: dict[str, tuple[Destination, Bracket]] = {}
        #: nothing comes behind the case that is played
        self._at_end = False
        #: of the case that is played
        self._rig: Rig | None = None

    # -- what there is to play --------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "recording" in metafunc.fixturenames:
            found = [one for recordings in self._recordings.values() for one in recordings]
            ids = [name_of(one.target, one.name) for one in found]
            metafunc.parametrize("recording", found, ids=ids)
        elif "destination" in metafunc.fixturenames:
            kinds = {"qemu"} if "source" in metafunc.fixturenames else {"qemu", "reference"}
            names = [one.target.name for one in self.options.targets if one.target.kind in kinds]
            metafunc.parametrize("target", names or [""], ids=[name_of(name) for name in names or [""]])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._selected(item)]

    def _selected(self, item: pytest.Item) -> bool:
        declared, options = case_of(item), self.options
        ids = (id_of(item), *declared.requirements)
        if not any(text.startswith(options.select) for text in ids):
            return False
        if options.list_only:
            return True
        number, count = options.shard
        return (
            (recording_of(item) is not None or _param(item, "target") != "")  # a target has this role
            and declared.roles in options.roles
            and (declared.profile is Profile.DEFAULT or options.profile is Profile.FULL)
            and zlib.crc32(group_of(item.nodeid).encode()) % count == number - 1
        )

    # -- one case -----------------------------------------------------------------------------------------

    @pytest.fixture
    def destination(self, target: str, request: pytest.FixtureRequest) -> Iterator[Rig]:
        """The target as a destination."""
        if target not in self.destinations:
            made = _destination(self._judged(target))
            self.destinations[target] = made, Bracket(made)
        folder = self.options.report / self._judged(target).target.folder / case_of(request.node).id
        self._rig = Rig(*self.destinations[target], folder)
        yield self._rig
        self._rig = None

    @pytest.fixture
    def source(self, destination: Rig) -> Rig:
        """The target as a source that is answered."""
        return destination

    def _judged(self, target: str) -> Judged:
        return next(one for one in self.options.targets if one.target.name == target)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, nextitem: pytest.Item | None) -> None:
        self._at_end = nextitem is None

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        started = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except Exception as problem:  # noqa: BLE001 (every way to end is a verdict)
            error = problem
        row = self._row(pyfuncitem, error, time.perf_counter() - started)
        rows = [(row, case_of(pyfuncitem)), *(self.brackets() if self._at_end else ())]
        for row, declared in rows:
            played = {"row": dataclasses.asdict(row), "case": case_values(declared)}
            pyfuncitem.user_properties.append((PROPERTY, json.dumps(played)))
        return True

    def brackets(self) -> Iterator[tuple[Row, Case]]:
        """What does not load at the end, though it did at the beginning."""
        for name, (_, bracket) in self.destinations.items():
            for control, problem in bracket.close():
                declared = control.case
                yield (
                    Row(
                        case=declared.id,
                        variant="at the end",
                        target=name,
                        role=str(declared.roles),
                        level=str(declared.level),
                        verdict=Verdict.ERROR,
                        expected="it loads, as it did before the wrong streams",
                        actual=problem,
                    ),
                    declared,
                )

    def _row(self, item: pytest.Function, error: Exception | None, seconds: float) -> Row:
        declared = case_of(item)
        verdict = verdict_of(error, declared.level)
        recording = recording_of(item)
        row = Row(
            case=declared.id,
            variant=recording.name if recording else "",
            target=recording.target if recording else _param(item, "target"),
            role=str(declared.roles),
            level=str(declared.level),
            verdict=verdict,
            expected=error.expected if isinstance(error, Unmet) else "",
            actual=error.actual if isinstance(error, Unmet) else _one_line(error),
            detail="".join(traceback.format_exception(error)) if verdict is Verdict.ERROR else "",
            artefacts=self._beside(recording.artefacts) if recording else "",
            seconds=round(seconds, 4),
        )
        if recording is not None and verdict not in {Verdict.UNSUPPORTED, Verdict.INFORMATIONAL}:
            return _recorded(row, recording)
        rig = self._rig
        return self._played(row, rig) if rig is not None and rig.seen is not None else row

    def _played(self, row: Row, rig: Rig) -> Row:
        assert rig.seen is not None
        transcripts = rig.transcripts()
        kept = row.verdict is not Verdict.PASS or self.options.keep
        artefacts = rig.keep() if kept else None
        return dataclasses.replace(
            row,
            outcome=str(rig.seen.outcome),
            sent=transcripts.to_destination,
            received=transcripts.to_source,
            stderr=rig.seen.words[-WORDS:],
            actual=row.actual or rig.seen.evidence,
            artefacts=self._beside(artefacts) if artefacts else "",
            repeat=shlex.join(["qmig", "conformance", "repeat", str(artefacts)]) if artefacts else "",
        )

    def _beside(self, folder: Path) -> str:
        """Its path from the report on."""
        return folder.relative_to(self.options.report).as_posix()


def _recorded(row: Row, recording: Recording) -> Row:
    transcripts = recording.transcripts
    return dataclasses.replace(
        row,
        sent=transcripts.to_destination,
        received=transcripts.to_source,
        stderr=recording.words[-WORDS:],
        repeat=shlex.join(["qmig", "verify", str(recording.main)]),
    )


def _destination(judged: Judged) -> Destination:
    return QemuDestination(judged.qemu) if judged.qemu is not None else ReferenceDestination()


def case_of(item: pytest.Item) -> Case:
    """What the test function, or its parameter, was declared as."""
    marker = item.get_closest_marker("case")
    if marker is None:
        raise pytest.UsageError(f"{item.nodeid} is no case: it lacks @case")
    declared: Case = marker.args[0]
    return declared


def recording_of(item: pytest.Item) -> Recording | None:
    """The recording that the item judges."""
    found = _param(item, "recording")
    return found if isinstance(found, Recording) else None


def id_of(item: pytest.Item) -> str:
    """The case's id, with the recording it was judged on."""
    recording = recording_of(item)
    return f"{case_of(item).id}@{recording.name}" if recording else case_of(item).id


def name_of(target: str, scenario: str = "") -> str:
    """The part of a test's id by which `group_of` tells what it shares with others."""
    return f"{target}|{scenario}|"


def group_of(nodeid: str) -> str:
    """Items of one group are played by one worker, in one shard: they share what is made for them."""
    target, scenario, rest = parts_of(nodeid)
    if scenario:
        return f"{target} {scenario}"
    chapter = ".".join(rest.split(".")[:3])
    return f"{target} {chapter} {zlib.crc32(rest.encode()) % PIECES}"


def parts_of(nodeid: str) -> tuple[str, str, str]:
    """Target, scenario and case, or statement, of a test's id."""
    target, _, more = nodeid.partition("[")[2].removesuffix("]").partition("|")
    scenario, _, rest = more.partition("|")
    return target, scenario, rest.removeprefix("-")


def _param(item: pytest.Item, name: str) -> Any:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(name, "") if callspec else ""


def _one_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0] if error is not None else ""
