"""Start-up cost, as what is imported; a clock would say something about the machine."""

import lzma
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from qmig.cli import COMMANDS, qmig
from qmig.spec.registry import resolve

HEAVY = [
    "construct",
    "trio",
    "trio_asyncio",
    "qemu",
    "rich",
    "numpy",
    "zstandard",
    "cbor2",
    "jsonschema",
    "ssl",
]


def loaded_after(code: str) -> set[str]:
    """Names in sys.modules after `code` ran in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint('\\n' + ' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    ["import qmig.cli", "from qmig.cli import main; assert main(['--help']) == 0", "import qmig"],
    ids=["import", "help", "package"],
)
def test_start_imports_no_command_and_nothing_heavy(code: str) -> None:
    loaded = loaded_after(code)
    commands = {row.target.partition(":")[0] for row in COMMANDS.values()}
    assert loaded & {*HEAVY, *commands} == set()


def test_package_alone_imports_one_module_of_ours() -> None:
    assert {name for name in loaded_after("import qmig") if name.startswith("qmig")} == {
        "qmig",
        "qmig._version",
    }


def test_reading_a_stream_needs_no_heavy_package() -> None:
    assert loaded_after("import qmig.legacy.receiver") & {*HEAVY, "click"} == set()


#: What decoding a plain precopy file has no use for: other inputs, other channels, other reports, and
#: standard modules that cost milliseconds.
NOT_FOR_A_PLAIN_FILE = {
    *HEAVY,
    *("bz2", "dataclasses", "importlib.resources", "ipaddress", "lzma", "pathlib", "random", "shutil"),
    *("subprocess", "tempfile", "urllib.parse", "zlib"),
    *(f"qmig.cli.{name}" for name in ("extract", "jsonreport", "progress", "schemas", "verify")),
    *(f"qmig.legacy.{name}" for name in ("answers", "block", "containers", "cpr", "dirtybitmap", "htab")),
    *(f"qmig.legacy.{name}" for name in ("identify", "inflate", "multifd", "oldstyle", "preempt", "qcow2")),
    *(f"qmig.legacy.{name}" for name in ("ramimage", "returnpath", "s390", "sender", "story_live", "tls")),
    *(f"qmig.legacy.{name}" for name in ("unpack", "verify", "vfio", "xbzrle")),
    "qmig.peers",
    *(f"qmig.legacy.vmstate.{name}" for name in ("dumpvmstate", "static")),
}


def test_decoding_a_plain_file_imports_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "migration"
    vector = Path(__file__).parents[2] / "spec/vectors/legacy/10.0-precopy-plain-pc-main.xz"
    file.write_bytes(lzma.decompress(vector.read_bytes()))
    loaded = loaded_after(f"from qmig.cli import main; assert main(['decode', {str(file)!r}]) == 0")
    assert "qmig.legacy.vmstate.schema" in loaded  # devices were decoded
    assert loaded & NOT_FOR_A_PLAIN_FILE == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_row_names_a_command(name: str) -> None:
    import click

    command = resolve(COMMANDS[name].target)
    assert isinstance(command, click.Command)
    assert command.name == name


def test_help_lists_every_command() -> None:
    text = CliRunner().invoke(qmig, ["--help"]).output
    assert [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)
    assert max(len(line) for line in text.splitlines()) <= 80
