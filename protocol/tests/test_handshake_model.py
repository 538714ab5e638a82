"""Both tables explored together: every order of messages, cuts, failures, cancels, crashes and nonsense."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.handshake.table import Row, Table
from qmig.testing.model import Explored, Features, explore

S, SE, SA = src.State, src.Event, src.Action
D, DE, DA = dst.State, dst.Event, dst.Action
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

#: every name with every other on and off, one fault; then the ones that matter for the guest with two
SETS = [
    Features(handover=False),
    Features(probe=True, violations=True, faults=2),
    Features(peer=True, recheck=True, resume=True, violations=True),
    Features(mux=True, resume=True, postcopy=True, violations=True),
    Features(handover=False, mux=True, recheck=True, resume=True, crashes=True),
    Features(handover=False, postcopy=True, preempt=True, resume=True, violations=True),
    Features(handover=False, recheck=True, postcopy=True, peer=True),
    Features(postcopy=True, preempt=True, resume=True, violations=True),
    Features(recheck=True, postcopy=True, preempt=True, mux=True, crashes=True),
    Features(handover=False, faults=2, violations=True),
    Features(faults=2, violations=True),
    Features(faults=2, crashes=True),
    Features(postcopy=True, resume=True, faults=2),
    Features(resume=True, faults=2),
    Features(handover=False, resume=True, faults=2),
    Features(handover=False, resume=True, postcopy=True, faults=2),
    Features(mux=True, resume=True, postcopy=True, faults=2),
]
#: what takes minutes: explored with HYPOTHESIS_PROFILE=nightly
LONG = [
    Features(
        handover=handover, resume=resume, recheck=recheck, postcopy=postcopy, preempt=postcopy, mux=mux,
        faults=2, violations=violations, crashes=not violations,
    )
    for handover in (False, True)
    for resume in (False, True)
    for recheck in (False, True)
    for postcopy in (False, True)
    for mux in (False, True)
    for violations in (False, True)
]  # fmt: skip

#: rows that no run of these QEMUs, agents and peers comes to, by state and event: peers that speak no v2,
#: ABORT where it may not be said, a QEMU that runs a guest that was stopped (which no build was seen to do)
ONLY_FROM_OUTSIDE: set[tuple[Any, Any]] = {
    (S.HELLO, SE.NOT_PREAMBLE),
    (S.HELLO, SE.ONE_WAY),
    (D.LISTENING, DE.ROLE_BAD),
    (D.HELLO, DE.ABORT),
    (S.GONE, SE.ABORT),
    (D.LOADING, DE.ABORT),
    (D.TAKING, DE.ABORT),
    (D.RUNNING, DE.ABORT),
    (S.GIVEN, SE.QEMU_RUNS),
    (S.GONE, SE.QEMU_RUNS),
    (S.DOUBT, SE.QEMU_RUNS),
}


@pytest.fixture(scope="module")
def found() -> list[Explored]:
    return [explore(features) for features in SETS]


@pytest.mark.parametrize("at", range(len(SETS)), ids=lambda at: str(SETS[at]))
def test_nothing_goes_wrong(found: list[Explored], at: int) -> None:
    """HS-HND-012, HS-STA-006, HS-STA-013."""
    print(f"\n{found[at].features}: {found[at].states} states, {found[at].moves} moves")
    assert not found[at].faults, "\n".join(map(str, found[at].faults))
    assert found[at].ends


@pytest.mark.parametrize("features", LONG if NIGHTLY else [], ids=str)
def test_nothing_goes_wrong_in_the_full_product(features: Features) -> None:
    explored = explore(features)
    print(f"\n{features}: {explored.states} states, {explored.moves} moves")
    assert not explored.faults, "\n".join(map(str, explored.faults))


def test_no_row_in_vain(found: list[Explored]) -> None:
    used = {row for explored in found for row in explored.used}
    for table in (src.TABLE, dst.TABLE):
        unused = {(row.state, row.event) for row in table.rows if row not in used}
        rest = {place for place in unused if place not in ONLY_FROM_OUTSIDE}
        assert rest == set(), rest


def test_what_may_come_of_it(found: list[Explored]) -> None:
    """HS-STA-008: outcomes agree, in every run."""
    ends = {end for explored in found for end in explored.ends}
    assert {theirs for ours, theirs in ends if ours == "moved"} == {"ran"}
    assert {ours for ours, theirs in ends if theirs == "ran"} == {"moved"}
    assert ("stopped-here", "spent") in ends


def first_use(found: list[Explored]) -> dict[Row[Any, Any, Any], Features]:
    """A small set of features under which a row is used."""
    uses: dict[Row[Any, Any, Any], Features] = {}
    for explored in sorted(found, key=lambda explored: explored.states):
        for row in explored.used:
            uses.setdefault(row, explored.features)
    return uses


def explored_without(row: Row[Any, Any, Any], features: Features, *instead: Row[Any, Any, Any]) -> Explored:
    source: Table[Any, Any, Any] = src.TABLE
    destination: Table[Any, Any, Any] = dst.TABLE
    if row in source.rows:
        source = source.without(row, *instead)
    else:
        destination = destination.without(row, *instead)
    return explore(features, source, destination)


def test_a_row_that_is_missing_is_found(found: list[Explored]) -> None:
    """A sample of all rows in use; nightly, each of them. The trace can be read."""
    uses = first_use(found)
    rows = [row for table in (src.TABLE, dst.TABLE) for row in table.rows if row in uses]
    for row in rows if NIGHTLY else rows[::23]:
        explored = explored_without(row, uses[row])
        assert explored.faults, row
        assert str(explored.faults[0]).startswith("no row: ")
        first = explored.faults[0]
        assert str(first).splitlines()[1:] == [f"  {at:3} {move}" for at, move in enumerate(first.trace, 1)]


def row_of(table: Table[Any, Any, Any], state: Any, event: Any, facts: set[str]) -> Row[Any, Any, Any]:
    row = table.find(state, event, facts)
    assert row is not None
    return row


PLAIN = Features(faults=1)
POSTCOPY = Features(postcopy=True, faults=2)
SEEDED: dict[str, tuple[Row[Any, Any, Any], dict[str, Any], Features, str]] = {
    "gives too early": (
        row_of(src.TABLE, S.FLOW, SE.QEMU_AT_SWITCH, {"handover"}),
        {"next": S.GIVEN, "actions": (SA.CONTINUE_SWITCH, SA.SEND_GIVE)}, PLAIN, "both guests run",
    ),
    "runs alone": (
        row_of(dst.TABLE, D.HELD, DE.EOF, set()), {"next": D.TAKING, "actions": (DA.CONT,)}, PLAIN,
        "both guests run",
    ),
    "no stop before postcopy": (
        row_of(src.TABLE, S.FLOW, SE.TO_POSTCOPY, {"can-postcopy"}), {"actions": (SA.START_POSTCOPY,)},
        POSTCOPY, "both guests run",
    ),
    "takes the guest back from a doubt": (
        row_of(src.TABLE, S.GIVEN, SE.EOF, set()),
        {"next": S.END, "actions": (SA.RESUME_GUEST,), "outcome": "here"}, PLAIN, "both guests run",
    ),
    "believes its QEMU": (
        row_of(src.TABLE, S.GIVEN, SE.EOF, set()), {"next": S.END, "actions": (), "outcome": "moved"}, PLAIN,
        "S says moved, D ended",
    ),
    "does not stop behind the switch": (
        row_of(src.TABLE, S.SWITCHED, SE.QEMU_FAILED, set()), {"actions": (SA.SHOW,)},
        Features(handover=False, faults=2), "both guests run",
    ),
    "says that it has what it has not": (
        row_of(dst.TABLE, D.TAKING, DE.CONT_FAILED, set()),
        {"actions": (DA.SEND_TAKEN, DA.SEND_BYE)}, PLAIN, "S says moved, D ended spent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDED)
def test_a_row_that_is_wrong_is_found(name: str) -> None:
    row, change, features, message = SEEDED[name]
    explored = explored_without(row, features, dataclasses.replace(row, **change))
    assert any(message in fault.message for fault in explored.faults), explored.faults
