"""Getting a build: choose the suite, resolve, download, unpack, try it, put it in place.

A build appears in the prefix only when it is whole: everything happens in a working folder there, which is
renamed at the end and removed whatever happens. A lock lets several processes use one prefix.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from qmig.builds.archive import (
    DEBIAN_SUITES,
    Archive,
    BuildError,
    Report,
    Source,
    host_architecture,
    machine_source,
    os_release,
    run,
    silent,
)
from qmig.builds.store import RECORD, Build, Qemu, default_prefix, find, installed, probe, version_matches
from qmig.builds.unpack import UNNEEDED, Launcher, unpack

#: Packages that may hold the program of a target: the first one the suite has is taken.
TARGET_PACKAGES = {
    "x86_64": ("qemu-system-x86",),
    "aarch64": ("qemu-system-arm",),
    "ppc64": ("qemu-system-ppc",),
    "riscv64": ("qemu-system-riscv", "qemu-system-misc"),
    "s390x": ("qemu-system-s390x", "qemu-system-misc"),
}
DEFAULT_TARGETS = ("x86_64", "aarch64")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)+")


class Installer:
    """Puts builds into one prefix; the archive's index is read once for all of them.

    A context manager: it holds the lock of the prefix and a working folder there, which goes at the end.
    """

    def __init__(
        self, prefix: Path | None = None, source: Source | None = None, report: Report = silent
    ) -> None:
        self.prefix = (prefix or default_prefix()).absolute()
        self._source = source
        self._report = report
        self._stack = ExitStack()
        self._catalogue: Catalogue | None = None

    def __enter__(self) -> Self:
        self._work = self._stack.enter_context(_working_folder(self.prefix))
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def get(self, version: str, targets: Sequence[str] = DEFAULT_TARGETS, *, again: bool = False) -> Build:
        """See `qmig.builds.get`."""
        if not _VERSION.fullmatch(version):
            raise BuildError(f"{version!r} is not a QEMU version such as 10.0 or 7.2.22")
        if unknown := [target for target in targets if target not in TARGET_PACKAGES]:
            raise BuildError(
                f"no package is known for target {unknown[0]}; known: {', '.join(TARGET_PACKAGES)}"
            )
        had = next((build for build in installed(self.prefix) if build.name == version), None)
        if had is not None and not again:
            if set(targets) <= set(had.targets):
                return had
            targets = list(dict.fromkeys([*had.targets, *targets]))
        if self._catalogue is None:
            self._catalogue = Catalogue(self._source or machine_source(), self._work, self._report)
        offer = self._catalogue.offer(version, targets)
        work = Path(tempfile.mkdtemp(dir=self._work))
        return _install(version, targets, offer, self.prefix, work, self._report)


def get(
    version: str,
    *,
    targets: Sequence[str] = DEFAULT_TARGETS,
    prefix: Path | None = None,
    source: Source | None = None,
    again: bool = False,
    report: Report = silent,
) -> Build:
    """Have a build of `version` (``10.0`` takes any 10.0.x) in the prefix, and tell what it is.

    A build of that name that has the targets is left as it is unless `again`. Raises BuildError when no
    suite of the archive offers the version, the archive cannot be reached or trusted, or the result does
    not run here.
    """
    with Installer(prefix, source, report) as installer:
        return installer.get(version, targets, again=again)


def find_or_install(
    target: str = "x86_64",
    version: str | None = None,
    *,
    explicit: Path | None = None,
    prefix: Path | None = None,
    source: Source | None = None,
    report: Report = silent,
) -> Qemu:
    """`find`, and where it finds nothing `get` into the prefix. Without a version: the one that the machine's
    own distribution release has.

    Unpacked into the prefix also for root, although ``apt-get install`` would do: it leaves the machine as
    it was, leaves out what a headless QEMU never uses, and gives every user the same result.
    """
    qemu = find(target, version, explicit=explicit, prefix=prefix)
    if qemu is not None:
        return qemu
    source = source or machine_source()
    if version is None:
        codename = os_release().get("VERSION_CODENAME")
        if codename and source.suites == DEBIAN_SUITES:
            source = replace(source, suites=(codename, *source.suites))
        with tempfile.TemporaryDirectory(prefix="qmig-builds-") as work:
            version = Catalogue(source, Path(work), report).newest(target)
    return get(version, targets=[target], prefix=prefix, source=source, report=report).qemu(target)


def upstream(version: str) -> str:
    """QEMU's version out of a package version: ``1:10.0.13+ds-0+deb13u1`` is ``10.0.13+ds-0+deb13u1``."""
    return version.partition(":")[2] or version


@dataclass(frozen=True, slots=True)
class Offer:
    """What to install for one build, and from where."""

    archive: Archive
    suite: str
    #: package to version
    wanted: dict[str, str]


