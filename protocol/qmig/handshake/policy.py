"""What a side makes of a verdict, and which channels an agreed set means. Pure functions.

Source: `spec/v2`, chapters "Comparison" (HS-CMP: levels, admission) and "Channels" (HS-CHN: plan).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qmig import _cbor
from qmig._cbor import Value
from qmig.errors import LocalProtocolError
from qmig.handshake import limits
from qmig.handshake.codes import ChannelKind, Level
from qmig.handshake.events import PlanEntry
from qmig.handshake.messages import Finding, Verdict

BEFORE_READY = 0
LATER = 1
#: what a channel can be (HS-CHN-002)
KINDS = frozenset(kind.value for kind in ChannelKind)

_ORDER = {level.value: at for at, level in enumerate(Level)}


def severity(level: str) -> int:
    """Levels by how bad they are; one that is not known is as bad as the worst (HS-CMP-002)."""
    return _ORDER.get(level, _ORDER[Level.INCOMPATIBLE])


def worst(levels: Sequence[str]) -> str:
    """The worst of some levels; `ok` of none."""
    return max(levels, key=severity, default=Level.OK.value)


@dataclass(frozen=True, slots=True)
class Admission:
    """A finding that the operator lets pass: `--allow RULE[:PATH]`."""

    rule: str
    path: str | None = None

    def covers(self, finding: Finding) -> bool:
        return finding.rule == self.rule and (self.path is None or finding.path == self.path)


@dataclass(frozen=True, slots=True)
class Decision:
    """What S makes of a verdict: the indices it admits, and the findings that stand in the way."""

    admitted: tuple[int, ...]
    standing: tuple[Finding, ...]

    @property
    def go(self) -> bool:
        return not self.standing


def decide(verdict: Verdict, allowed: Sequence[Admission], *, strict: bool) -> Decision:
    """`incompatible` refuses unless admitted; with `strict`, so do `warn` and `unknown` (decision 6)."""
    limit = severity(Level.UNKNOWN if strict else Level.INCOMPATIBLE)
    admitted, standing = [], []
    for index, finding in enumerate(verdict.findings):
        if severity(finding.level) < limit:
            continue
        if any(admission.covers(finding) for admission in allowed):
            admitted.append(index)
        else:
            standing.append(finding)
    told = worst([finding.level for finding in verdict.findings])
    # A verdict that is worse than all of its findings speaks of some that did not fit in (HS-CMP-008).
    if severity(verdict.level) >= limit and severity(verdict.level) > severity(told):
        standing.append(Finding(rule="U01", level=verdict.level, text="findings that were not told"))
    return Decision(tuple(admitted), tuple(standing))


def suffices(findings: Sequence[Finding], admitted: Sequence[int], *, level: str, strict: bool) -> bool:
    """D's look at COMMIT: whether every finding in the way is admitted. A strict D admits none; nobody can
    admit what was not told (`level` is that of all findings, told or not)."""
    limit = severity(Level.UNKNOWN if strict else Level.INCOMPATIBLE)
    told = worst([finding.level for finding in findings])
    if severity(level) >= limit and (strict or severity(level) > severity(told)):
        return False
    bad = {index for index, finding in enumerate(findings) if severity(finding.level) >= limit}
    return bad <= set(admitted)


def verdict(findings: Sequence[Finding], judged: bytes) -> Verdict:
    """The VERDICT on a description (`judged`: its digest): findings sorted, those that do not fit counted by
    rule (HS-CMP-003, HS-CMP-004)."""
    ordered = sorted(findings, key=_place)
    level = worst([finding.level for finding in ordered])
    kept = len(ordered[: limits.FINDINGS])
    while True:
        counts = collections.Counter(finding.rule for finding in ordered[kept:])
        told = Verdict(
            level=level, findings=tuple(ordered[:kept]), counts=dict(counts) or None, sha256=judged
        )
        try:
            told.encode()
        except LocalProtocolError:
            if not kept:
                raise
            kept //= 2
        else:
            return told


def told(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """As many of the findings as an ABORT holds."""
    kept = tuple(findings[:16])
    while kept and len(_cbor.encode([finding.write() for finding in kept])) > limits.MESSAGE_END // 2:
        kept = kept[: len(kept) // 2]
    return kept


def _place(finding: Finding) -> tuple[int, bytes, str]:
    path = finding.path or ""
    return -severity(finding.level), path.encode() if isinstance(path, str) else path, finding.rule


#: name -> facts that its being agreed on means for the tables
_FACTS: Mapping[str, tuple[str, ...]] = {
    "handover.v1": ("handover",),
    "resume.v1": ("resume", "retry"),
    "recheck.v1": ("recheck",),
    "channel.mux": ("mux",),
    "postcopy-ram": ("can-postcopy",),
    "description.peer": ("description.peer",),
}


def facts_of(agreed: Mapping[str, Value]) -> set[str]:
    """What the tables have to know of an agreed set."""
    return {fact for name, facts in _FACTS.items() if name in agreed for fact in facts}


def plan_for(agreed: Mapping[str, Value]) -> tuple[PlanEntry, ...]:
    """The channels that an agreed set means: main, multifd 0 to n-1, and preempt when it is needed."""
    plan: list[PlanEntry] = [("main", 0, BEFORE_READY)]
    plan += [("multifd", index, BEFORE_READY) for index in range(agreed.get("multifd-channels", 0))]
    if "postcopy-preempt" in agreed:
        plan.append(("preempt", 0, LATER))
    return tuple(plan)


def unexpected(plan: Sequence[PlanEntry], agreed: Mapping[str, Value]) -> str:
    """What is wrong with a plan: an unknown kind, an entry twice, main missing; empty if nothing is."""
    places = [(kind, index) for kind, index, *_ in plan]
    for kind, index in places:
        if kind not in KINDS:
            return f"channel kind {kind!a} is not known"
        if places.count((kind, index)) > 1:
            return f"channel {kind}/{index} is planned twice"
    wanted = {(kind, index): when for kind, index, when in plan_for(agreed)}
    given = {(kind, index): when for kind, index, when, *_ in plan}
    if wanted != given:
        odd = sorted(set(wanted.items()) ^ set(given.items()))[0][0]
        return f"channel {odd[0]}/{odd[1]} does not go with what is agreed"
    return ""
