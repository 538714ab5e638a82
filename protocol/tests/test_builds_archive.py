"""`qmig builds` against an archive made here: signed or not, whole or damaged; no network.

The packages hold hand-made ELF programs, so that finding the loader and the libraries, the wrapper and the
probing are exercised as with a real QEMU.
"""

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from qmig.builds import BuildError, find_or_install, get, installed, probe
from qmig.builds.archive import Source, host_architecture, machine_source
from qmig.builds.install import Installer
from qmig.builds.store import version_matches
from qmig.cli import main
from qmig.testing import spec_root

TOOLS = ("apt-get", "apt-cache", "dpkg", "dpkg-deb")
LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

missing = [tool for tool in TOOLS if shutil.which(tool) is None]
needs_apt = pytest.mark.skipif(bool(missing), reason=f"not a Debian machine: no {', '.join(missing)}")
needs_x86 = pytest.mark.skipif(
    os.uname().machine != "x86_64" or not Path(LOADER).exists(),
    reason="the hand-made programs are x86-64 Linux",
)


def elf(code: bytes, needed: list[str], *, loader: str | None, soname: str | None = None) -> bytes:
    """A dynamic x86-64 ELF of one segment: a program that runs `code` (through its loader), or a library."""
    strings = b"\0"
    offsets = []
    for name in [*needed, *([soname] if soname else [])]:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    interp = (loader or "").encode() + b"\0"
    count = 3 if loader else 2
    at_interp = 64 + 56 * count
    at_code = at_interp + len(interp)
    at_strings = at_code + len(code)
    at_symbols = -(-(at_strings + len(strings)) // 8) * 8
    at_hash = at_symbols + 24
    at_dynamic = at_hash + 16
    tags = [(1, offset) for offset in offsets[: len(needed)]]
    if soname:
        tags.append((14, offsets[-1]))
    tags += [(5, at_strings), (10, len(strings)), (6, at_symbols), (11, 24), (4, at_hash), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", tag, value) for tag, value in tags)
    size = at_dynamic + len(dynamic)
    segments = [(1, 7, 0, size, 4096), (2, 6, at_dynamic, len(dynamic), 8)]
    if loader:
        segments.insert(0, (3, 4, at_interp, len(interp), 1))
    image = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    image += struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, at_code if loader else 0, 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    for kind, flags, offset, length, align in segments:
        image += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, length, length, align)
    image += interp + code + strings
    image = image.ljust(at_symbols, b"\0") + bytes(24) + struct.pack("<IIII", 1, 1, 0, 0) + dynamic
    assert len(image) == size
    return image


def saying(text: str, needed: list[str] | None = None) -> bytes:
    """A program that writes `text` to its standard output and exits with status 0."""
    data = text.encode()
    code = (
        b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x48\x8d\x35"  # mov eax, 1 (write); mov edi, 1; lea rsi, …
        + struct.pack("<i", 16)  # … [rip + 16], the text
        + b"\xba" + struct.pack("<I", len(data))  # mov edx, length
        + b"\x0f\x05\xb8\x3c\x00\x00\x00"  # syscall; mov eax, 60 (exit)
        + b"\x31\xff\x0f\x05"  # xor edi, edi; syscall
    )  # fmt: skip
    assert len(code) == 33
    return elf(code + data, needed or [], loader=LOADER)


class Mirror:
    """An archive below a folder, rewritten by `publish`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.suites: dict[str, list[Path]] = {}
        (root / "pool").mkdir(parents=True)

    def package(
        self, suite: str, name: str, version: str, files: dict[str, bytes], depends: str = ""
    ) -> Path:
        tree = self.root / "build" / name
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\n"
            f"Depends: {depends}\nDescription: test\n"
        )
        for path, content in files.items():
            place = tree / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755)
        deb = self.root / "pool" / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, deb], check=True, capture_output=True
        )
        self.suites.setdefault(suite, []).append(deb)
        return deb

    def qemu(self, suite: str, version: str, package: str, needed: list[str] | None = None) -> None:
        """The packages of one QEMU version: programs, a library package, a package that is left out."""
        banner = f"QEMU emulator version {version} (Test {package})\nCopyright\n"
        libraries = {
            f"{LIBRARIES}/odd/libodd.so.1": elf(b"", [], loader=None, soname="libodd.so.1"),
            f"{LIBRARIES}/ld-linux-x86-64.so.2": Path(LOADER).read_bytes(),
        }
        self.package(suite, "libtest1", package, libraries)
        self.package(suite, "adduser", package, {"usr/share/adduser/x": b"never unpacked"})
        files = {
            "usr/bin/qemu-system-x86_64": saying(banner, ["libodd.so.1"] if needed is None else needed),
            "usr/share/qemu/bios.bin": b"bios",
            "usr/share/doc/x": b"d",
        }
        self.package(suite, "qemu-system-x86", package, files, "libtest1, adduser")
        tool = {"usr/bin/qemu-img": saying("qemu-img version\n")}
        self.package(suite, "qemu-utils", package, tool, "libtest1")

    def publish(self) -> Source:
        for suite, debs in self.suites.items():
            folder = self.root / "dists" / suite
            index = folder / "main/binary-amd64/Packages"
            index.parent.mkdir(parents=True, exist_ok=True)
            paragraphs = []
            for deb in debs:
                control = subprocess.run(
                    ["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True
                ).stdout
                digest = hashlib.sha256(deb.read_bytes()).hexdigest()
                place = deb.relative_to(self.root)
                paragraphs.append(
                    f"{control}Filename: {place}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
                )
            index.write_text("\n".join(paragraphs))
            index.with_suffix(".gz").write_bytes(gzip.compress(index.read_bytes()))
            sums = ""
            for path in (index, index.with_suffix(".gz")):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                sums += f" {digest} {path.stat().st_size} {path.relative_to(folder)}\n"
            (folder / "Release").write_text(
                f"Origin: Test\nSuite: {suite}\nCodename: {suite}-name\nArchitectures: amd64\n"
                f"Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n{sums}"
            )
        return Source(f"file:{self.root}", tuple(self.suites), keyring=None)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


def left_over(prefix: Path) -> list[str]:
    return [path.name for path in prefix.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def run_qmig(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return code, out, err


@needs_apt
def test_architecture_and_source_of_this_machine() -> None:
    assert host_architecture()
    source = machine_source()
    assert source.mirror.partition(":")[0] in {"http", "https", "file", "mirror", "mirror+file"}
    assert source.suites


@needs_apt
@needs_x86
def test_get_from_an_archive(mirror: Mirror, prefix: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mirror.qemu("old", "9.0.1", "1:9.0.1+ds-1")
    mirror.qemu("new", "9.1.4", "1:9.1.4+ds-1")
    source = mirror.publish()
    build = get("9.1", targets=["x86_64"], prefix=prefix, source=source)
    assert (build.name, build.version, build.package) == ("9.1", "9.1.4", "Test 1:9.1.4+ds-1")
    assert build.provenance["suite"] == "new"
    assert build.provenance["codename"] == "new-name"
    assert build.provenance["signature"] == "not checked"
    assert {package["name"] for package in build.provenance["packages"]} == {
        "libtest1",
        "qemu-system-x86",
        "qemu-utils",
    }
    assert probe(build.binary("x86_64")).version == "9.1.4"
    assert subprocess.check_output([build.qemu_img]) == b"qemu-img version\n"
    root = prefix / "9.1/root"
    assert (root / "usr/share/qemu/bios.bin").exists()
    assert not (root / "usr/share/doc").exists()
    assert not (root / "usr/share/adduser").exists()
    assert (root / LIBRARIES / "qemu-bundle").resolve() == root
    assert left_over(prefix) == []
    # The prefix can be moved.
    moved = prefix.rename(prefix.with_name("moved"))
    assert probe(moved / "bin/qemu-system-x86_64-9.1").version == "9.1.4"
    code, out, _ = run_qmig(capfd, "builds", "list", "--prefix", moved)
    assert code == 0
    assert out.startswith("9.1    QEMU 9.1.4  x86_64  Test 1:9.1.4+ds-1, from new (new-name)  ")


@needs_apt
@needs_x86
def test_what_is_there_is_kept_and_the_archive_not_asked(mirror: Mirror, prefix: Path) -> None:
    mirror.qemu("s", "9.1.4", "1:9.1.4-1")
    source = mirror.publish()
    first = get("9.1", targets=["x86_64"], prefix=prefix, source=source)
    shutil.rmtree(mirror.root / "dists")
    assert get("9.1", targets=["x86_64"], prefix=prefix, source=source) == first
    with pytest.raises(BuildError, match=r"does not have a Release file|File not found"):
        get("9.1", targets=["x86_64"], prefix=prefix, source=source, again=True)
    assert installed(prefix) == [first]
    mirror.suites.clear()
    mirror.qemu("s", "9.1.5", "1:9.1.5-1")
    mirror.publish()
    assert get("9.1", targets=["x86_64"], prefix=prefix, source=source).version == "9.1.4"
    assert get("9.1", targets=["x86_64"], prefix=prefix, source=source, again=True).version == "9.1.5"
    assert probe(prefix / "bin/qemu-system-x86_64-9.1").version == "9.1.5"
    assert left_over(prefix) == []


@needs_apt
@needs_x86
def test_command_line(mirror: Mirror, prefix: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mirror.qemu("s", "9.1.4", "1:9.1.4-1")
    source = mirror.publish()
    archive = ["--mirror", source.mirror, "--suite", "s", "--unsigned", "--targets", "x86_64"]
    options: list[str | Path] = ["--prefix", prefix, *archive]
    code, out, err = run_qmig(capfd, "builds", "get", "9.1", "3.0", *options)
    assert code == 3
    assert out.startswith("9.1    QEMU 9.1.4  x86_64")
    assert err == (f"qmig: 3.0: {source.mirror} offers no QEMU 3.0 for x86_64; it offers 9.1.4-1 (s)\n")
    code, out, _ = run_qmig(capfd, "builds", "get", "9.1", "--json", *options)
    assert code == 0
    assert [build["version"] for build in json.loads(out)["builds"]] == ["9.1.4"]
    code, out, _ = run_qmig(capfd, "builds", "list", "--json", "--prefix", prefix)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads(out), json.loads((spec_root() / "schema/builds.json").read_text()))


@needs_apt
@needs_x86
@pytest.mark.parametrize("damage", ["package", "index", "unsigned"])
def test_damage_is_found(mirror: Mirror, prefix: Path, damage: str, tmp_path: Path) -> None:
    mirror.qemu("s", "9.1.4", "1:9.1.4-1")
    source = mirror.publish()
    if damage == "package":
        deb = next((mirror.root / "pool").glob("qemu-system-x86_*"))
        deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    elif damage == "index":
        for index in (mirror.root / "dists/s/main/binary-amd64").iterdir():
            index.write_bytes(index.read_bytes()[:-3] + b"xyz")
    else:
        source = replace(source, keyring=tmp_path / "keys.gpg")
        (tmp_path / "keys.gpg").write_bytes(b"")
    with pytest.raises(BuildError, match=r"Hash Sum mismatch|[Cc]orrupt|unexpected size|not signed|sha256"):
        get("9.1", targets=["x86_64"], prefix=prefix, source=source)
    assert installed(prefix) == []
    assert left_over(prefix) == []


@needs_apt
@needs_x86
def test_a_library_that_no_package_holds(mirror: Mirror, prefix: Path) -> None:
    mirror.qemu("s", "9.1.4", "1:9.1.4-1", needed=["libnowhere.so.3"])
    with pytest.raises(BuildError, match=r"no package holds libnowhere\.so\.3"):
        get("9.1", targets=["x86_64"], prefix=prefix, source=mirror.publish())
    assert installed(prefix) == []


@needs_apt
@needs_x86
def test_unresolvable_and_missing(mirror: Mirror, prefix: Path, tmp_path: Path) -> None:
    mirror.package("s", "qemu-system-x86", "1:9.1-1", {"usr/bin/qemu-system-x86_64": b""}, "libgone (>= 1)")
    source = mirror.publish()
    with pytest.raises(BuildError, match=r"resolving qemu-system-x86=1:9\.1-1 in s"):
        get("9.1", targets=["x86_64"], prefix=prefix, source=source)
    with pytest.raises(BuildError, match=r"offers no QEMU 9\.1 for x86_64, aarch64; it offers 9\.1-1 \(s\)"):
        get("9.1", prefix=prefix, source=source)
    with pytest.raises(BuildError, match=r"keyring .* is missing"):
        get("9.1", prefix=prefix, source=replace(source, keyring=tmp_path / "none.gpg"))
    with pytest.raises(BuildError, match=r"offers no QEMU 9\.9 .*; not searched: .*gone"):
        get("9.9", targets=["x86_64"], prefix=prefix, source=replace(source, suites=("gone", "s")))
    assert left_over(prefix) == []


@needs_apt
@needs_x86
def test_find_or_install(
    mirror: Mirror, prefix: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mirror.qemu("first", "9.0.1", "1:9.0.1-1")
    mirror.qemu("second", "9.1.4", "1:9.1.4-1")
    source = mirror.publish()
    if shutil.which("qemu-system-x86_64"):
        pytest.skip("a QEMU on PATH is found first")
    found = find_or_install("x86_64", prefix=prefix, source=source)
    assert found.version == "9.0.1"
    shutil.rmtree(mirror.root)
    assert find_or_install("x86_64", prefix=prefix, source=source) == found


@needs_apt
def test_an_interrupted_installation_leaves_nothing(mirror: Mirror, prefix: Path) -> None:
    mirror.package("s", "qemu-system-x86", "1:9.1-1", {"usr/bin/qemu-system-x86_64": b""})
    source = mirror.publish()

    def report(text: str, done: float | None) -> None:
        if text == "unpacking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Installer(prefix, source, report) as installer:
        installer.get("9.1", ["x86_64"])
    assert installed(prefix) == []
    assert left_over(prefix) == []


@needs_apt
@pytest.mark.skipif(
    "QMIG_TEST_NETWORK" not in os.environ, reason="QMIG_TEST_NETWORK is not set: needs the archive"
)
def test_real_archive(prefix: Path) -> None:
    qemu = find_or_install("x86_64", "10.0", prefix=prefix)
    assert version_matches("10.0", qemu.version)
    assert installed(prefix)[0].provenance["signature"].startswith("checked with")
