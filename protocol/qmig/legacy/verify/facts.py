"""What is known about a migration: from the stream itself, and from whoever recorded it.

A stream does not name the QEMU that wrote it. What it shows narrows the range down: a machine type exists
from its own version on, and records, commands and keys of the description came and went. `unknown` is an
answer: a rule that depends on it is then not checkable, never guessed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: (major, minor)
Version = tuple[int, int]

NEVER: Final[Version] = (999, 0)
OLDEST: Final[Version] = (0, 0)

_VERSIONED: Final = re.compile(r"-(\d{1,2})\.(\d{1,2})(?:\.\d+)?(?:-.*)?\Z")
#: machine families of x86, whose page size never varies
_X86: Final = re.compile(r"(pc-|microvm|isapc|xenfv|xenpv|x-remote)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the caller knows beyond the bytes. None stands for "not said"."""

    #: version of the source QEMU
    version: Version | None = None
    #: machine type of the source
    machine: str | None = None
    #: capabilities that were on at the source
    capabilities: frozenset[str] | None = None
    #: migration parameters of the source
    parameters: Mapping[str, Any] | None = None
    #: properties of the source's `migration` object that were set by hand; empty: none was
    properties: Mapping[str, bool] | None = None
    #: whether the machine's description was switched off by hand
    suppress_vmdesc: bool | None = None

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Known:
        """From the `meta.json` beside a recording; what it lacks stays unknown."""
        source = meta.get("source")
        source = source if isinstance(source, Mapping) else {}
        capabilities = meta.get("capabilities")
        argv = source.get("argv")
        words = [str(word) for word in argv] if isinstance(argv, list) else None
        parameters = meta.get("parameters_seen")
        machine = meta.get("machine")
        return cls(
            machine=machine if isinstance(machine, str) else _machine(words or []),
            version=version_of(str(source.get("version", ""))),
            capabilities=frozenset(name for name, on in capabilities.items() if on)
            if isinstance(capabilities, Mapping)
            else None,
            parameters=parameters if isinstance(parameters, Mapping) else None,
            properties=_migration_properties(words) if words is not None else None,
            suppress_vmdesc=_suppressed(words) if words is not None else None,
        )


def _machine(words: list[str]) -> str | None:
    """The machine type of a command line, which may be an alias (`pc`)."""
    for option, value in itertools.pairwise(words):
        first = value.partition(",")[0].removeprefix("type=")
        if option in {"-M", "-machine", "--machine"} and first and "=" not in first:
            return first
    return None


def version_of(text: str) -> Version | None:
    """(10, 0) of "10.0.13"; None where there is none."""
    found = re.match(r"(\d{1,3})\.(\d{1,3})", text)
    return (int(found[1]), int(found[2])) if found else None


def _migration_properties(words: list[str]) -> dict[str, bool]:
    """`-global migration.NAME=on` of a command line."""
    found = {}
    for option, value in itertools.pairwise(words):
        match = re.fullmatch(r"migration\.([\w-]+)=(\w+)", value) if option == "-global" else None
        if match:
            found[match[1]] = match[2] in {"on", "true", "yes", "y"}
    return found


def _suppressed(words: list[str]) -> bool:
    return any(re.search(r"suppress-vmdesc=(?:on|true|yes|y)(?:,|\Z)", word) for word in words)


def machine_version(name: str | None) -> Version | None:
    """(11, 1) of "pc-i440fx-11.1"; None for machine types that are not versioned."""
    found = _VERSIONED.search(name or "")
    return (int(found[1]), int(found[2])) if found else None


#: property -> (last machine version with the old value, old value, first QEMU version that has it)
PROPERTIES: Final[dict[str, tuple[Version, bool, Version]]] = {
    "send-configuration": ((2, 3), False, OLDEST),
    "send-section-footer": ((2, 3), False, OLDEST),
    "store-global-state": ((2, 3), False, OLDEST),
    "x-preempt-pre-7-2": ((7, 2), True, (7, 1)),
    "multifd-flush-after-each-section": ((8, 0), True, OLDEST),
    "send-switchover-start": ((9, 2), False, (10, 0)),
    "switchover-ack-legacy": ((11, 0), True, (8, 1)),
}


#: machine types without a version that have no compat properties
UNVERSIONED: Final = frozenset({"none", "microvm", "isapc", "x-remote"})


@dataclass(slots=True)
class Facts:
    """Everything known so far; checkers add to it."""

    known: Known = field(default_factory=Known)
    #: name in the configuration section, or given
    machine: str | None = None
    #: validated capabilities of the configuration section; None without such a section
    validated: frozenset[str] | None = None
    #: of the configuration section
    uuid: bytes | None = None
    low: Version = OLDEST
    high: Version = NEVER
    #: what the stream did: "return-path", "postcopy", "eof", "multifd", "vmdesc" …
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.known.version is not None:
            self.low = self.high = self.known.version
        self.machine = self.known.machine

    def since(self, version: Version) -> None:
        """The stream shows that the source is this version or a later one."""
        if self.known.version is None:
            self.low = max(self.low, version)

    def until(self, version: Version) -> None:
        """The stream shows that the source is this version or an earlier one."""
        if self.known.version is None:
            self.high = min(self.high, version)

    @property
    def machine_version(self) -> Version | None:
        return machine_version(self.machine)

    @property
    def x86(self) -> bool:
        return bool(self.machine and _X86.match(self.machine))

    def at_least(self, version: Version) -> bool | None:
        """Whether the source is this version or later; None: not known."""
        if self.low >= version:
            return True
        return False if self.high < version else None

    def capability(self, name: str) -> bool | None:
        """Whether a capability was on at the source; None: not known."""
        if self.known.capabilities is not None:
            return name in self.known.capabilities
        if name in {"x-ignore-shared", "mapped-ram"} and self.validated is not None:
            return name in self.validated
        return True if name in self.seen else None

    def parameter(self, name: str) -> Any:
        """A migration parameter of the source; None: not known."""
        return (self.known.parameters or {}).get(name)

    def machine_property(self, name: str) -> bool | None:
        """A property of the `migration` object; None: not known, for it may have been set by hand."""
        if self.known.properties is None:
            return None
        if name in self.known.properties:
            return self.known.properties[name]
        last, old, first = PROPERTIES[name]
        has = self.at_least(first)
        if not has:
            return None if has is None else old
        version = self.machine_version
        if version is None:
            # `none`, `microvm`, `isapc` follow the newest; a distribution's own type may follow any.
            return (not old) if self.machine in UNVERSIONED else None
        return (not old) if version > last else old
