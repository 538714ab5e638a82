"""One migration, as it was seen: every channel's bytes, the guest's memory, what QEMU said.

A recording of a build is made when the first case asks for it. It lies in the report's folder in
the form that `qmig decode` and `qmig verify` take (channel files and `meta.json`), so that every
finding can be repeated without a QEMU.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qmig.builds import Qemu
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.scenario import Scenario
from qmig_conformance import capture
from qmig_conformance.judge import Judgement, judge
from qmig_conformance.options import Judged
from qmig_conformance.report.transcript import Transcripts, transcripts_of_folder
from qmig_conformance.scenarios import SCENARIOS
from qmig_conformance.target import say


class Recording:
    """A migration to be judged; `folder` holds its files."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        target: str,
        scenario: Scenario | None = None,
        qemu: Qemu | None = None,
        vector: Vector | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.folder = folder
        self.artefacts = folder
        self.main = folder / "main.bin"
        self._scenario = scenario
        self._qemu = qemu
        self._vector = vector
        self._judgement: Judgement | None = None

    @functools.cached_property
    def _problem(self) -> Exception | None:
        """Makes the recording; a failure is kept, since every case that needs it meets it."""
        if self._vector is not None:
            capture.unpack(self._vector, self.folder)
            return None
        assert self._scenario is not None
        assert self._qemu is not None
        say(f"migrating: {self.name} ({self._scenario.what})")
        try:
            capture.record(self._qemu, self._scenario, self.folder)
        except Exception as problem:  # noqa: BLE001 (raised again in each case that needs the recording)
            return problem
        return None

    def _need(self) -> None:
        if self._problem is not None:
            raise self._problem.with_traceback(None)

    @functools.cached_property
    def meta(self) -> Mapping[str, Any]:
        """`meta.json` of the recording."""
        self._need()
        meta: Mapping[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        return meta

    @functools.cached_property
    def transcripts(self) -> Transcripts:
        """What went over its channels; empty where there is no recording."""
        return Transcripts("", "") if self._problem is not None else transcripts_of_folder(self.folder)

    @property
    def words(self) -> str:
        """What QEMU said."""
        if self._problem is not None:
            return ""
        return str(self.meta.get("outcome", {}).get("source", {}).get("stderr", ""))

    @property
    def judgement(self) -> Judgement:
        """What the reader, the invariants and the rebuilt memory say."""
        self._need()
        if self._judgement is None:
            try:
                self._judgement = judge(self.folder, self.meta)
            except Exception as problem:
                self._problem = problem
                raise
        return self._judgement


def recordings_of(judged: Judged, folder: Path) -> list[Recording]:
    """What there is to judge: one recording per scenario, or those of the repository."""
    name = judged.target.name
    if judged.qemu is not None:
        own = folder / judged.target.folder
        return [
            Recording(scenario.name, own / scenario.name, target=name, scenario=scenario, qemu=judged.qemu)
            for scenario in SCENARIOS
        ]
    found = []
    for vector in load_vectors("legacy/recordings"):
        what = vector.id.partition("#")[2]
        found.append(Recording(what, folder / what, target=name, vector=vector))
    return found
