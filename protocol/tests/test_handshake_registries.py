"""Registries of protocol v2 that no enum repeats, against the code, both ways."""

from __future__ import annotations

from typing import Any

import pytest

from qmig.handshake import destination_table, limits, messages, source_table, transcript
from qmig.handshake.codes import USUAL, AbortCode, Level, Retry, Who
from qmig.handshake.names import NAMES, Entry, Kind, Party, Result
from qmig.testing import load_registry

TABLES: tuple[Any, ...] = (source_table.TABLE, destination_table.TABLE)
NAMED = {entry.value: entry for entry in load_registry("v2-names").entries}
PARTIES = {"wire", "source", "destination", "implied", "local", "description", "file", "retired", "reserved"}


def test_limits() -> None:
    """`close-linger` is `CLOSE_LINGER`, and so on, and no constant is without a row."""
    spec = {entry.name: entry.extra["number"] for entry in load_registry("v2-limits").entries}
    code = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert spec == code


def test_withdrawn_numbers() -> None:
    spec = {entry.value for entry in load_registry("v2-withdrawn").entries}
    assert spec == messages.WITHDRAWN
    assert not spec & set(messages.MESSAGES)


def test_conditions_of_the_tables() -> None:
    spec = {entry.value: entry.extra["side"] for entry in load_registry("v2-facts").entries}
    for table, sides in ((source_table.TABLE, {"S", "both"}), (destination_table.TABLE, {"D", "both"})):
        used = {word.lstrip("!") for row in table.rows for word in row.when}
        assert {word for word, side in spec.items() if side in sides} >= used
    both = {word.lstrip("!") for table in TABLES for row in table.rows for word in row.when}
    assert set(spec) == both


def test_labels() -> None:
    spec = {entry.name: str(entry.value).encode("ascii") for entry in load_registry("v2-labels").entries}
    assert spec == {name: value for name, value in vars(transcript).items() if name.isupper()}


def test_every_capability_and_parameter_of_qemu_has_its_row() -> None:
    """HS-NAM-001, HS-NAM-004, HS-NAM-005, HS-NAM-006, HS-NAM-012."""
    for registry, column in (("capabilities", "capability"), ("parameters", "parameter")):
        qemu = {entry.value for entry in load_registry(registry).entries}
        ours = {name for name, entry in NAMED.items() if entry.extra["qemu"] == column}
        assert ours == qemu


def test_names_that_can_be_agreed_on() -> None:
    spec = {name for name, entry in NAMED.items() if entry.extra["party"] in {"wire", "file", "reserved"}}
    assert spec == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_the_same_in_both(name: str) -> None:
    row: dict[str, Any] = dict(NAMED[name].extra)
    entry: Entry = NAMES[name]
    assert row["party"] == entry.party
    if entry.party is Party.RESERVED:
        return
    assert (row["result"], row["kind"], row["rank"]) == (entry.result, entry.kind, entry.rank)
    assert (row.get("least", 0), row.get("most", 0)) == (entry.least, entry.most)
    assert tuple(row.get("words", "").split()) == entry.words
    assert tuple(row.get("needs", "").split()) == entry.needs
    assert row["offered"]
    assert row["agreed"]
    assert row["first"]
    assert row["default"]


def test_parties_and_needs_exist_and_needs_have_no_circle() -> None:
    """HS-NAM-008."""
    assert {entry.extra["party"] for entry in NAMED.values()} == PARTIES
    for entry in NAMES.values():
        for need in entry.needs:
            assert NAMES[need].rank < entry.rank  # so a circle cannot be


@pytest.mark.parametrize(("kind", "functions"), [
    (Kind.FLAG, {Result.AND, Result.EXACT}), (Kind.NUMBER, {Result.MIN, Result.EXACT, Result.DECLARE_SRC}),
    (Kind.WORDS, {Result.FIRST_COMMON}), (Kind.SET, {Result.INTERSECT}),
])  # fmt: skip
def test_values_go_with_their_result_functions(kind: Kind, functions: set[Result]) -> None:
    assert {entry.result for entry in NAMES.values() if entry.kind is kind} == functions


def test_what_codes_say_of_who_and_retry_are_words() -> None:
    """HS-ERR-005."""
    rows = load_registry("v2-abort-codes").entries
    assert {row.extra["who"] for row in rows} <= set(Who)
    assert {row.extra["retry"] for row in rows} <= set(Retry)
    usual = {AbortCode(str(row.value)): (row.extra["who"], row.extra["retry"]) for row in rows}
    assert usual == USUAL
    assert set(USUAL) == set(AbortCode)
    assert {row.extra["level"] for row in load_registry("v2-rules").entries} <= set(Level)


def test_conflicts_are_between_names() -> None:
    for row in load_registry("v2-conflicts").entries:
        assert set(str(row.value).split(" + ")) <= set(NAMED)
