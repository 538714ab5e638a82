"""The table of scenarios: complete, unambiguous, playable."""

from pathlib import Path

import pytest

from qmig.testing import load_registry, load_vectors
from qmig.testing.scenario import Boot, Role, Scenario
from qmig.testing.scenarios import EXCLUDED, SCENARIOS, scenario, select

NAMES = {found.name for found in SCENARIOS}


def test_every_recording_is_played_or_excluded_with_a_reason() -> None:
    recorded = {
        name.partition("-")[2]
        for vector in load_vectors("legacy/recordings")
        if (name := vector.id.partition("#")[2])[0].isdigit()
    }
    assert len(recorded) > 30
    others = {"ppc64-pseries", "s390x", "qcow2-snapshots"}  # of machines that the builds here have not got
    assert recorded - others <= NAMES | set(EXCLUDED)


def test_names_are_unique_and_exclusions_say_why() -> None:
    assert len(NAMES) == len(SCENARIOS)
    assert not NAMES & set(EXCLUDED)
    assert all(len(reason) > 20 for reason in EXCLUDED.values())


def test_capabilities_are_known() -> None:
    known = {entry.name.lower().replace("_", "-") for entry in load_registry("capabilities").entries}
    assert {name for found in SCENARIOS for name in found.capabilities} <= known


@pytest.mark.parametrize("found", SCENARIOS, ids=lambda found: found.name)
def test_arguments_and_program(found: Scenario, tmp_path: Path) -> None:
    argv = found.arguments("10.0.13", tmp_path)
    assert not any("{folder}" in word or "VER" in word for word in argv)
    program = found.program()
    assert (program is None) == (found.boot is Boot.NONE)
    assert program is None or program.target == found.target


def test_machine_types_follow_the_older_side() -> None:
    crossed = scenario("cross-q35-to-7.2")
    assert crossed.machine_type("10.0.13") == "pc-q35-7.2"
    assert crossed.machine_type("5.2.0") == "pc-q35-5.2"
    assert scenario("precopy-plain-q35").machine_type("7.2.22+deb12u1") == "pc-q35-7.2"
    with pytest.raises(ValueError, match="no version"):
        crossed.machine_type("unknown")


def test_select() -> None:
    assert [found.name for found in select(target="aarch64")] == ["precopy-arm-virt"]
    sources = {found.name for found in select(role=Role.SOURCE)}
    assert NAMES - sources == {found.name for found in SCENARIOS if found.not_source}
    quick = list(select(role=Role.DESTINATION, quick=True))
    assert quick
    assert all(found.quick for found in quick)
