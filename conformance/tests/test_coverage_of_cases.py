"""How much of the specification has a case: counted over all cases that pytest collects."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

import pytest

from qmig.spec.ids import read_requirements
from qmig.testing import spec_root

#: what the suite promises
STATEMENTS: Final = 250
HOSTILE: Final = 150

_COLLECT: Final = """
import json, sys
import pytest

class Collected:
    def pytest_configure(self, config):
        config.addinivalue_line("markers", "case(case): a conformance case")

    def pytest_collection_finish(self, session):
        cases = [item.get_closest_marker("case").args[0] for item in session.items]
        rows = [(c.id, str(c.roles), str(c.profile), c.requirements) for c in cases]
        print("\\n" + json.dumps(rows))

sys.exit(pytest.main([sys.argv[1], "-c", sys.argv[2], "--collect-only", "-qq"], plugins=[Collected()]))
"""


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    """Every case: id, role, profile, requirements."""
    suite = files("qmig_conformance")
    arguments = [str(suite / "cases"), str(suite / "suite.ini")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _COLLECT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("[["))
    names = ("id", "role", "profile", "requirements")
    return [dict(zip(names, row, strict=True)) for row in json.loads(line)]


def covered(cases: Iterable[dict[str, Any]], prefix: str = "LEG-") -> set[str]:
    """The statements that cases are about."""
    return {name for case in cases for name in case["requirements"] if name.startswith(prefix)}


def test_statements_of_the_legacy_wire_have_cases(cases: Sequence[dict[str, Any]]) -> None:
    assert len(covered(cases)) >= STATEMENTS


def test_statements_are_tried_with_hostile_input(cases: Sequence[dict[str, Any]]) -> None:
    """A destination is given something that breaks the statement, or that the statement says the end of."""
    hostile = [case for case in cases if case["role"] == "destination"]
    assert len(covered(hostile)) >= HOSTILE


def test_cases_cite_statements_that_there_are(cases: Sequence[dict[str, Any]]) -> None:
    known = read_requirements(spec_root())[0]
    assert covered(cases, "") - set(known) == set()


def test_ids_of_cases_are_unique_per_role(cases: Sequence[dict[str, Any]]) -> None:
    """A case may be collected once for each thing it judges, but two cases have two ids."""
    seen: dict[str, tuple[str, ...]] = {}
    for case in cases:
        what = tuple(case["requirements"])
        assert seen.setdefault(case["id"], what) == what, case["id"]


def test_the_default_profile_has_a_part_of_the_sweep(cases: Sequence[dict[str, Any]]) -> None:
    swept = [case for case in cases if ".sweep." in case["id"]]
    default = [case for case in swept if case["profile"] == "default"]
    assert len(swept) > 2000
    assert 60 <= len(default) <= 120
