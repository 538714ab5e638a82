"""What `pip install qmig` gives: source archive, wheel from it, installed into an environment of its own."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from qmig.testing import checkout

#: Built with the hatchling of this environment, so that no network is needed.
BUILD = "import sys; from hatchling import build; print(getattr(build, f'build_{sys.argv[1]}')(sys.argv[2]))"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = checkout()
    assert top is not None
    return build("sdist", top, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked source archive, which so proves to be complete."""
    folder = tmp_path_factory.mktemp("wheel")
    # Debian 12's Python 3.11.2 has no extraction filters; newer ones warn when none is given.
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **options)
    (source,) = folder.iterdir()
    return build("wheel", source, folder)


def build(kind: str, source: Path, target: Path) -> Path:
    run = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return target / run.stdout.splitlines()[-1]


def test_wheel_has_three_packages_and_the_specification(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "qmig",
        "qmig_conformance",
        "qmig_fuzz",
    }
    assert {f"{package}/py.typed" for package in ("qmig", "qmig_conformance", "qmig_fuzz")} <= set(names)
    assert {
        "qmig/_spec/README.md",
        "qmig/_spec/registries/capabilities.toml",
        "qmig/_spec/schema/vectors.json",
    } <= set(names)
    assert [name for name in names if "/tests/" in name or "__pycache__" in name] == []


def test_wheel_has_every_file_of_the_packages_and_the_specification(wheel: Path) -> None:
    top = checkout()
    assert top is not None
    listed = subprocess.run(
        ["git", "ls-files"], cwd=top, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    moved = [
        name.removeprefix(root)
        for name in listed
        for root in ("protocol/", "conformance/", "fuzz/")
        if name.startswith((f"{root}qmig/", f"{root}qmig_conformance/", f"{root}qmig_fuzz/"))
    ] + [f"qmig/_{name}" for name in listed if name.startswith("spec/")]
    there = set(zipfile.ZipFile(wheel).namelist())
    assert [name for name in moved if name not in there and (top / source_of(name)).exists()] == []


def source_of(name: str) -> str:
    """Where a file of the wheel lies in the checkout."""
    roots = {"qmig_conformance": "conformance/", "qmig_fuzz": "fuzz/", "qmig": "protocol/"}
    return (
        name.removeprefix("qmig/_")
        if name.startswith("qmig/_spec/")
        else roots[name.partition("/")[0]] + name
    )


def test_source_archive_leaves_nothing_private_in(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        tops = {name.split("/")[1] for name in tar.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "protocol",
        "conformance",
        "fuzz",
        "spec",
    } <= tops
    assert tops & {".venv", ".git", "report", "dist"} == set()


def test_installed_wheel_works_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    """Its run-time dependencies come from this environment; qmig itself must not."""
    env = tmp_path / "env"
    venv.create(env, with_pip=False, symlinks=True)
    python = env / "bin/python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = env.glob("lib/python*/site-packages")
    lend_dependencies(site)
    program = (
        "import qmig, qmig.testing as t, qmig_conformance, qmig_fuzz\n"
        "assert t.spec_root().name == '_spec' and t.checkout() is None\n"
        "assert t.load_registry('capabilities').entries\n"
        "print(qmig.__file__)"
    )
    where = run_in(tmp_path, python, "-c", program)
    assert Path(where.strip()).is_relative_to(site)
    assert run_in(tmp_path, env / "bin/qmig", "--version") == run_in(
        tmp_path, python, "-m", "qmig", "--version"
    )
    assert "LEG-GEN-001" in run_in(tmp_path, env / "bin/qmig", "spec", "show", "LEG-GEN-001")


def lend_dependencies(site: Path) -> None:
    """Links this environment's packages into another's, all but qmig's own."""
    import click

    for path in Path(click.__file__).parents[1].iterdir():
        if "qmig" not in path.name and not (site / path.name).exists():
            (site / path.name).symlink_to(path)


def run_in(folder: Path, *command: object) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run = subprocess.run(
        [str(word) for word in command], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