class Catalogue:
    """The suites of a source, read one after the other as far as the search has to go."""

    def __init__(self, source: Source, work: Path, report: Report) -> None:
        self.source, self._work, self._report = source, work, report
        self._archives: list[Archive] = []
        self._unread = list(source.suites)
        self._problems: list[BuildError] = []

    def __iter__(self) -> Iterator[Archive]:
        yield from self._archives
        while self._unread:
            spec = self._unread[0]
            self._report(f"reading the index of {spec}", None)
            archive = Archive(self.source, spec, host_architecture(), self._work)
            try:
                # Once one suite could not be reached, insisting on the others only takes time.
                archive.update(retries=0 if self._problems else 3)
            except BuildError as problem:
                self._problems.append(problem)
            else:
                self._archives.append(archive)
                yield archive
            finally:
                self._unread.remove(spec)
        if not self._archives:
            raise self._problems[0]

    def offer(self, version: str, targets: Sequence[str]) -> Offer:
        """The first archive that has `version` for all targets; BuildError says what is offered instead."""
        seen: dict[str, None] = {}
        for archive in self:
            chosen: dict[str, tuple[str, str]] = {}
            for target in targets:
                offers = ((name, _pick(archive, name, version)) for name in TARGET_PACKAGES[target])
                chosen.update([(name, offer) for name, offer in offers if offer is not None][:1])
            if chosen and all(set(TARGET_PACKAGES[target]) & set(chosen) for target in targets):
                wanted = {name: package_version for name, (package_version, _) in chosen.items()}
                if tools := _pick(archive, "qemu-utils", version):
                    wanted["qemu-utils"] = tools[0]
                return Offer(archive, next(iter(chosen.values()))[1], wanted)
            seen |= {f"{upstream(v)} ({suite})": None
                     for v, suite in archive.versions(TARGET_PACKAGES[targets[0]][0])}  # fmt: skip
        text = f"{self.source.mirror} offers no QEMU {version} for {', '.join(targets)}; "
        text += f"it offers {', '.join(seen) or 'none at all'}"
        raise BuildError("; ".join([text, *(f"not searched: {problem}" for problem in self._problems)]))

    def newest(self, target: str) -> str:
        """MAJOR.MINOR of the first QEMU for `target`, in the order of the suites."""
        for archive in self:
            for package in TARGET_PACKAGES[target]:
                for version, _ in archive.versions(package):
                    if match := re.match(r"[0-9]+\.[0-9]+", upstream(version)):
                        return match[0]
        raise BuildError(f"{self.source.mirror} has no QEMU for {target} in {', '.join(self.source.suites)}")


def _pick(archive: Archive, package: str, version: str) -> tuple[str, str] | None:
    for offered, suite in archive.versions(package):
        if version_matches(version, upstream(offered)):
            return offered, suite
    return None


def _install(
    name: str, targets: Sequence[str], offer: Offer, prefix: Path, work: Path, report: Report
) -> Build:
    archive = offer.archive
    closure = archive.closure(offer.wanted, offer.suite)
    packages = [package for package in closure if not UNNEEDED.fullmatch(package.name)]
    files = archive.download(packages, work / "packages", report)
    fresh = work / name
    unpack(files, fresh / "root", report)
    programs = [f"qemu-system-{target}" for target in targets]
    if "qemu-utils" in offer.wanted:
        programs.append("qemu-img")
    launcher = Launcher(fresh / "root", f"usr/bin/{programs[0]}")
    for program in programs:
        launcher.write_wrapper(work / "bin" / f"{program}-{name}", name, f"usr/bin/{program}")
    report("trying it", None)
    probed = [probe(work / "bin" / f"qemu-system-{target}-{name}") for target in targets]
    if "qemu-img" in programs:
        run([str(work / "bin" / f"qemu-img-{name}"), "--version"], "qemu-img --version")
    record = {
        "version": probed[0].version,
        "package": probed[0].package,
        "suite": offer.suite,
        "codename": archive.codename(offer.suite),
        "mirror": archive.source.mirror,
        "architecture": archive.architecture,
        "signature": f"checked with {archive.source.keyring}" if archive.source.keyring else "not checked",
        "packages": [{"name": p.name, "version": p.version, "sha256": p.sha256} for p in packages],
    }
    (fresh / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if (prefix / name).exists():
        (prefix / name).rename(work / "old")
    fresh.rename(prefix / name)
    (prefix / "bin").mkdir(exist_ok=True)
    for wrapper in (work / "bin").iterdir():
        wrapper.replace(prefix / "bin" / wrapper.name)
    return next(build for build in installed(prefix) if build.name == name)


@contextmanager
def _working_folder(prefix: Path) -> Iterator[Path]:
    """A folder inside the prefix (renames need one file system), locked against other processes."""
    try:
        prefix.mkdir(parents=True, exist_ok=True)
        lock = (prefix / ".lock").open("w", encoding="utf-8")
    except OSError as problem:
        raise BuildError(
            f"{prefix}: {problem.strerror}; choose another place with --prefix or QMIG_BUILDS"
        ) from problem
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=prefix))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
