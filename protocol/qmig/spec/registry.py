"""Registries: `spec/registries/NAME.toml`, the normative numbers.

The Python enum repeats them, literally; `differences` compares both ways. A row may carry a sample of
the record it stands for, which the generic round-trip test reads and writes back.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from qmig.errors import QmigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row. `since` "5.2" means 5.2 or before; `until` is the last version that has it, None if all."""

    value: int | str
    name: str
    since: str
    until: str | None = None
    requirement: str
    note: str = ""
    #: bytes of one such record, and "module:Record" that reads them
    sample: bytes | None = None
    record: str | None = None
    #: words of the reader's context that the sample needs (see `qmig._wire.wire_if`)
    context: frozenset[str] = frozenset()
    #: columns that only this registry has, by the keys of `Registry.columns`
    extra: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    #: file name without ".toml"
    name: str
    title: str
    #: chapter file that shows it, such as "20-sections"
    chapter: str
    #: "module:Class", or None where the code has no enum for it
    enum: str | None
    #: hexadecimal digits in which values are shown; 0 means decimal
    hex_digits: int
    #: further columns: key -> heading
    columns: Mapping[str, str]
    entries: tuple[Entry, ...]

    def value_text(self, value: int | str) -> str:
        return (
            value
            if isinstance(value, str)
            else f"{value:#0{self.hex_digits + 2}x}"
            if self.hex_digits
            else str(value)
        )


_OWN = frozenset({"value", "name", "since", "until", "requirement", "note", "sample", "record", "context"})


def registry_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "registries").glob("*.toml"))


def load_registry(root: Path, name: str) -> Registry:
    """One registry. Raises `QmigError` when the file is no TOML or lacks what its schema demands."""
    raw = read_toml(root, name)
    try:
        return Registry(
            name=name,
            title=raw["title"],
            chapter=raw["chapter"],
            enum=raw.get("enum"),
            hex_digits=raw.get("hex_digits", 0),
            columns=raw.get("columns", {}),
            entries=tuple(map(_entry, raw["entry"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise QmigError(f"spec/registries/{name}.toml: {type(problem).__name__}: {problem}") from None


def read_toml(root: Path, name: str) -> dict[str, Any]:
    path = root / "registries" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QmigError(f"no registry {name!r} in {path.parent}") from None
    except tomllib.TOMLDecodeError as problem:
        raise QmigError(f"{path}: {problem}") from None


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        value=raw["value"],
        name=raw["name"],
        since=raw["since"],
        until=raw.get("until"),
        requirement=raw["requirement"],
        note=raw.get("note", ""),
        sample=bytes.fromhex(raw["sample"]) if "sample" in raw else None,
        record=raw.get("record"),
        context=frozenset(raw.get("context", ())),
        extra={key: value for key, value in raw.items() if key not in _OWN},
    )


def resolve(target: str) -> Any:
    """The object behind "module:name". Raises `QmigError` when there is none."""
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise QmigError(f"{target!r} names nothing: {problem}") from None


def differences(registry: Registry) -> list[str]:
    """What registry and enum do not agree on, in both directions."""
    if registry.enum is None:
        return []
    cls = resolve(registry.enum)
    if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
        return [f"{registry.enum} is not an enum"]
    code: dict[str, object] = {name: member.value for name, member in cls.__members__.items()}
    spec: dict[str, object] = {entry.name: entry.value for entry in registry.entries}
    found = [f"{name} = {spec[name]!r} is not in {registry.enum}" for name in spec if name not in code]
    found += [
        f"{registry.enum}.{name} = {code[name]!r} is not in the registry" for name in code if name not in spec
    ]
    both = (name for name in spec if name in code and spec[name] != code[name])
    return found + [
        f"{name} is {spec[name]!r} in the registry, {code[name]!r} in {registry.enum}" for name in both
    ]
