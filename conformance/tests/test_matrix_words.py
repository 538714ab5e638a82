"""What is read out of QEMU's words and streams, and what becomes of cells in reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qmig.testing import load_vectors
from qmig_conformance.case import Verdict
from qmig_conformance.matrix import catalog
from qmig_conformance.matrix.blame import blame, last_words, named_by
from qmig_conformance.matrix.boards import board
from qmig_conformance.matrix.common import COMMON
from qmig_conformance.matrix.discover import common_machine
from qmig_conformance.matrix.fields import contents, differences
from qmig_conformance.matrix.model import Blame, BuildInfo, Cell, Device, Difference, Outcome, Placed, State
from qmig_conformance.matrix.rows import CASE, row_of, target_of, targets_of
from qmig_conformance.matrix.run import Played
from qmig_conformance.matrix.saving import BLOCKED
from qmig_conformance.matrix.table import mark, write_table
from qmig_conformance.report.model import Report


@pytest.mark.parametrize(
    ("words", "section", "field"),
    [
        (
            "Unknown section or instance 'pci/virtio-net': Failed to load element of type virtio for virtio",
            "pci/virtio-net",
            "virtio for virtio",
        ),
        (
            "Failed to load virtio-mem:virtio\nUnknown section or instance 'pci/virtio-mem'",
            "pci/virtio-mem",
            "virtio-mem:virtio",
        ),
        ("Missing section footer for 0000:00:15.0/pciespscsi", "0000:00:15.0/pciespscsi", ""),
        ("savevm: unsupported version 2 for 'ipmi-bmc-sim' v1", "ipmi-bmc-sim", ""),
        ("Unknown savevm section or instance 'ps2kbd' 1. Make sure", "ps2kbd", ""),
        ("State blocked by non-migratable device '0000:00:09.0/nvme'", "0000:00:09.0/nvme", ""),
        ("killed by SIGSEGV", "", ""),
    ],
)
def test_section_and_field(words: str, section: str, field: str) -> None:
    found = blame(words)
    assert (found.section, found.field) == (section, field)
    assert found.words in words


def test_devices_are_named_by_id_and_by_slot() -> None:
    one, other = (
        Placed(Device(name, "pci", (), ()), slot, number)
        for name, slot, number in (("a", 2, 1), ("b", 3, 11))
    )
    group = (one, other)
    assert named_by("-device virtio-net-pci,id=d1,addr=2: no", group) == {"d1"}
    assert named_by("device '0000:00:03.0/e1000'", group) == {"d11"}
    assert named_by("id=d1 and id=d11", group) == {"d1", "d11"}
    assert named_by("id=d110, 0000:00:03.1", group) == frozenset()


def test_warnings_are_no_words() -> None:
    text = (
        "qemu-system-x86_64: warning: TCG doesn't support it\nqemu-system-x86_64: -device x: no such thing\n"
    )
    assert last_words(text) == "-device x: no such thing"


@pytest.mark.parametrize(
    "words",
    [
        "State blocked by non-migratable device '0000:00:09.0/nvme'",
        "Migration is disabled when VirtFS export path '/' is mounted",
        "usb-mtp: migration is not supported",
    ],
)
def test_a_build_that_says_it_does_not_migrate(words: str) -> None:
    assert BLOCKED.search(words)
    assert not BLOCKED.search("Unable to write to socket: Broken pipe")


# -- builds -----------------------------------------------------------------------------------------------


def build(label: str, *, types: tuple[str, ...] = ("e1000", "nvme"), version: int = 10) -> BuildInfo:
    machines = {f"pc-i440fx-{number}.0" for number in range(8, version + 1)} | {"microvm", "none"}
    return BuildInfo(
        label=label,
        binary=Path(f"/bin/qemu-{label}"),
        target="x86_64",
        version=(version, 0, 0),
        package="Debian",
        machines=frozenset(machines),
        aliases={"pc": f"pc-i440fx-{version}.0"},
        types={"pci": frozenset(types), "isa": frozenset(), "usb": frozenset(), "mmio": frozenset(),
               "device": frozenset(types)},
        internal=frozenset(),
        properties={
            type_: frozenset({"netdev", "romfile"} if type_ == "e1000" else {"drive"}) for type_ in types
        },
    )  # fmt: skip


def test_machine_types() -> None:
    old, new = build("9", version=9), build("11", version=11)
    assert common_machine(board("pc"), [old, new]) == ("pc-i440fx-9.0", "")
    assert common_machine(board("microvm"), [old, new]) == ("microvm", "")
    machine, why = common_machine(board("q35"), [old, new])
    assert (machine, bool(why)) == ("", True)


def test_devices_come_from_the_builds() -> None:
    builds = [build("9"), build("11", types=("e1000", "nvme", "future-pci", "vfio-pci"))]
    names = {device.name: device for device in catalog.devices_of(board("pc"), builds)}
    assert {"e1000", "nvme", "future-pci"} <= set(names)
    assert "vfio-pci" not in names
    assert catalog.left_out(board("pc"), builds) == {"vfio-pci": "needs a host device"}
    assert any("null-co" in argument for argument in names["nvme"].arguments)
    assert names["e1000"].only[State.INITIALISED] == ("-set device.{id}.romfile=",)
    chosen = catalog.select(names.values(), ("e10*",))
    assert [device.name for device in chosen] == ["e1000"]
    assert catalog.select(names.values(), COMMON, by_type=False) == catalog.select(
        names.values(), ("e1000", "nvme")
    )


def test_thirty_devices_and_more_are_common() -> None:
    assert len(set(COMMON)) == len(COMMON) >= 30


# -- cells ------------------------------------------------------------------------------------------------

CELL = Cell(
    board="pc", machine="pc-i440fx-10.0", device="nvme", state=State.IDLE, source="9", destination="11",
    outcome=Outcome.WORKS, source_binary="/bin/a", destination_binary="/bin/b",
)  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome.WORKS, Verdict.PASS),
        (Outcome.UNSUPPORTED, Verdict.UNSUPPORTED),
        (Outcome.BASE_FAILS, Verdict.INFORMATIONAL),
        (Outcome.ERROR, Verdict.ERROR),
        *((outcome, Verdict.FAIL) for outcome in Outcome if "s" in outcome and outcome not in
          {Outcome.WORKS, Outcome.UNSUPPORTED, Outcome.BASE_FAILS, Outcome.ERROR}),
    ],
)  # fmt: skip
def test_outcomes_are_verdicts(outcome: Outcome, verdict: Verdict) -> None:
    row = row_of(replace(CELL, outcome=outcome), target_of(build("9", version=9), build("11", version=11)))
    assert (row.verdict, row.case, row.variant, row.outcome) == (verdict, CASE.id, "pc/nvme/idle", outcome)
    assert row.repeat == (
        "qmig conformance matrix --qemu /bin/a --qemu /bin/b --machine pc --device nvme --state idle "
        "--pair 9.0.0:11.0.0"
    )


def test_a_row_says_where_and_what_each_side_said() -> None:
    cell = replace(
        CELL, outcome=Outcome.DESTINATION_REFUSES, blame=Blame("nvme", "sq", "no"), together=3,
        source_command="q -S", source_says="a\nb", destination_says="c",
        differences=[Difference("nvme", "sq", "1", "2")],
    )  # fmt: skip
    row = row_of(cell, target_of(build("9"), build("11")))
    assert row.stderr == "source: q -S\nsource: a\nsource: b\ndestination: c"
    assert row.actual == (
        "destination refuses: section nvme field sq; machine pc-i440fx-10.0; "
        "with 2 more devices in the machine; "
        "stored differently: nvme sq: 1 by the source's build, 2 by the destination's"
    )


@pytest.mark.parametrize(
    ("idle", "initialised", "sign"),
    [
        (Outcome.WORKS, Outcome.WORKS, "●"),
        (Outcome.WORKS, Outcome.DEVICE_DIFFERS, "◐"),
        (Outcome.DESTINATION_REFUSES, Outcome.WORKS, "◑"),
        (Outcome.DESTINATION_REFUSES, Outcome.SOURCE_CRASHES, "○"),
        (Outcome.UNSUPPORTED, Outcome.UNSUPPORTED, "–"),
        (Outcome.BASE_FAILS, Outcome.BASE_FAILS, "·"),
        (Outcome.WORKS, Outcome.ERROR, "!"),
        (Outcome.WORKS, None, "●"),
        (None, None, "–"),
    ],
)
def test_marks(idle: Outcome | None, initialised: Outcome | None, sign: str) -> None:
    cells = [
        replace(CELL, state=state, outcome=outcome)
        for state, outcome in ((State.IDLE, idle), (State.INITIALISED, initialised))
        if outcome is not None
    ]
    assert mark(cells) == sign


def test_the_page(tmp_path: Path) -> None:
    builds = [build("9"), build("11")]
    targets = targets_of(builds)
    cells = [CELL, replace(CELL, device="a|b", outcome=Outcome.MEMORY_DIFFERS)]
    report = Report(started="", seconds=1, command=[], targets=list(targets.values()))
    report.rows = [row_of(cell, targets["9", "11"]) for cell in cells]
    write_table(tmp_path / "M.md", report, builds, Played(cells=cells))
    text = (tmp_path / "M.md").read_text()
    assert "| a\\|b | ○ |" in text
    assert "| nvme | ● |" in text
    assert "**fail** pc/a\\|b/idle, 9 to 11: memory differs" in text


# -- streams ----------------------------------------------------------------------------------------------


def stream(name: str, tmp_path: Path) -> Path:
    (vector,) = [found for found in load_vectors("legacy/recordings") if found.id.endswith(f"#{name}")]
    path = tmp_path / name
    path.write_bytes(vector.data("main"))
    return path


def test_fields_that_builds_store_differently(tmp_path: Path) -> None:
    one = stream("11.1-precopy-plain-q35", tmp_path)
    assert list(differences(one, one, "")) == []
    found = contents(one.read_bytes(), "timer")
    ((key, fields),) = found.items()
    assert key == ("timer", 0)
    assert int(fields["cpu_ticks_offset"]) == int(fields["cpu_ticks_offset"])
    data = one.read_bytes()
    at = data.index(b"\x05timer") + 6 + 8
    changed = tmp_path / "changed"
    changed.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert [difference.field for difference in differences(one, changed, "timer")] == ["cpu_ticks_offset"]
