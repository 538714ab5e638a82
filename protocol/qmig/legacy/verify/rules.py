"""The shape of a rule, and the words in which it says when it holds."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from qmig._wire import Record
from qmig.legacy.verify.facts import Facts, Version
from qmig.legacy.verify.findings import Severity

Test = Callable[[Facts], bool | None]


@dataclass(frozen=True, slots=True)
class When:
    """A condition: True it holds, False it does not, None the input does not show it."""

    text: str
    test: Test


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


ALWAYS = When("every stream", lambda _: True)


def since(version: Version) -> When:
    return When(f"QEMU {_text(version)} and later", lambda facts: facts.at_least(version))


def before(version: Version) -> When:
    def test(facts: Facts) -> bool | None:
        later = facts.at_least(version)
        return None if later is None else not later

    return When(f"QEMU before {_text(version)}", test)


def capability(name: str, *, on: bool) -> When:
    def test(facts: Facts) -> bool | None:
        value = facts.capability(name)
        return None if value is None else value is on

    return When(f"capability {name} {'on' if on else 'off'}", test)


def migration_property(name: str, *, on: bool) -> When:
    def test(facts: Facts) -> bool | None:
        value = facts.machine_property(name)
        return None if value is None else value is on

    return When(f"property migration.{name} {'on' if on else 'off'}", test)


def seen(fact: str, text: str) -> When:
    return When(text, lambda facts: fact in facts.seen)


def both(*parts: When) -> When:
    """All of them hold."""

    def test(facts: Facts) -> bool | None:
        values = [part.test(facts) for part in parts]
        if False in values:
            return False
        return None if None in values else True

    return When(", ".join(part.text for part in parts), test)


def either(*parts: When) -> When:
    """One of them holds."""

    def test(facts: Facts) -> bool | None:
        values = [part.test(facts) for part in parts]
        if True in values:
            return True
        return None if None in values else False

    return When(" or ".join(part.text for part in parts), test)


class By(enum.StrEnum):
    """Who sees that a rule is broken."""

    #: the reader: it cannot go on, and its error is the finding
    READER = "reader"
    CHECKER = "checker"
    #: nobody: a recording does not show it; `Rule.why_not` says why
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One checkable sentence of the specification."""

    #: statement in `spec/legacy`
    requirement: str
    #: what holds, in one line
    title: str
    by: By = By.CHECKER
    severity: Severity = Severity.ERROR
    #: the rule holds for these streams only
    when: When = ALWAYS
    #: where QEMU itself is known to break it: a finding is then a note
    known_defect: When | None = None
    why_not: str = ""
    #: it says something about these records only; empty: about every stream
    about: tuple[type[Record], ...] = ()
