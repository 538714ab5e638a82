"""Reports to try what is made of them: a small one that is hostile wherever it can be, and a large one."""

from __future__ import annotations

from typing import Any

from qmig_conformance.case import Case, Level, Profile, Role, Verdict
from qmig_conformance.report.model import Expected, Report, Row, Target, to_document

HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'><!-- "
    "\ud800 \x1b[2J \u2028 `x` javascript:window.hacked=1 "
)
VERSIONS = ("5.2.0", "7.2.22", "10.0.13", "11.1.3")
NAMES = (HOSTILE, "QEMU 7.2.22", "QEMU 10.0.13", "QEMU 11.1.3")
OLDEST, _, OLD, NEW = NAMES
MAGIC, LENGTH, FLAG, ORDER, DEVICES = (
    "legacy.destination.header.wrong-magic",
    "legacy.destination.ram.block-too-long",
    "legacy.destination.ram.unknown-flag",
    "legacy.source.in-order",
    "legacy.pair.matrix.devices",
)


def declared(name: str, requirement: str, roles: Role = Role.DESTINATION, **more: Any) -> Case:
    title = f"what {name.rpartition('.')[2]} is about"
    return Case(
        **{"id": name, "title": title, "requirement": requirement, "level": Level.MUST, "roles": roles} | more
    )


def row(case: str, target: str, verdict: Verdict = Verdict.PASS, **more: Any) -> Row:
    return Row(
        case=case, target=target, verdict=verdict, role="destination", level="must", seconds=0.5, **more
    )


def made(cases: list[Case], rows: list[Row], **more: Any) -> dict[str, Any]:
    targets = [
        Target(name=name, kind="qemu", version=version, package="1:x", binary="/bin/q")
        for name, version in zip(NAMES, VERSIONS, strict=True)
    ]
    report = Report(
        started="2026-11-25T11:10:00+00:00", seconds=1, command=["qmig", HOSTILE], targets=targets,
        cases={case.id: case for case in cases}, rows=rows, **more,
    )  # fmt: skip
    return to_document(report)


def expected(number: int, state: str, link: str) -> Expected:
    return Expected(
        number=number, case=f"legacy.{state}", versions="7.2", message=HOSTILE, reason=HOSTILE, link=link,
        expires="2027-01-01", state=state, rows=1,
    )  # fmt: skip


def length_row(name: str) -> Row:
    """A case that fails on the newest build only."""
    common: dict[str, Any] = {
        "stderr": f"{name}: Size too large",
        "repeat": f"qmig conformance repeat report/{name}/x",
    }
    sent = "\n".join([
        "steps: connect main", f"0x00000000  machine {name}", f"{len(name):#010x}  !! too long [LEG-RAM-010]",
    ])  # fmt: skip
    if name != NEW:
        return row(LENGTH, name, outcome="fail-dest-quit-err", sent=sent, received="RpShut value=1", **common)
    return row(
        LENGTH, name, Verdict.FAIL, expected="refused with a reason", actual="it waits", outcome="waits",
        sent=sent, artefacts="new/length", **common,
    )  # fmt: skip


def hostile() -> dict[str, Any]:
    """Five cases on four targets; one of the builds and one of the cases are hostile."""
    cases = [
        declared(MAGIC, "LEG-DST-011", violates=("LEG-HDR-001",)),
        declared(LENGTH, "LEG-DST-050", level=Level.SHOULD),
        declared(FLAG, "LEG-DST-051", profile=Profile.FULL, title=HOSTILE),
        declared(ORDER, "LEG-RAM-031", Role.SOURCE),
        declared(DEVICES, "LEG-GEN-001", Role.PAIR),
    ]
    texts = ("expected", "actual", "outcome", "stderr", "detail", "repeat", "sent", "received")
    rows = [
        *(row(MAGIC, name, outcome="fail-dest-quit-err") for name in NAMES),
        *map(length_row, NAMES),
        row(FLAG, NAMES[1], Verdict.WAIVED, waiver=1, artefacts="../../etc", **dict.fromkeys(texts, HOSTILE)),
        row(FLAG, NEW, Verdict.INFORMATIONAL, actual="no such flag there"),
        row(ORDER, OLD, variant="plain"),
        row(ORDER, OLD, Verdict.NON_STRICT, variant="multifd"),
    ]
    for name in NAMES[2:]:
        rows += [
            row(DEVICES, name, variant="q35/none/idle"),
            row(DEVICES, name, Verdict.ERROR, variant="q35/esp/idle", detail="Traceback: x"),
        ]
    rows.append(row("test_of_a_worker_that_died", NEW, Verdict.ERROR, detail="it died"))
    return made(cases, rows, expectations=[
        expected(1, "used", "javascript:window.hacked=1"), expected(2, "unmatched", "https://example.org/1"),
        expected(3, "expired", "LEG-DST-050"),
    ])  # fmt: skip


def large() -> dict[str, Any]:
    """1,500 cases on 4 targets, each with 40 lines of transcript of which three are nobody else's."""
    cases = [declared(f"legacy.destination.ram.n{number}", "LEG-DST-050") for number in range(1500)]
    common = [
        f"0x{number:08x}  SectionFull {number} some-device, instance 0, version 3" for number in range(37)
    ]
    return made(cases, [
        row(
            case.id, name, expected="a" * 40, actual=f"{case.id} {number}", stderr=f"QEMU {number} {case.id}",
            sent="\n".join([*common, *(f"{case.id} {number} {line} {'x' * 70}" for line in range(3))]),
            received="RpShut value=1",
        )
        for case in cases for number, name in enumerate(NAMES)
    ])  # fmt: skip
