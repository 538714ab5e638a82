"""Both state tables, as data: no two rows for one situation, an exit from everywhere, no row in vain."""

from __future__ import annotations

import enum
import itertools
from typing import Any

import pytest

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.handshake.table import Row, Table

TABLES: dict[str, Table[Any, Any, Any]] = {"source": src.TABLE, "destination": dst.TABLE}


def facts_of(table: Table[Any, Any, Any]) -> list[str]:
    return sorted({word.lstrip("!") for row in table.rows for word in row.when})


def worlds(words: list[str]) -> list[frozenset[str]]:
    return [
        frozenset(word for word, on in zip(words, bits, strict=True) if on)
        for bits in itertools.product((False, True), repeat=len(words))
    ]


@pytest.mark.parametrize("name", TABLES)
def test_at_most_one_row_fits(name: str) -> None:
    """HS-STA-003: under every combination of conditions."""
    table = TABLES[name]
    places = {(row.state, row.event) for row in table.rows}
    for state, event in places:
        words = sorted(
            {
                w.lstrip("!")
                for row in table.rows
                if (row.state, row.event) == (state, event)
                for w in row.when
            }
        )
        for facts in worlds(words):
            assert table.fitting(state, event, facts) <= 1, (state, event, facts)


@pytest.mark.parametrize("name", TABLES)
def test_every_state_event_and_action_is_used(name: str) -> None:
    table = TABLES[name]
    module = src if name == "source" else dst
    assert {row.event for row in table.rows} == set(module.Event)
    assert {action for row in table.rows for action in row.actions} == set(module.Action)
    assert {row.state for row in table.rows} | {row.next for row in table.rows} == set(module.State)


@pytest.mark.parametrize("name", TABLES)
def test_the_end_has_an_outcome(name: str) -> None:
    """HS-STA-008: whoever comes to CLOSING or END brings one, but for CLOSING's own rows, which keep it."""
    words = {
        "source": {"here", "moved", "probed", "stopped-here"},
        "destination": {"listen", "spent", "ran", "cancelled"},
    }
    table = TABLES[name]
    assert {row.outcome for row in table.rows} - {""} == words[name]
    for row in table.rows:
        if row.next.value in {"closing", "end"} and row.state.value not in {"closing", "end"}:
            assert row.outcome, row


def reaches_end(table: Table[Any, Any, Any], state: Any, events: list[Any], facts: frozenset[str]) -> bool:
    """Whether some of these events, in some order, lead to the end."""
    seen, todo = {state}, [state]
    while todo:
        here = todo.pop()
        if here.value in {"end", "closing"}:
            return True
        for event in events:
            row = table.find(here, event, facts)
            if row is not None and row.next not in seen:
                seen.add(row.next)
                todo.append(row.next)
    return False


@pytest.mark.parametrize(
    "facts", [[], ["handover"], ["handover", "given", "loaded"], ["postcopy"], ["bound"]]
)
def test_the_operator_gets_out_of_every_state(facts: list[str]) -> None:
    """HS-STA-006: cancel, giving up control, or management's word."""
    source = [src.Event.CANCEL, src.Event.EOF, src.Event.OWNER_IS_SOURCE, src.Event.OWNER_IS_DESTINATION]
    for state in src.State:
        assert reaches_end(src.TABLE, state, source, frozenset(facts)), state
    destination = [dst.Event.CANCEL, dst.Event.DISCARD, dst.Event.EOF]
    others: list[dst.State] = [
        state for state in dst.State if "bound" not in facts or state not in dst.EARLY[:-1]
    ]
    for other in others:
        if other is dst.State.TAKING:
            destination.append(dst.Event.CONT_FAILED)  # `cont` has an answer
        assert reaches_end(dst.TABLE, other, destination, frozenset(facts)), other


@pytest.mark.parametrize("name", TABLES)
def test_every_state_hears_of_the_end_of_control_and_of_abort(name: str) -> None:
    silent = {"idle", "listening", "end", "judging", "applying"}
    table = TABLES[name]
    module = src if name == "source" else dst
    for state in module.State:
        if state.value in silent or (name == "destination" and state.value == "held-alone"):
            continue
        for word in (module.Event.EOF, module.Event.ABORT):
            assert any(table.find(state, word, facts) for facts in worlds(["handover", "bound"])), (
                state,
                word,
            )


def test_a_promise_is_kept_before_it_is_sent() -> None:
    """HS-HND-006, HS-HND-007: D ends its QEMU and records before TAKEN 1 or an ABORT that gives back."""
    action = dst.Action
    for row in dst.TABLE.rows:
        if row.outcome == "spent" and row.state in {*dst.LIVE, dst.State.HELD_ALONE}:
            order = [a for a in row.actions if a in {action.DISCARD_GUEST, action.RECORD_RETURNED}]
            assert order == [action.DISCARD_GUEST, action.RECORD_RETURNED]
            sends = [at for at, a in enumerate(row.actions) if a.value.startswith("send ")]
            assert not sends or min(sends) > row.actions.index(action.RECORD_RETURNED)


def test_s_records_before_it_gives_and_cuts_data_before_it_cancels() -> None:
    """HS-HND-004, HS-STA-010."""
    action = src.Action
    for row in src.TABLE.rows:
        if action.SEND_GIVE in row.actions and row.state is src.State.FLOW:
            assert row.actions.index(action.RECORD_GIVEN) < row.actions.index(action.SEND_GIVE)
        if action.CANCEL_MIGRATION in row.actions:
            assert row.actions.index(action.CUT_DATA) < row.actions.index(action.CANCEL_MIGRATION)
            assert "postcopy" not in row.when or "at-switch" in row.when


def test_nothing_is_aborted_once_it_is_given() -> None:
    """HS-HND-009."""
    for row in src.TABLE.rows:
        if row.state in src.LATE:
            assert src.Action.SEND_ABORT not in row.actions


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


def test_a_table_can_be_changed_for_a_seeded_fault() -> None:
    one = Row(Colour.RED, Colour.RED, Colour.BLUE, (Colour.RED,), ("a", "!b"))
    other: Row[Colour, Colour, Colour] = Row(Colour.RED, Colour.RED, Colour.RED, (), ("b",))
    table = Table("x", [one, other])
    assert table.find(Colour.RED, Colour.RED, {"a"}) is one
    assert table.find(Colour.RED, Colour.RED, {"a", "b"}) is other
    assert table.find(Colour.RED, Colour.RED, ()) is None
    assert table.find(Colour.BLUE, Colour.RED, ()) is None
    assert table.without(one).rows == (other,)
    assert table.without(one, other).rows == (other, other)
    assert facts_of(table) == ["a", "b"]
