"""What hostile streams are held to, with destinations that do as they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from qmig.legacy import commands, header, sections
from qmig.testing.scenario import Scenario
from qmig_conformance.case import Level, NotShown, Profile, Unmet
from qmig_conformance.hostile import cases, connections, families, judged, sweep
from qmig_conformance.hostile.judged import Held
from qmig_conformance.hostile.script import Absent
from qmig_conformance.hostile.table import Row
from qmig_conformance.hostile.tables import rows
from qmig_conformance.play import REFUSED, Connect, Good, Outcome, Play, Seen


@dataclass
class Obedient:
    """A destination of a version, with the outcome it was told to have."""

    version: str
    outcome: Outcome
    words: str = "qemu-system-x86_64: because"
    played: list[Play] = field(default_factory=list)

    def good(self, settings: Scenario) -> Good:
        return Good(settings=settings, channels={})

    def play(self, play: Play) -> Seen:
        self.played.append(play)
        return Seen(outcome=self.outcome, words=self.words)

    def keep(self, folder: object) -> None:
        raise NotImplementedError


def any_play(good: Good) -> Play:
    return Play(settings=good.settings, steps=(Connect("main"),))


def row(value: str, make: Callable[[Good], Play] = any_play) -> Row:
    (found,) = [row for row in rows() if row.value == value]
    return Row(value=value, chapter=found.chapter, settings=found.settings, make=make)


@pytest.mark.parametrize(
    ("value", "version", "outcome"),
    [
        ("wrong-magic", "7.2.22", Outcome.FAIL_DEST_QUIT_ERR),
        ("ram-zero-page-fill-0x5a", "7.2.22", Outcome.SUCCEED),
        ("ram-zero-page-fill-0x5a", "10.0.13", Outcome.FAIL_DEST_QUIT_ERR),
        ("ram-zero-page-fill-0x5a", "8.1.0", Outcome.SUCCEED),
        ("ram-zero-page-fill-0x5a", "8.1.0", Outcome.FAIL_DEST_QUIT_ERR),
        ("postcopy-cut-behind-the-package", "5.2.0", Outcome.POSTCOPY_PAUSED),
        ("wrong-magic", "", Outcome.FAIL),
    ],
)
def test_an_outcome_of_the_registry_is_right(value: str, version: str, outcome: Outcome) -> None:
    words = "Not a migration stream\nFound a zero page with value 90"
    cases.hold_row(Obedient(version, outcome, words), row(value))


@pytest.mark.parametrize(
    ("value", "version", "outcome"),
    [
        ("wrong-magic", "7.2.22", Outcome.SUCCEED),
        ("wrong-magic", "7.2.22", Outcome.WAITS),
        ("ram-zero-page-fill-0x5a", "7.2.22", Outcome.FAIL_DEST_QUIT_ERR),
        ("config-length-0xffffffff", "7.2.22", Outcome.CRASH),
        ("multifd-packet-bad-magic", "7.2.22", Outcome.BLOCKED),
        ("wrong-magic", "", Outcome.SUCCEED),
    ],
)
def test_another_outcome_is_not_and_a_crash_never(value: str, version: str, outcome: Outcome) -> None:
    with pytest.raises(Unmet) as caught:
        cases.hold_row(Obedient(version, outcome), row(value))
    assert caught.value.level in {None, Level.MUST}
    assert str(outcome) in caught.value.actual


@pytest.mark.parametrize(
    ("value", "version"), [("mapped-ram-control", "7.2.22"), ("block-control", "10.0.13")]
)
def test_what_is_not_of_the_targets_time_is_not_shown(value: str, version: str) -> None:
    target = Obedient(version, Outcome.CRASH)
    with pytest.raises(NotShown):
        cases.hold_row(target, row(value))
    assert target.played == []


def test_a_stream_that_cannot_be_made_is_not_shown() -> None:
    def absent(good: Good) -> Play:
        raise Absent("no such record")

    with pytest.raises(NotShown, match="no such record"):
        cases.hold_row(Obedient("7.2.22", Outcome.SUCCEED), row("wrong-magic", absent))


# -- sweep -----------------------------------------------------------------------------------------------


def item(id: str) -> sweep.Item | connections.Arranged:
    every: Sequence[sweep.Item | connections.Arranged] = [*sweep.ITEMS, *connections.ARRANGED]
    (found,) = [one for one in every if one.id == f"legacy.destination.sweep.{id}"]
    return found


@dataclass(frozen=True)
class Easy:
    """An item whose play is any."""

    like: sweep.Item | connections.Arranged

    @property
    def id(self) -> str:
        return self.like.id

    @property
    def settings(self) -> Scenario:
        return self.like.settings

    @property
    def title(self) -> str:
        return self.like.title

    @property
    def verdict(self) -> Held:
        return self.like.verdict

    @property
    def versions(self) -> tuple[str, str]:
        return self.like.versions

    @property
    def slow(self) -> bool:
        return self.like.slow

    def play(self, good: Good) -> Play:
        return any_play(good)


@pytest.mark.parametrize(
    ("id", "requirement", "outcomes"),
    [
        ("main.footer.section-id.max", "LEG-DST-033", REFUSED),
        ("main.file-header.magic.zero", "LEG-DST-011", REFUSED),
        ("main.page.word.bit-3", "LEG-DST-051", REFUSED),
        ("main.page.data.long", "LEG-DST-165", frozenset()),
        ("main.ping.value.max", "LEG-DST-070", {Outcome.SUCCEED}),
        ("multifd-main.eos.word.bit-3", "LEG-DST-165", frozenset()),
        ("main.page.left-out", "LEG-DST-165", frozenset()),
        ("main.page.cut-inside-closed", "LEG-DST-038", REFUSED),
        ("main.page.cut-inside-open", "LEG-DST-003", {Outcome.WAITS}),
        ("main.description.cut-before-closed", "LEG-DST-040", {Outcome.SUCCEED}),
        ("main.description.cut-before-open", "LEG-DST-003", {Outcome.WAITS}),
        ("postcopy.discard.cut-inside-closed", "LEG-DST-038", REFUSED),
        ("postcopy.page-behind.cut-inside-closed", "LEG-DST-148", {Outcome.POSTCOPY_PAUSED}),
        ("postcopy.footer-behind.section-id.max", "LEG-DST-165", frozenset()),
        ("recovery.page.cut-inside-closed", "LEG-DST-162", {Outcome.POSTCOPY_PAUSED}),
        ("multifd.packet.cut-inside-closed", "LEG-DST-165", frozenset()),
        ("multifd.multifd-1.early", "LEG-DST-165", frozenset()),
    ],
)
def test_what_an_item_is_held_to(id: str, requirement: str, outcomes: frozenset[Outcome]) -> None:
    held = item(id).verdict
    assert (held.requirement, held.outcomes) == (requirement, outcomes)
    case = cases.case_of(item(id))
    assert case.requirement == requirement
    assert set(case.violates) == set(held.violates)


@pytest.mark.parametrize("outcome", [Outcome.CRASH, Outcome.BLOCKED])
def test_no_item_may_crash_or_block(outcome: Outcome) -> None:
    for id in ("main.page.left-out", "main.footer.section-id.max", "multifd.multifd-1.silent"):
        with pytest.raises(Unmet):
            cases.hold_swept(Obedient("11.1.2", outcome), Easy(item(id)))


def test_an_item_with_a_statement_has_its_outcome() -> None:
    easy = Easy(item("main.footer.section-id.max"))
    cases.hold_swept(Obedient("11.1.2", Outcome.FAIL_DEST_QUIT_ERR), easy)
    cases.hold_swept(Obedient("", Outcome.FAIL), easy)
    with pytest.raises(Unmet, match="expected: fail"):
        cases.hold_swept(Obedient("11.1.2", Outcome.SUCCEED), easy)
    with pytest.raises(Unmet, match="expected: waits"):
        cases.hold_swept(Obedient("11.1.2", Outcome.SUCCEED), Easy(item("main.page.cut-inside-open")))


def test_an_item_without_one_may_end_in_any_other_way() -> None:
    for outcome in (Outcome.SUCCEED, Outcome.WAITS, Outcome.FAIL, Outcome.POSTCOPY_PAUSED):
        cases.hold_swept(Obedient("11.1.2", outcome), Easy(item("main.page.left-out")))


def test_items_are_of_their_time() -> None:
    for id, version in (("preempt.page.left-out", "5.2.0"), ("block.eos.left-out", "10.0.13")):
        with pytest.raises(NotShown):
            cases.hold_swept(Obedient(version, Outcome.CRASH), Easy(item(id)))
    assert item("main.switchover-start.left-out").versions == ("10.0", "")


def test_every_kind_of_record_of_the_sweep_says_what_it_violates() -> None:
    for one in sweep.ITEMS:
        assert one.subject.kind.requirement in one.verdict.violates
    kinds = {one.subject.kind for one in sweep.ITEMS}
    assert {header.FileHeader, sections.SectionFooter, commands.PostcopyRamDiscard} <= kinds


def test_statements_about_fields_are_about_fields_that_there_are() -> None:
    """And every one of them is asked for."""
    kinds = {one.subject.kind.__name__: one.subject.kind for one in sweep.ITEMS}
    for table in (judged.FIELDS, judged.IGNORED):
        for kind, fields in table.items():
            names = {row.name for row in kinds[kind].fields_layout()}
            assert set(fields) <= names, kind
            for name, statement in fields.items():
                mine = [
                    one
                    for one in sweep.ITEMS
                    if one.subject.kind.__name__ == kind
                    and one.name.startswith(f"{name}.")
                    and one.verdict.requirement == statement
                ]
                assert mine, (kind, name)


def test_what_takes_long_is_not_played_by_default() -> None:
    """A disk's threads are waited for, so connections are left open at one record only."""
    slow = [one for one in sweep.ITEMS if one.slow]
    assert {one.subject.name for one in slow} == {"start", "data"}
    assert all(cases.case_of(one).profile is Profile.FULL for one in slow)


def test_the_sample_is_chosen_by_the_id_alone() -> None:
    found = {one.id: cases.case_of(one).profile for one in sweep.ITEMS}
    again = {one.id: cases.case_of(one).profile for one in reversed(sweep.ITEMS)}
    assert found == again
    assert {families.MAIN.name, families.POSTCOPY.name, families.MULTIFD.name} <= {
        id.split(".")[3] for id, profile in found.items() if profile is Profile.DEFAULT
    }
