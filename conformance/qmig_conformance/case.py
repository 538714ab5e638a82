"""What a case is, and what can come of it.

    @case("legacy.destination.wrong-magic", requirement="LEG-DST-011", violates=["LEG-HDR-001"],
          roles=Role.DESTINATION)
    def test_wrong_magic(destination): ...

A case passes by returning. It fails with `Unmet`; `Unsupported` and `NotShown` say that the
target cannot, or this run did not, show what is asked. Anything else is our own error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest

from qmig.testing.scenario import Unsupported

F = TypeVar("F", bound=Callable[..., Any])


class Level(enum.StrEnum):
    MUST = "must"
    SHOULD = "should"


class Role(enum.StrEnum):
    """What the target is in a case."""

    SOURCE = "source"
    DESTINATION = "destination"
    #: two builds, one migrating to the other
    PAIR = "pair"


class Profile(enum.StrEnum):
    """When a case is played."""

    DEFAULT = "default"
    #: only with ``--profile full``
    FULL = "full"


class Verdict(enum.StrEnum):
    """`design/product.md` and the issues name these."""

    PASS = "pass"  # noqa: S105 (a verdict)
    FAIL = "fail"
    NON_STRICT = "non-strict"  # a SHOULD that is not met
    INFORMATIONAL = "informational"  # this run did not show it
    UNSUPPORTED = "unsupported"  # the build itself says so
    WAIVED = "waived"  # fails as an expectation says it does
    UNEXPECTED_PASS = "unexpected-pass"  # noqa: S105 (an expectation says that it fails)
    ERROR = "error"  # ours


class Unmet(Exception):
    """The target does not do what the requirement says.

    `level` is that of what is not met, where it is less than the case's own: a refusal is a MUST, its
    wording a SHOULD."""

    def __init__(self, *, expected: str, actual: str, level: Level | None = None) -> None:
        super().__init__(f"expected: {expected}; actual: {actual}")
        self.expected = expected
        self.actual = actual
        self.level = level


class NotShown(Exception):
    """Nothing in this run shows whether the requirement is met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`id` is durable: never reused, never an ordinal. `since` and `until` are QEMU versions, both included;
    `violates` names the statements about a peer that the case's input breaks."""

    id: str
    requirement: str
    level: Level
    roles: Role
    since: str = "5.2"
    until: str = ""
    title: str = ""
    violates: tuple[str, ...] = ()
    profile: Profile = Profile.DEFAULT

    @property
    def requirements(self) -> tuple[str, ...]:
        """All statements that the case is about, its own first."""
        return (self.requirement, *self.violates)


def case(
    id: str,
    *,
    requirement: str,
    roles: Role,
    level: Level = Level.MUST,
    since: str = "5.2",
    until: str = "",
    violates: Sequence[str] = (),
    profile: Profile = Profile.DEFAULT,
) -> Callable[[F], F]:
    """Declares a case; the function's docstring is its title."""

    def declare(function: F) -> F:
        title = (function.__doc__ or "").partition("\n")[0]
        declared = Case(
            id=id,
            requirement=requirement,
            level=level,
            roles=roles,
            since=since,
            until=until,
            title=title,
            violates=tuple(violates),
            profile=profile,
        )
        return cast(F, pytest.mark.case(declared)(function))

    return declare


def verdict_of(error: BaseException | None, level: Level) -> Verdict:
    """The verdict that the way a case ended stands for, expectations left out."""
    if error is None:
        return Verdict.PASS
    if isinstance(error, Unmet):
        return Verdict.FAIL if (error.level or level) is Level.MUST else Verdict.NON_STRICT
    if isinstance(error, Unsupported):
        return Verdict.UNSUPPORTED
    if isinstance(error, NotShown):
        return Verdict.INFORMATIONAL
    return Verdict.ERROR
