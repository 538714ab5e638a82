"""Which builds there are: the prefix, and how a QEMU is looked for.

Layout of a prefix::

    PREFIX/NAME/build.json                  what was got (`Build`)
    PREFIX/NAME/root/                       the unpacked packages
    PREFIX/bin/qemu-system-TARGET-NAME      run it: no root, no chroot
    PREFIX/bin/qemu-img-NAME

NAME is the version as it was asked for (``10.0``), because that is what scripts go on naming while the
archive moves from 10.0.13 to 10.0.14.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmig.builds.archive import BuildError, run

_WRAPPER = re.compile(r"qemu-system-(?P<target>[A-Za-z0-9_]+)-(?P<name>[0-9][A-Za-z0-9.~+-]*)")
_BANNER = re.compile(r"QEMU emulator version (?P<version>\d+(?:\.\d+)+\S*)(?: \((?P<package>[^)]*)\))?")
RECORD = "build.json"


@dataclass(frozen=True, slots=True)
class Qemu:
    """One QEMU program that can be started."""

    target: str
    binary: Path
    #: what it says of itself, such as ``10.0.13``
    version: str
    #: the packager's version, such as ``Debian 1:10.0.13+ds-0+deb13u1``; empty when the program tells none
    package: str
    #: ``explicit``, ``prefix`` or ``path``: how it was found
    found: str

    def __str__(self) -> str:
        package = f" ({self.package})" if self.package else ""
        return f"QEMU {self.version}{package} at {self.binary}"


@dataclass(frozen=True, slots=True)
class Build:
    """One installed build of a prefix."""

    name: str
    version: str
    package: str
    targets: tuple[str, ...]
    prefix: Path
    #: suite and its name at that time, mirror, signature check, packages with versions and SHA256; empty for
    #: a prefix that another tool made
    provenance: dict[str, Any] = field(default_factory=dict)

    def binary(self, target: str) -> Path:
        return self.prefix / "bin" / f"qemu-system-{target}-{self.name}"

    @property
    def qemu_img(self) -> Path:
        return self.prefix / "bin" / f"qemu-img-{self.name}"

    def qemu(self, target: str) -> Qemu:
        return Qemu(target, self.binary(target), self.version, self.package, "prefix")

    def as_json(self) -> dict[str, Any]:
        """The build as a JSON object; `provenance` spread into it."""
        return {
            "name": self.name,
            "version": self.version,
            "package": self.package,
            "targets": list(self.targets),
            "binaries": {target: str(self.binary(target)) for target in self.targets},
            **self.provenance,
        }


def default_prefix() -> Path:
    """`$QMIG_BUILDS`, else ``$XDG_CACHE_HOME/qmig/builds``, else ``~/.cache/qmig/builds``."""
    if named := os.environ.get("QMIG_BUILDS"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "qmig" / "builds"


def version_matches(wanted: str, version: str) -> bool:
    """Whether `version` is `wanted` or a later member of it: 10.0 takes 10.0.13 and 10.0~rc1, not 10.01."""
    return version == wanted or (version.startswith(wanted) and version[len(wanted)] in ".+~-")


def version_key(version: str) -> tuple[int, ...]:
    """Sorts versions by their numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def probe(binary: Path, found: str = "explicit") -> Qemu:
    """Start `binary` with ``--version`` and tell what it is; BuildError if it is no QEMU that starts here."""
    text = run([str(binary), "--version"], f"{binary} --version")
    match = _BANNER.search(text)
    if match is None:
        raise BuildError(f"{binary} --version does not answer as a QEMU does: {text.strip()[:80]!r}")
    named = re.match(r"qemu-system-([A-Za-z0-9_]+)", binary.name)
    return Qemu(named[1] if named else "", binary, match["version"], match["package"] or "", found)


def installed(prefix: Path | None = None) -> list[Build]:
    """The builds of a prefix, oldest version first. A prefix that does not exist has none."""
    prefix = (prefix or default_prefix()).absolute()
    targets: dict[str, list[str]] = {}
    for wrapper in sorted((prefix / "bin").glob("qemu-system-*")):
        if match := _WRAPPER.fullmatch(wrapper.name):
            targets.setdefault(match["name"], []).append(match["target"])
    builds = [_read(prefix, name, tuple(found)) for name, found in targets.items()]
    return sorted(builds, key=lambda build: version_key(build.version))


def _read(prefix: Path, name: str, targets: tuple[str, ...]) -> Build:
    path = prefix / name / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, package = str(record.pop("version")), str(record.pop("package"))
    except FileNotFoundError:
        qemu = probe(prefix / "bin" / f"qemu-system-{targets[0]}-{name}", "prefix")
        return Build(name, qemu.version, qemu.package, targets, prefix)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BuildError(f"{path} is damaged ({problem}); get the build again with --again") from problem
    return Build(name, version, package, targets, prefix, {**record, "targets": list(targets)})


def find(
    target: str = "x86_64",
    version: str | None = None,
    *,
    explicit: Path | None = None,
    prefix: Path | None = None,
) -> Qemu | None:
    """A QEMU for `target`, of `version` if one is named: explicit path, then prefix, then PATH.

    Without a version the newest build of the prefix is taken. An explicit path that is no working QEMU, or
    another version than the one named, is a BuildError, never passed over.
    """
    if explicit is not None:
        qemu = probe(explicit)
        if version is not None and not version_matches(version, qemu.version):
            raise BuildError(f"{explicit} is QEMU {qemu.version}, not {version}")
        return qemu
    for build in reversed(installed(prefix)):
        named = version is None or build.name == version or version_matches(version, build.version)
        if target in build.targets and named:
            return build.qemu(target)
    on_path = find_on_path(target)
    if on_path is not None and (version is None or version_matches(version, on_path.version)):
        return on_path
    return None


def find_on_path(target: str = "x86_64") -> Qemu | None:
    """The QEMU for `target` that PATH leads to; BuildError if there is one and it does not start."""
    found = shutil.which(f"qemu-system-{target}")
    return probe(Path(found), "path") if found else None
