"""What a source sends, held against every sentence of the specification that a recording can show.

Sentences that no recording shows (`By.NOBODY`) are no cases.
"""

from __future__ import annotations

import pytest

from qmig.legacy.verify import RULES, By, Rule, Severity, Status
from qmig_conformance.case import Case, Level, NotShown, Role, Unmet
from qmig_conformance.judge import KNOWN
from qmig_conformance.recording import Recording


def declared(rule: Rule) -> Case:
    """The case that a rule is."""
    return Case(
        id=f"legacy.source.{rule.requirement.lower()}",
        requirement=rule.requirement,
        level=Level.MUST if rule.severity is Severity.ERROR else Level.SHOULD,
        roles=Role.SOURCE,
        title=rule.title,
    )


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, marks=pytest.mark.case(declared(rule)), id=rule.requirement)
        for rule in RULES.values()
        if rule.by is not By.NOBODY
    ],
)
def test_invariant(rule: Rule, recording: Recording) -> None:
    judgement = recording.judgement
    outcome = judgement.outcomes[rule.requirement]
    if outcome.status is Status.BROKEN:
        first = next(f for f in judgement.findings if f.requirement == rule.requirement)
        if first.severity is Severity.NOTE:
            raise NotShown(f"{KNOWN}: {first}")
        raise Unmet(expected=rule.title, actual=f"{first} ({outcome.count} in all)")
    if outcome.status is not Status.HELD:
        raise NotShown(f"{outcome.status}: {outcome.reason}")
