"""One package archive, seen through a private apt.

apt itself is the client: it knows the machine's proxies and mirrors, checks the signature of the index
against a keyring and every package against the index, and resolves dependencies. It works on a state of
its own (lists, cache, empty status file), so neither the host's packages nor its sources are touched, and no
root is needed. The SHA256 of each package is taken from the signed index and checked once more here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from qmig.errors import EnvironmentProblem

#: Called with what is going on and, where it is known, how much of it is done (0.0 to 1.0).
Report = Callable[[str, float | None], None]

DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UBUNTU_KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")

#: Suites of a Debian archive by the names that stay while releases move, the most stable first. "A+B" is
#: base and overlay: packages come from B only where they are asked for or needed.
DEBIAN_SUITES = (
    "stable+stable-backports",
    "oldstable+oldstable-backports",
    "oldoldstable",
    "testing",
    "unstable",
)


class BuildError(EnvironmentProblem):
    """A build cannot be had or does not work; the text says which, why and what to do."""


def silent(text: str, done: float | None) -> None:
    """The report of a caller that wants none."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where packages come from."""

    mirror: str
    #: suite specifications as in `DEBIAN_SUITES`
    suites: tuple[str, ...]
    components: tuple[str, ...] = ("main",)
    #: None: the mirror's index is not signed, or not checked
    keyring: Path | None = DEBIAN_KEYRING


@dataclass(frozen=True, slots=True)
class Package:
    """One package as the index describes it."""

    name: str
    version: str
    filename: str
    sha256: str


def need_tools() -> None:
    """BuildError unless this machine has apt and dpkg."""
    for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BuildError(
                f"{tool} not found: builds are made from Debian packages and need apt and dpkg here; "
                "name a QEMU of your own by its path instead"
            )


def host_architecture() -> str:
    """The host's name among Debian's architectures, such as ``amd64``."""
    return run(["dpkg", "--print-architecture"], "dpkg").strip()


