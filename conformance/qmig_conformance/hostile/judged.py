"""What a swept stream is held to.

Nothing may end a destination by a signal or leave its monitor without an answer, whatever comes
(LEG-DST-165). Where a statement says more about what was done to the stream, that holds as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qmig_conformance.play import REFUSED, Outcome

ROBUST: Final = "LEG-DST-165"
SUCCEED: Final = frozenset({Outcome.SUCCEED})
WAITS: Final = frozenset({Outcome.WAITS})
PAUSED: Final = frozenset({Outcome.POSTCOPY_PAUSED})


@dataclass(frozen=True, slots=True)
class Held:
    """The statement, the outcomes that it allows (none: any in which nothing crashes or blocks), and what the
    stream violates."""

    requirement: str = ROBUST
    outcomes: frozenset[Outcome] = frozenset()
    violates: tuple[str, ...] = ()


def refused(requirement: str, *violates: str) -> Held:
    """The load fails, with a reason."""
    return Held(requirement, REFUSED, violates)


#: (kind of record, field) -> the statement by which any other value fails the load
FIELDS: Final[dict[tuple[str, str], str]] = {
    ("FileHeader", "magic"): "LEG-DST-011",
    ("FileHeader", "version"): "LEG-DST-013",
    ("Configuration", "section_type"): "LEG-DST-014",
    ("SectionFooter", "section_type"): "LEG-DST-033",
    ("SectionFooter", "section_id"): "LEG-DST-033",
    ("SectionStart", "version_id"): "LEG-DST-032",
    ("ConfigurationPageBits", "target_page_bits"): "LEG-DST-017",
}
