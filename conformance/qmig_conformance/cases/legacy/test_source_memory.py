"""The guest's memory: what was rebuilt from the stream against what the source holds."""

from __future__ import annotations

from qmig_conformance.case import NotShown, Role, Unmet, case
from qmig_conformance.recording import Recording


@case("legacy.source.readable", requirement="LEG-GEN-001", roles=Role.SOURCE)
def test_readable(recording: Recording) -> None:
    """The whole stream is read, on every channel, and written back byte for byte."""
    judgement = recording.judgement
    if judgement.error and not recording.meta.get("cut"):
        raise Unmet(expected="a stream that is read to its end", actual=judgement.error)
    if judgement.differs:
        raise Unmet(expected="the same bytes from the events", actual=judgement.differs)


@case("legacy.source.memory", requirement="LEG-RAM-052", roles=Role.SOURCE)
def test_memory(recording: Recording) -> None:
    """Rebuilt RAM equals the source's memory, read over QMP after the migration, byte for byte."""
    judgement = recording.judgement
    if not recording.meta.get("memory"):
        raise NotShown("the recording has no copy of the guest's memory")
    if judgement.memory_differences:
        raise Unmet(
            expected="every RAM block as the source holds it", actual="; ".join(judgement.memory_differences)
        )
