"""Every rule of `verify`: a migration damaged in one place breaks this rule only, the undamaged one none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from qmig.errors import RemoteProtocolError
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.session import MigrationSession
from qmig.legacy.verify import RULES, By, Known, Report, Severity, Status, Verifier
from qmig.testing import migrations as m
from qmig.testing.damaged import DAMAGED, UNREADABLE
from qmig.testing.migrations import Story

BASES: Final = (m.precopy, m.xbzrle, m.postcopy, m.recovery, m.multifd, m.mapped_ram)


def check(story: Story) -> Report:
    verifier = Verifier(story.known)
    for channel, event in story:
        verifier.check(channel, event)
    return verifier.finish()


def read(channels: dict[str, bytes], known: Known) -> Report:
    """The report on real bytes, as `qmig verify` comes to it."""
    session, verifier, left = MigrationSession(), Verifier(known), dict(channels)
    for channel in channels:
        session.open(channel)
    while True:
        try:
            told = session.next_event()
        except RemoteProtocolError as error:
            verifier.failed(error.channel or "main", error)
            continue
        if told is CLOSED:
            return verifier.finish()
        if told is NEED_DATA:
            for channel in session.wants():
                session.receive_data(channel, left.pop(channel, b""))
            continue
        verifier.check(told.channel, told.event)


def broken(report: Report) -> set[str]:
    return {finding.requirement for finding in report.findings}


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_an_undamaged_migration_breaks_nothing(base: Callable[[], Story]) -> None:
    story = base()
    report = check(story)
    assert report.findings == ()
    assert report.good
    assert not [row for row in report.outcomes if row.status is Status.BROKEN]
    # And it is one on the wire, too: what is read from its bytes is as good. The recovery's first
    # connection ends where it was cut.
    again = read({channel: story.bytes_of(channel) for channel in story.channels()}, story.known)
    assert [f for f in again.findings if f.severity is not Severity.NOTE] == []
    assert bool(again.findings) is (base is m.recovery)


def ids(case: object) -> str:
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize(("rule", "damaged"), DAMAGED, ids=ids)
def test_a_damaged_migration_breaks_one_rule(rule: str, damaged: Callable[[], Story]) -> None:
    report = check(damaged())
    assert broken(report) == {rule}, [str(finding) for finding in report.findings]
    found = {row.requirement: row for row in report.outcomes}
    assert found[rule].status is Status.BROKEN
    assert found[rule].count
    assert {finding.severity for finding in report.findings} == {RULES[rule].severity}
    assert report.good is (RULES[rule].severity is not Severity.ERROR)
    for finding in report.findings:
        assert finding.message
        assert rule in str(finding)


def test_every_rule_has_its_damage() -> None:
    covered = {rule for rule, _ in DAMAGED}
    assert covered == {rule.requirement for rule in RULES.values() if rule.by is By.CHECKER}


@pytest.mark.parametrize(("rule", "bytes_of"), UNREADABLE, ids=ids)
def test_what_the_reader_cannot_read_is_a_finding(
    rule: str, bytes_of: Callable[[], dict[str, bytes]]
) -> None:
    report = read(bytes_of(), Known())
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert rule in {finding.requirement for finding in errors}, [str(f) for f in report.findings]
    first = next(finding for finding in errors if finding.requirement == rule)
    assert first.offset is not None
    assert not report.good
    assert {row.requirement: row.status for row in report.outcomes}[rule] is Status.BROKEN


def test_every_rule_of_the_reader_has_its_bytes() -> None:
    assert {rule for rule, _ in UNREADABLE} == {r.requirement for r in RULES.values() if r.by is By.READER}