def os_release() -> Mapping[str, str]:
    """/etc/os-release as a mapping; empty where there is none."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', text, re.MULTILINE))


def machine_source() -> Source:
    """The archive that this machine's apt is configured with.

    On Debian every suite of the mirror is open, by its moving name (`DEBIAN_SUITES`); on a relative of Debian
    only the suites that the machine itself uses.
    """
    need_tools()
    wanted = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    text = run(
        ["apt-get", "indextargets", "--no-release-info", "--format", wanted, "Created-By: Packages"],
        "apt-get",
    )
    rows = [tuple(line.split("|")) for line in text.splitlines() if line.count("|") == 2]
    release = os_release()
    codename = release.get("VERSION_CODENAME", "")
    mirror = next((uri for uri, suite, _ in rows if suite == codename), None)
    if mirror is None:
        place = codename or "this machine"
        raise BuildError(f"apt's configuration names no archive for {place}; give one with --mirror URL")
    if release.get("ID") == "debian":
        return Source(mirror, DEBIAN_SUITES)
    pockets = dict.fromkeys(suite for uri, suite, _ in rows if uri == mirror and suite != codename)
    components = tuple(dict.fromkeys(part for uri, _, part in rows if uri == mirror))
    keyring = UBUNTU_KEYRING if UBUNTU_KEYRING.exists() else DEBIAN_KEYRING
    return Source(mirror, ("+".join([codename, *pockets]),), components, keyring)


class Archive:
    """One suite specification of a source, in a private apt below `work`."""

    def __init__(self, source: Source, spec: str, architecture: str, work: Path) -> None:
        self.source, self.spec, self.architecture = source, spec, architecture
        self.suites = spec.split("+")
        self.home = work / re.sub(r"[^A-Za-z0-9.+-]", "_", f"apt-{spec}")
        for folder in ("state/lists/partial", "cache/archives/partial", "empty"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        if source.keyring is not None and not source.keyring.is_file():
            raise BuildError(
                f"archive keyring {source.keyring} is missing: install debian-archive-keyring, "
                "or name one with --keyring"
            )
        trust = f"signed-by={source.keyring}" if source.keyring is not None else "trusted=yes"
        rows = [f"deb [arch={architecture} {trust}] {source.mirror} {suite} {' '.join(source.components)}\n"
                for suite in self.suites]  # fmt: skip
        (self.home / "sources.list").write_text("".join(rows), encoding="utf-8")

    def update(self, retries: int = 3) -> None:
        """Fetch and check the index."""
        insist = ("-o", f"Acquire::Retries={retries}")
        where = f"{self.source.mirror} {self.spec}"
        self._apt("apt-get", "-qq", *insist, "update", doing=f"reading the index of {where}")

    def versions(self, package: str) -> list[tuple[str, str]]:
        """(version, suite) of `package` in this archive, in apt's order of preference."""
        rows = (line.split("|") for line in self._apt("apt-cache", "madison", package).splitlines())
        return [(row[1].strip(), row[2].split()[1].partition("/")[0]) for row in rows if len(row) == 3]

    def closure(self, wanted: Mapping[str, str], suite: str) -> list[Package]:
        """`wanted` (package to version) and all they depend on, recommendations left out."""
        named = [f"{name}={version}" for name, version in wanted.items()]
        text = self._apt(
            "apt-get", "-qq", "-y", "--no-install-recommends", "--print-uris",
            "-o", "Acquire::ForceHash=SHA256", "-o", f"APT::Default-Release={suite}", "install", *named,
            doing=f"resolving {' '.join(named)} in {self.spec}",
        )  # fmt: skip
        found = []
        for line in text.splitlines():
            match = re.fullmatch(r"'[^']+' (\S+)_(\S+)_([^_\s]+)\.deb \d+ SHA256:([0-9a-f]{64})", line)
            if match is None:
                raise BuildError(
                    f"apt-get --print-uris says {line!r}, which is not a package with a SHA256 sum"
                )
            name, version, architecture, digest = match.groups()
            found.append(Package(name, unquote(version), f"{name}_{version}_{architecture}.deb", digest))
        return found

    def download(self, packages: Iterable[Package], folder: Path, report: Report = silent) -> list[Path]:
        """Fetch `packages` into `folder`; every file is compared with its SHA256."""
        packages = list(packages)
        folder.mkdir(parents=True, exist_ok=True)

        def progress(line: str) -> None:
            if match := re.match(r"dlstatus:\d+:([0-9.]+):", line):
                report(f"downloading {len(packages)} packages", float(match[1]) / 100)

        named = (f"{package.name}={package.version}" for package in packages)
        self._apt(
            "apt-get", "-q", "-o", "APT::Status-Fd=1", "download", *named, cwd=folder,
            doing=f"downloading from {self.source.mirror}", on_line=progress,
        )  # fmt: skip
        files = []
        for package in packages:
            path = folder / package.filename
            if not path.is_file():
                raise BuildError(f"apt-get download left no {package.filename}")
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if digest != package.sha256:
                raise BuildError(f"{package.filename}: sha256 is {digest}, the index says {package.sha256}")
            files.append(path)
        return files

    def codename(self, suite: str) -> str:
        """What `suite` is called in this archive at present, such as ``trixie`` for ``stable``."""
        for path in sorted((self.home / "state/lists").glob(f"*_dists_{suite}_*Release")):
            if match := re.search(r"^Codename: (\S+)$", path.read_text("utf-8", "replace"), re.MULTILINE):
                return match[1]
        return suite

    def _apt(
        self,
        tool: str,
        *arguments: str,
        doing: str = "",
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        home = self.home
        options = {
            "Dir::State": home / "state",
            "Dir::State::status": home / "status",
            "Dir::Cache": home / "cache",
            "Dir::Etc::SourceList": home / "sources.list",
            "Dir::Etc::SourceParts": home / "empty",
            "Dir::Etc::Preferences": home / "none",
            "Dir::Etc::PreferencesParts": home / "empty",
            "APT::Architecture": self.architecture,
            "APT::Architectures::": self.architecture,
            "APT::Sandbox::User": "",  # files belong to the calling user, also when that is root
            "APT::Update::Post-Invoke::": "",
            "APT::Update::Post-Invoke-Success::": "",
            "APT::Update::Error-Mode": "any",  # an index that cannot be read is an error, not a warning
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "1",
        }
        command = [tool, *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
        return run([*command, *arguments], doing or tool, cwd=cwd, on_line=on_line)


PLAIN_LOCALE: Mapping[str, str] = MappingProxyType({"LC_ALL": "C.UTF-8", "LANGUAGE": ""})


def run(
    command: list[str],
    doing: str,
    *,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Standard output of `command`; BuildError with its own first complaint if it fails.

    The child is ended and reaped if the caller is interrupted.
    """
    try:
        child = subprocess.Popen(
            command, cwd=cwd, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if on_line else subprocess.PIPE, errors="replace",
            env={**os.environ, **PLAIN_LOCALE, **(env or {})},
        )  # fmt: skip
    except OSError as problem:
        raise BuildError(f"{doing}: cannot start {command[0]}: {problem.strerror}") from problem
    with child:
        try:
            if on_line is None:
                out, complaints = child.communicate()
            else:
                assert child.stdout is not None
                lines = []
                for line in child.stdout:
                    lines.append(line)
                    on_line(line)
                out = complaints = "".join(lines)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise BuildError(f"{doing}: {first_complaint(complaints) or f'exit status {child.returncode}'}")
    return out


def first_complaint(text: str) -> str:
    """The line of an error output that says most: apt's first ``E:`` line, else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E:").strip() for line in lines if line.startswith("E:")]
    return (errors or lines or [""])[0]
