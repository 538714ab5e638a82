"""What a case is, and what can come of it.

    @case("legacy.ram.rebuilt", requirement="LEG-RAM-052", level=Level.MUST, roles=Role.SOURCE)
    def test_rebuilt_ram(recording): ...

A case passes by returning. It fails with `Unmet`; `Unsupported` and `NotShown` say that the
target cannot, or this run did not, show what is asked. Anything else is our own error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest

from qmig.testing.scenario import Unsupported

F = TypeVar("F", bound=Callable[..., Any])


class Level(enum.StrEnum):
    MUST = "must"
    SHOULD = "should"


class Role(enum.StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


class Verdict(enum.StrEnum):
    """`design/product.md` and the issues name these."""

    PASS = "pass"  # noqa: S105 (a verdict)
    FAIL = "fail"
    NON_STRICT = "non-strict"  # a SHOULD that is not met
    INFORMATIONAL = "informational"  # this run did not show it
    UNSUPPORTED = "unsupported"  # the build itself says so
    ERROR = "error"  # ours


class Unmet(Exception):
    """The target does not do what the requirement says."""

    def __init__(self, *, expected: str, actual: str) -> None:
        super().__init__(f"expected: {expected}; actual: {actual}")
        self.expected = expected
        self.actual = actual


class NotShown(Exception):
    """Nothing in this run shows whether the requirement is met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`id` is durable: never reused, never an ordinal. `since` is a QEMU version."""

    id: str
    requirement: str
    level: Level
    roles: Role
    since: str = "5.2"
    title: str = ""


def case(
    id: str, *, requirement: str, roles: Role, level: Level = Level.MUST, since: str = "5.2"
) -> Callable[[F], F]:
    """Declares a case; the function's docstring is its title."""

    def declare(function: F) -> F:
        title = (function.__doc__ or "").partition("\n")[0]
        declared = Case(id=id, requirement=requirement, level=level, roles=roles, since=since, title=title)
        return cast(F, pytest.mark.case(declared)(function))

    return declare


def verdict_of(error: BaseException | None, level: Level) -> Verdict:
    """The verdict that the way a case ended stands for."""
    if error is None:
        return Verdict.PASS
    if isinstance(error, Unmet):
        return Verdict.FAIL if level is Level.MUST else Verdict.NON_STRICT
    if isinstance(error, Unsupported):
        return Verdict.UNSUPPORTED
    if isinstance(error, NotShown):
        return Verdict.INFORMATIONAL
    return Verdict.ERROR
