"""All checkers together: events in, a report out.

    verifier = Verifier(Known.from_meta(meta))
    verifier.check(channel, event)          # every event of every channel, each channel's in order
    verifier.failed(channel, error)         # a channel whose reader gave up
    report = verifier.finish()

Rule 1: the order between channels is that of `MigrationSession` where it matters (a discard and the pages
behind it); nothing else relies on it.
Rule 2: a second file header begins another attempt, judged on its own. The first may then end anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy.channels import parse_name
from qmig.legacy.header import FileHeader
from qmig.legacy.verify.checker import Checker, Journal
from qmig.legacy.verify.commands import CommandChecker
from qmig.legacy.verify.coverage import CoverageChecker
from qmig.legacy.verify.description import DescriptionChecker
from qmig.legacy.verify.facts import Facts, Known
from qmig.legacy.verify.findings import Finding, Outcome, Pile, Report, Severity, Sighting, Status
from qmig.legacy.verify.header import HeaderChecker
from qmig.legacy.verify.mapped import MappedRamChecker
from qmig.legacy.verify.multifd import MultifdChecker
from qmig.legacy.verify.postcopy import PostcopyChecker
from qmig.legacy.verify.ram import RamChecker
from qmig.legacy.verify.returnpath import ReturnPathChecker
from qmig.legacy.verify.rules import By, Rule
from qmig.legacy.verify.sections import SectionChecker

#: In this order: what an earlier one learns (who is on, how it ended), a later one may use in `finish`.
CHECKERS: Final[tuple[type[Checker], ...]] = (
    HeaderChecker,
    SectionChecker,
    DescriptionChecker,
    CommandChecker,
    PostcopyChecker,
    RamChecker,
    MappedRamChecker,
    CoverageChecker,
    MultifdChecker,
    ReturnPathChecker,
)

#: requirement -> rule
RULES: Final[dict[str, Rule]] = {
    rule.requirement: replace(rule, about=rule.about or checker.about)
    for checker in CHECKERS
    for rule in checker.rules
}
#: Statements that no recording can show, by the beginning of their ids, and why.
NOT_SHOWN: Final[dict[str, str]] = {
    "LEG-DST": "what a destination does with a stream is seen in a conformance run, not in the stream",
    "LEG-COL": "what COLO's sides say to each other is behind the stream that is read here",
    "LEG-RDM": "RDMA's messages are beside the stream",
    "LEG-VER": "what both sides must have in common is seen when they meet",
}

#: better first; attempts are merged to the worst
_WORSE: Final = (Status.NOT_APPLICABLE, Status.NOT_CHECKABLE, Status.HELD, Status.BROKEN)


class _Attempt:
    """One migration."""

    def __init__(self, known: Known) -> None:
        self.facts = Facts(known)
        self.journal = Journal()
        self.checkers = [kind(self.facts, self.journal) for kind in CHECKERS]
        self.errors: list[tuple[str, RemoteProtocolError]] = []
        self.main = ""  # the main channel that spoke last
        self.types: set[type[Record]] = set()
        self._handlers: dict[type[Record], list[Callable[[str, Any], None]]] = {}
        for checker in self.checkers:
            for kind, handler in checker.handlers().items():
                self._handlers.setdefault(kind, []).append(handler)

    def check(self, channel: str, event: Record) -> None:
        kind = type(event)
        self.types.add(kind)
        for handler in self._handlers.get(kind, ()):
            handler(channel, event)

    def finish(self, *, last: bool) -> tuple[list[Finding], list[Outcome]]:
        broken = any(parse_name(channel).kind == "main" for channel, _ in self.errors)
        if not broken or "eof" in self.facts.seen:
            for checker in self.checkers:
                checker.finish()
        findings = [self._failure(channel, error, last) for channel, error in self.errors]
        failed: dict[str, int] = {}
        for finding in findings:
            failed[finding.requirement] = failed.get(finding.requirement, 0) + 1
        outcomes = []
        for rule in RULES.values():
            found, outcome = self._judge(rule, failed.pop(rule.requirement, 0))
            findings += found
            outcomes.append(outcome)
        for requirement, count in failed.items():
            title = "what the reader could not read"
            outcomes.append(Outcome(requirement=requirement, title=title, status=Status.BROKEN, count=count))
        return findings, outcomes

    def _failure(self, channel: str, error: RemoteProtocolError, last: bool) -> Finding:
        """A reader's error as a finding. A channel that was cut and then taken up again broke no rule."""
        severity = Severity.ERROR
        cut = isinstance(error, TruncatedStream)
        if isinstance(error, UnsupportedFeature) or (cut and (not last or self._resumed(channel))):
            severity = Severity.NOTE
        elif isinstance(error, LimitExceeded):
            severity = Severity.WARNING
        return Finding(
            requirement=error.requirement,
            severity=severity,
            channel=channel,
            offset=error.offset,
            record=error.record,
            message=error.message,
        )

    def _resumed(self, channel: str) -> bool:
        """Whether a later main channel of this attempt took over."""
        return bool(self.main) and parse_name(channel).connection < parse_name(self.main).connection

    def _judge(self, rule: Rule, failed: int) -> tuple[list[Finding], Outcome]:
        def outcome(status: Status, count: int = 0, reason: str = "") -> Outcome:
            return Outcome(
                requirement=rule.requirement, title=rule.title, status=status, count=count, reason=reason
            )

        if rule.by is By.NOBODY:
            return [], outcome(Status.NOT_CHECKABLE, reason=rule.why_not)
        applies = rule.when.test(self.facts)
        if applies is None:
            return [], outcome(Status.NOT_CHECKABLE, reason=f"not known whether it is for: {rule.when.text}")
        if not applies:
            return [], outcome(Status.NOT_APPLICABLE, reason=f"for: {rule.when.text}")
        pile = self.journal.piles.get(rule.requirement, Pile())
        if not pile.count and not failed and rule.about and self.types.isdisjoint(rule.about):
            return [], outcome(Status.NOT_APPLICABLE, reason="there is nothing of the kind in it")
        severity = rule.severity
        if rule.known_defect is not None and rule.known_defect.test(self.facts) is not False:
            severity = Severity.NOTE
        found = [_finding(rule, severity, sighting) for sighting in pile.first]
        count = pile.count + failed
        return found, outcome(Status.BROKEN if count else Status.HELD, count)


