"""``qmig conformance repeat FOLDER``: one play again, from its artefacts alone.

It needs the folder and a QEMU; neither a report nor a case. What came of it then is compared with what the
folder says came of it before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qmig.builds import find_or_install
from qmig.errors import EnvironmentProblem, QmigError
from qmig.testing.scenario import Unsupported
from qmig_conformance import artefacts
from qmig_conformance.destination import QemuDestination
from qmig_conformance.play import Seen
from qmig_conformance.report.excerpt import printable
from qmig_conformance.report.transcript import Transcripts, transcripts_of_play


def repeat(folder: Path, binary: Path | None = None, keep: Path | None = None) -> bool:
    """Plays it on the build that it was played on, or on `binary`; says what was seen, and whether the
    outcome is the same. Artefacts go to `keep`. Raises QmigError for a folder without a play,
    EnvironmentProblem without the build."""
    try:
        play, before = artefacts.load(folder)
        build = binary or artefacts.binary(folder)
    except (OSError, KeyError, ValueError) as problem:
        raise QmigError(f"{folder}: not the artefacts of a play: {problem}") from None
    target = QemuDestination(find_or_install(explicit=build))
    try:
        seen = target.play(play)
    except Unsupported as problem:
        raise EnvironmentProblem(f"{build} cannot play it: {problem}") from None
    if keep is not None:
        target.keep(keep)
    sys.stdout.write(told(seen, before, transcripts_of_play(play, seen.answered)))
    return seen.outcome == before


def told(seen: Seen, before: str, transcripts: Transcripts) -> str:
    """All that was seen, for a terminal."""
    same = "as before" if seen.outcome == before else f"before: {before}"
    parts = [
        ("sent to the destination", transcripts.to_destination),
        ("sent back", transcripts.to_source),
        ("what QEMU said", seen.words),
        ("outcome", f"{seen.outcome} ({same})\n{seen.evidence}"),
    ]
    lines = []
    for title, text in parts:
        lines += [f"{title}:", *(f"  {printable(line)}" for line in text.strip().split("\n"))]
    return "\n".join(lines) + "\n"
