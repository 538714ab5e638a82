"""What builds say of themselves, asked over QMP: machines, devices, properties, version, target."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qmig.peers.qemu import QemuDied, QemuProcess, start_qemu
from qmig.qmp import QmpCommandError
from qmig_conformance.matrix.hosts import elsewhere
from qmig_conformance.matrix.model import Board, BuildInfo

#: kind of bus -> the QOM class whose subclasses plug into it
KINDS: Mapping[str, str] = {
    "pci": "pci-device",
    "isa": "isa-device",
    "usb": "usb-device",
    "mmio": "virtio-device",
    "device": "device",
}
_LISTED = re.compile(r'^name "(?P<name>[^"]+)"(?P<rest>.*)$', re.MULTILINE)
_NUMBERED = re.compile(r"\d+(?:\.\d+)+$")
_NO_MACHINE = ("-M", "none", "-nodefaults", "-S")


async def describe(binary: Path, label: str = "") -> BuildInfo:
    """Starts the build without a machine and asks it. Raises QemuDied, EnvironmentProblem."""
    async with start_qemu(binary, _NO_MACHINE) as vm:
        machines = await vm.execute("query-machines")
        types = {kind: await _types(vm, class_) for kind, class_ in KINDS.items()}
        listed = await vm.hmp("info qdm")
        build = BuildInfo(
            label=label or ".".join(map(str, vm.version)),
            binary=binary,
            target=(await vm.execute("query-target"))["arch"],
            version=vm.version,
            package=vm.qmp.package,
            machines=frozenset(machine["name"] for machine in machines),
            aliases={machine["alias"]: machine["name"] for machine in machines if "alias" in machine},
            types=types,
            internal=frozenset(m["name"] for m in _LISTED.finditer(listed) if "no-user" in m["rest"]),
            properties={},
        )
    listed_types = frozenset().union(*(types[kind] for kind in KINDS if kind != "device")) - build.internal
    properties, missing = await _properties(binary, [name for name in listed_types if not elsewhere(name)])
    return replace(build, properties=properties, missing=missing)


async def _properties(
    binary: Path, wanted: Iterable[str]
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Properties of types, and what a build said of those that it lists and does not have after all: 7.2 ends
    when it is asked for a type whose module is not installed."""
    found: dict[str, frozenset[str]] = {}
    missing: dict[str, str] = {}
    left = sorted(wanted)
    while left:
        try:
            async with start_qemu(binary, _NO_MACHINE) as vm:
                while left:
                    rows = await vm.execute("device-list-properties", {"typename": left[-1]})
                    found[left.pop()] = frozenset(row["name"] for row in rows)
        except QemuDied as death:
            missing[left.pop()] = death.output.strip()
        except QmpCommandError as problem:
            missing[left.pop()] = problem.desc
    return found, missing


async def refusals(binary: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The build's own words for each type that it does not have."""
    words = {}
    async with start_qemu(binary, _NO_MACHINE) as vm:
        for type_ in sorted(wanted):
            try:
                await vm.execute("device_add", {"driver": type_, "id": "asked"})
            except QmpCommandError as problem:
                words[type_] = problem.desc
    return words


async def _types(vm: QemuProcess, class_: str) -> frozenset[str]:
    rows = await vm.execute("qom-list-types", {"implements": class_, "abstract": False})
    return frozenset(row["name"] for row in rows)


def family(board: Board, build: BuildInfo) -> dict[tuple[int, ...], str]:
    """Version -> machine type, for the versioned machine types of the board's family."""
    newest = build.aliases.get(board.alias)
    if newest is None:
        return {}
    stem = _NUMBERED.sub("", newest)
    found = {}
    for name in build.machines:
        if name.startswith(stem) and (match := _NUMBERED.fullmatch(name, len(stem))):
            found[tuple(map(int, match[0].split(".")))] = name
    return found


def common_machine(board: Board, builds: Sequence[BuildInfo]) -> tuple[str, str]:
    """The newest machine type that all builds have, or else what says that there is none.

    A family without versions (microvm) is its own machine type.
    """
    families = [family(board, build) for build in builds]
    if not any(families):
        lacking = [build for build in builds if board.alias not in build.machines]
        if lacking:
            return "", f"query-machines of {lacking[0].label} has no {board.alias}"
        return board.alias, ""
    shared = set.intersection(*(set(found.values()) for found in families))
    ranked = sorted((version, name) for version, name in families[0].items() if name in shared)
    if not ranked:
        return "", f"no machine type like {board.alias} is in query-machines of both"
    return ranked[-1][1], ""
