"""From packages to a QEMU that runs: unpacked tree, own loader, wrapper scripts.

A build runs on the loader and libraries of its own packages, so it is independent of the host's. The
wrapper starts it as ``ld.so --library-path … qemu-system-X``; QEMU therefore sees the loader as its own
executable, and the link ``qemu-bundle`` beside the loader (a name QEMU looks for since 6.0) leads it back
to its data files and modules, never to those of a QEMU that is installed on the host.
"""

from __future__ import annotations

import re
import shlex
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from qmig.builds.archive import BuildError, Report, run, silent

#: Pulled in by dependencies for installation scripts, never needed to run QEMU.
UNNEEDED = re.compile(
    r"(systemd|udev|perl|perl-base|perl-modules.*|libperl.*|adduser|passwd|debconf|acl|dpkg|tar"
    r"|openssl-provider-legacy|libc-gconv-modules-extra|iso-codes)"
)
_UNREAD_FOLDERS = ("doc", "man", "locale", "bash-completion", "lintian", "bug")
_DATA_FOLDERS = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
_PT_INTERP = 3

_WRAPPER = """#!/bin/sh
# Runs one unpacked QEMU build with its own loader, libraries, modules and firmware.
here=$(dirname -- "$(readlink -f -- "$0")")
root=$(cd -- "$here"/../{name}/root && pwd -P) || exit 127
{environment}exec "$root"/{loader} --inhibit-cache --library-path {libraries} "$root"/{program} {options}"$@"
"""


def unpack(packages: Iterable[Path], root: Path, report: Report = silent) -> None:
    """Unpack packages below `root`, as the calling user, and leave out what a running QEMU never reads."""
    packages = list(packages)
    root.mkdir(parents=True, exist_ok=True)
    for number, package in enumerate(packages):
        report("unpacking", number / len(packages))
        run(["dpkg-deb", "-x", str(package), str(root)], f"unpacking {package.name}")
    for folder in _UNREAD_FOLDERS:
        shutil.rmtree(root / "usr/share" / folder, ignore_errors=True)


def interpreter(program: Path) -> str:
    """The loader that an ELF program asks for, such as ``/lib64/ld-linux-x86-64.so.2``."""
    with program.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            raise BuildError(f"{program} is not a 64-bit little-endian ELF program")
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(table + index * size)
            entry = file.read(56)
            if len(entry) == 56 and struct.unpack_from("<I", entry)[0] == _PT_INTERP:
                offset, length = struct.unpack_from("<Q", entry, 8)[0], struct.unpack_from("<Q", entry, 32)[0]
                file.seek(offset)
                return file.read(min(length, 4096)).rstrip(b"\0").decode("ascii", "replace")
    raise BuildError(f"{program} names no loader")


class Launcher:
    """How the programs of one unpacked tree are started."""

    def __init__(self, root: Path, program: str) -> None:
        """`program` is one of the tree's programs, relative to `root`; it decides on loader and libraries."""
        self.root = root.resolve()
        self.loader = self._find_loader(interpreter(self.root / program))
        self.libraries = self._library_folders()
        self._add_missing(program)
        bundle = self.loader.parent / "qemu-bundle"
        if not bundle.is_symlink():
            bundle.symlink_to("/".join([".."] * len(self.loader.parent.relative_to(self.root).parts)))

    def _find_loader(self, wanted: str) -> Path:
        name = Path(wanted).name
        for candidate in [self.root / wanted.lstrip("/"), *sorted(self.root.glob(f"**/{name}"))]:
            # A link in a package may be absolute: then it leads to the host, not into the tree.
            target = candidate.resolve()
            if target.is_file() and target.is_relative_to(self.root):
                return target
        raise BuildError(f"the packages hold no loader {name}")

    def _library_folders(self) -> list[Path]:
        triplet = self.loader.parent.name
        folders = (f"usr/lib/{triplet}", f"lib/{triplet}", "usr/lib", "lib", "usr/lib64", "lib64")
        present = [self.root / folder for folder in folders if (self.root / folder).is_dir()]
        return list(dict.fromkeys(folder.resolve() for folder in present))

    def _add_missing(self, program: str) -> None:
        """Some libraries lie in folders that only an installation script would make known: find those."""
        while missing := self.missing(program):
            found = {path.parent for name in missing for path in self.root.glob(f"**/{name}")}
            added = sorted(found - set(self.libraries))
            if not added:
                raise BuildError(f"{program}: no package holds {', '.join(missing)}")
            self.libraries += added

    def missing(self, program: str) -> list[str]:
        """Names of libraries that `program` needs and the loader does not find."""
        command = [str(self.loader), "--inhibit-cache", "--library-path", ":".join(map(str, self.libraries))]
        # Not `ld.so --list`, which stops at the first library that it does not find.
        trace = {"LD_TRACE_LOADED_OBJECTS": "1"}
        text = run([*command, str(self.root / program)], program, env=trace)
        return re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE)

    def write_wrapper(self, wrapper: Path, name: str, program: str) -> None:
        """A script that starts `program` of the build `name`, wherever the prefix is moved to."""
        modules = f"usr/lib/{self.loader.parent.name}/qemu"
        environment = f'export QEMU_MODULE_DIR="$root"/{shlex.quote(modules)}\n'
        data = [f'-L "$root"/{folder} ' for folder in _DATA_FOLDERS if (self.root / folder).is_dir()]
        text = _WRAPPER.format(
            name=shlex.quote(name),
            environment=environment,
            loader=shlex.quote(str(self.loader.relative_to(self.root))),
            libraries=":".join(
                f'"$root"/{shlex.quote(str(f.relative_to(self.root)))}' for f in self.libraries
            ),
            program=shlex.quote(program),
            options="".join(data) if "qemu-system-" in program else "",
        )
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        fresh = wrapper.with_name(f".{wrapper.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o755)
        fresh.replace(wrapper)  # a wrapper that somebody is starting stays whole