def _finding(rule: Rule, severity: Severity, sighting: Sighting) -> Finding:
    return Finding(
        requirement=rule.requirement,
        severity=severity,
        channel=sighting.channel,
        offset=sighting.offset,
        record=sighting.record,
        message=sighting.message,
    )


class Verifier:
    """Checks the channels of a migration, or of several attempts at it."""

    def __init__(self, known: Known | None = None) -> None:
        self._known = known or Known()
        self._attempts = [_Attempt(self._known)]

    @property
    def facts(self) -> Facts:
        """What is known about the last attempt."""
        return self._attempts[-1].facts

    def check(self, channel: str, event: Record) -> None:
        """Takes the next event of a channel."""
        attempt = self._attempts[-1]
        name = parse_name(channel)
        if name.kind == "main":
            if type(event) is FileHeader and attempt.main not in ("", channel):
                if "postcopy" in attempt.facts.seen and "eof" not in attempt.facts.seen:
                    text = "a header, where a paused postcopy can only be resumed"
                    attempt.journal.add("LEG-HDR-004", Sighting(channel, event, text))
                attempt = _Attempt(self._known)
                self._attempts.append(attempt)
            attempt.main = channel
        attempt.check(channel, event)

    def failed(self, channel: str, error: RemoteProtocolError) -> None:
        """Takes the error that ended a channel."""
        self._attempts[-1].errors.append((channel, error))

    def finish(self) -> Report:
        """The findings, those of a kind together, and what came of every rule."""
        findings: list[Finding] = []
        outcomes: dict[str, Outcome] = {}
        for attempt in self._attempts:
            found, rows = attempt.finish(last=attempt is self._attempts[-1])
            findings += found
            for row in rows:
                before = outcomes.get(row.requirement)
                outcomes[row.requirement] = row if before is None else _worse(before, row)
        return Report(findings=tuple(findings), outcomes=tuple(outcomes.values()))


def _worse(first: Outcome, second: Outcome) -> Outcome:
    worst = max(first, second, key=lambda row: _WORSE.index(row.status))
    return Outcome(
        requirement=worst.requirement,
        title=worst.title,
        status=worst.status,
        count=first.count + second.count,
        reason=worst.reason,
    )


def all_rules() -> Iterator[Rule]:
    """Every rule, by requirement."""
    yield from sorted(RULES.values(), key=lambda rule: rule.requirement)
