"""Where a case meets its target: plays go through a rig, which keeps what came of them for the row."""

from __future__ import annotations

import shutil
from pathlib import Path

from qmig.testing.scenario import Scenario
from qmig_conformance.bracket import Bracket
from qmig_conformance.play import Destination, Good, Play, Seen
from qmig_conformance.report.transcript import Transcripts, transcripts_of_play


class Rig:
    """A destination for one case. `folder` is where its artefacts go, if they are kept."""

    def __init__(self, target: Destination, bracket: Bracket, folder: Path) -> None:
        self.version = target.version
        self.folder = folder
        self.last: Play | None = None
        self.seen: Seen | None = None
        self._target = target
        self._bracket = bracket
        self._good: Good | None = None

    def good(self, settings: Scenario) -> Good:
        """As the target has it, and loads it. Raises EnvironmentProblem where it does not."""
        self._bracket.open(settings)
        self._good = self._target.good(settings)
        return self._good

    def play(self, play: Play) -> Seen:
        """As the target does it."""
        self.last = play
        self.seen = None
        self.seen = self._target.play(play)
        return self.seen

    def transcripts(self) -> Transcripts:
        """What went over the connections of the last play."""
        assert self.last is not None
        assert self.seen is not None
        return transcripts_of_play(self.last, self.seen.answered, self._good)

    def keep(self) -> Path:
        """Writes the artefacts of the last play; their folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._target.keep(self.folder)
        return self.folder
