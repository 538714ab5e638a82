"""What a destination answers on the return path, to good streams and to one that is cut."""

from __future__ import annotations

from typing import Any

from qmig.legacy.returnpath import RpPong, RpShut
from qmig_conformance import expect
from qmig_conformance.case import NotShown, Role, Unmet, case
from qmig_conformance.hostile import answers, families, recovery
from qmig_conformance.hostile.families import Cut, Family
from qmig_conformance.hostile.script import Script
from qmig_conformance.play import REFUSED, Destination, Outcome, Seen

PAGE = 4096
DESTINATION = Role.DESTINATION


def played(
    destination: Destination, family: Family, cut: Cut | None, *outcomes: Outcome
) -> tuple[Script, Seen]:
    """The good stream, or what is left of it, with one of these outcomes."""
    good = destination.good(family.settings)
    script = family.script(good)
    seen = destination.play(family.play(good, script, cut))
    if seen.outcome not in outcomes:
        raise Unmet(expected=" or ".join(outcomes), actual=expect.described(seen))
    return script, seen


def precopy(destination: Destination) -> tuple[Script, list[Any]]:
    script, seen = played(destination, families.MAIN, None, Outcome.SUCCEED)
    return script, answers.messages(seen.answered["main"])


def postcopy(destination: Destination) -> tuple[Script, list[Any]]:
    script, seen = played(destination, families.POSTCOPY, None, Outcome.SUCCEED)
    return script, answers.messages(seen.answered["main"])


def recovered(destination: Destination) -> tuple[Script, list[Any]]:
    script, seen = played(destination, families.RECOVERY, None, Outcome.SUCCEED)
    return script, answers.messages(seen.answered[recovery.MAIN])


@case(
    "legacy.destination.return-path.precopy-pongs",
    requirement="LEG-RPM-020",
    violates=["LEG-RPM-001", "LEG-RPM-004", "LEG-DST-070"],
    roles=DESTINATION,
)
def test_precopy_pongs(destination: Destination) -> None:
    """Each PING of a precopy has one PONG with its value, and there is nothing else but SHUT."""
    script, told = precopy(destination)
    answers.pongs(script, told)
    answers.nothing_else(told, RpPong, RpShut)


@case(
    "legacy.destination.return-path.precopy-shut",
    requirement="LEG-RPM-010",
    violates=["LEG-RPM-012", "LEG-DST-071"],
    roles=DESTINATION,
)
def test_precopy_shut(destination: Destination) -> None:
    """A load that succeeds ends in SHUT 0, the last message."""
    answers.ends(precopy(destination)[1], 0)


@case(
    "legacy.destination.return-path.failed-shut",
    requirement="LEG-RPM-011",
    violates=["LEG-DST-071"],
    roles=DESTINATION,
)
def test_failed_shut(destination: Destination) -> None:
    """A load that fails ends in SHUT 1 from 10.0 on, and in none up to 7.2."""
    good = destination.good(families.MAIN.settings)
    script = families.MAIN.script(good)
    end = Cut(len(script) - 2, 0, end=True)
    seen = destination.play(families.MAIN.play(good, script, end))
    if seen.outcome not in REFUSED:
        raise Unmet(expected="a load that fails", actual=expect.described(seen))
    told = answers.messages(seen.answered["main"])
    if not destination.version:
        if answers.of(RpShut, told):
            answers.ends(told, 1)
        return
    release = expect.release(destination.version)
    if (7, 2) < release < (10, 0):
        raise NotShown("between 7.2 and 10.0 it may be either")
    answers.ends(told, 1 if release >= (10, 0) else None)


@case(
    "legacy.destination.return-path.postcopy-pongs",
    requirement="LEG-RPM-021",
    violates=["LEG-RPM-020", "LEG-DST-070"],
    roles=DESTINATION,
)
def test_postcopy_pongs(destination: Destination) -> None:
    """Both threads of a postcopy answer their PINGs, and SHUT 0 comes last."""
    script, told = postcopy(destination)
    answers.pongs(script, told)
    answers.ends(told, 0)


@case(
    "legacy.destination.return-path.page-requests",
    requirement="LEG-RPM-032",
    violates=["LEG-RPM-030", "LEG-RPM-031", "LEG-RPM-033", "LEG-DST-080", "LEG-DST-081"],
    roles=DESTINATION,
)
def test_page_requests(destination: Destination) -> None:
    """Page requests name a block first, and ask for whole pages inside of it."""
    script, told = postcopy(destination)
    answers.requests(script.state.blocks, told, PAGE)


@case(
    "legacy.destination.return-path.received-pages",
    requirement="LEG-RPM-040",
    violates=["LEG-RPM-041", "LEG-RPM-042", "LEG-RPM-043", "LEG-DST-082"],
    roles=DESTINATION,
)
def test_received_pages(destination: Destination) -> None:
    """Each RECV_BITMAP of a recovery has its bitmap, in order and of the right size."""
    script, told = recovered(destination)
    answers.bitmaps(script, script.state.blocks, told, PAGE)


@case(
    "legacy.destination.return-path.resume-ack",
    requirement="LEG-RPM-051",
    violates=["LEG-RPM-050", "LEG-DST-083"],
    roles=DESTINATION,
)
def test_resume_ack(destination: Destination) -> None:
    """RESUME is acknowledged before the first page request, and the recovery ends in SHUT 0."""
    script, told = recovered(destination)
    answers.resumed(script, told)
    answers.requests(script.state.blocks, told, PAGE)
    answers.ends(told, 0)
