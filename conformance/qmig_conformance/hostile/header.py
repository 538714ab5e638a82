"""The first bytes of main: header, configuration, other protocols; and what becomes of the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from qmig import Record
from qmig.legacy.header import (
    Configuration,
    ConfigurationCapabilities,
    ConfigurationPageBits,
    ConfigurationUuid,
    FileHeader,
    Subsection,
)
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.plays import alone, with_capabilities
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

SETTINGS: Final = ram.SETTINGS
TABLE: Final = Table("header", SETTINGS)

Change = Callable[[Script], Script | bytes]


def row(
    value: str, *violates: str, end: bool = True, exit_on_error: bool | None = None
) -> Callable[[Change], Change]:
    """Declares a change of main."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            play = alone(good.settings, new if isinstance(new, bytes) else new.data(), end=end)
            return replace(play, exit_on_error=exit_on_error)

        TABLE.add(value, make, *violates)
        return change

    return declare


def configuration(script: Script) -> int:
    """The place of the configuration section."""
    return script.find(Configuration)


def behind(script: Script) -> int:
    """The first piece behind it."""
    return configuration(script) + 1


def subsection(name: str, body: Record | bytes = b"", version: int = 1) -> tuple[Record | bytes, ...]:
    """A subsection: its opening and its body."""
    return Subsection(name=name, version_id=version), body


def _named(script: Script, length: int) -> Script:
    """The configuration with another length before its name."""
    place = configuration(script)
    name = script.record(place).machine.encode()
    return script.write(place, b"\x07" + length.to_bytes(4, "big") + name)


# -- another protocol, or nothing ------------------------------------------------------------------------


@row("control-good-stream")
def control(script: Script) -> Script:
    return script


@row("connect-and-close", "LEG-HDR-001")
def nothing(script: Script) -> bytes:
    return b""


@row("connect-and-stay-silent", "LEG-HDR-001", end=False)
def silent(script: Script) -> bytes:
    return b""


@row("1-byte-q-then-silence", "LEG-HDR-001", end=False)
def one_byte(script: Script) -> bytes:
    return b"Q"


@row("1-byte-q-then-the-end", "LEG-HDR-001")
def one_byte_closed(script: Script) -> bytes:
    return b"Q"


@row("4-bytes-qevm-then-silence", "LEG-HDR-002", end=False)
def magic_alone(script: Script) -> bytes:
    return b"QEVM"


def _other_magic(script: Script) -> Script:
    return script.write(script.find(FileHeader), b"QEVX" + script[0].data[4:])


@row("wrong-magic", "LEG-HDR-001")
def wrong_magic(script: Script) -> Script:
    return _other_magic(script)


@row("wrong-magic-exit-on-error-false", "LEG-HDR-001", exit_on_error=False)
def wrong_magic_stays(script: Script) -> Script:
    return _other_magic(script)


@row("wrong-magic-connection-stays-open", "LEG-HDR-001", end=False)
def wrong_magic_open(script: Script) -> bytes:
    return _other_magic(script).data()[:4096]


@row("4-kib-of-0x00", "LEG-HDR-001")
def zeros(script: Script) -> bytes:
    return bytes(4096)


@row("4-kib-of-0xff", "LEG-HDR-001")
def ones(script: Script) -> bytes:
    return b"\xff" * 4096


@row("text-http-request", "LEG-HDR-001")
def http(script: Script) -> bytes:
    return b"GET / HTTP/1.0\r\n\r\n"


@row("tls-clienthello-start", "LEG-HDR-001", "LEG-CHN-022")
def tls(script: Script) -> bytes:
    return bytes.fromhex("16030100c8010000c40303") + bytes(200)


JSON: Final = b'{"migration": {"version": 2, "capabilities": ["multifd"]}}\n'


@row("json-text", "LEG-HDR-001")
def json_text(script: Script) -> bytes:
    return JSON


@row("json-text-stays-open", "LEG-HDR-001", end=False)
def json_text_open(script: Script) -> bytes:
    return JSON


@row("qem2-length-json-text", "LEG-HDR-001")
def framed_json(script: Script) -> bytes:
    return b"QEM2" + len(JSON).to_bytes(4, "big") + JSON


@row("qem2-length-json-text-stays-open", "LEG-HDR-001", end=False)
def framed_json_open(script: Script) -> bytes:
    return b"QEM2" + len(JSON).to_bytes(4, "big") + JSON


@row("header-then-json-text", "LEG-HDR-003")
def json_behind(script: Script) -> bytes:
    return script[0].data + JSON


# -- header ----------------------------------------------------------------------------------------------


@row("version-2", "LEG-HDR-002")
def version_2(script: Script) -> Script:
    return script.change(0, version=2)


@row("version-4", "LEG-HDR-002")
def version_4(script: Script) -> Script:
    return script.change(0, version=4)


@row("truncated-after-magic", "LEG-HDR-002")
def cut_magic(script: Script) -> bytes:
    return script.before(0, 4)


@row("truncated-after-file-header", "LEG-HDR-003")
def cut_header(script: Script) -> bytes:
    return script.before(1)


@row("config-section-missing", "LEG-HDR-003")
def no_configuration(script: Script) -> Script:
    return script.drop(configuration(script))


# -- configuration ---------------------------------------------------------------------------------------


@row("truncated-after-config-type-byte", "LEG-HDR-010")
def cut_type(script: Script) -> bytes:
    return script.before(configuration(script), 1)


@row("truncated-inside-config-length", "LEG-HDR-010")
def cut_length(script: Script) -> bytes:
    return script.before(configuration(script), 3)


@row("truncated-inside-machine-name", "LEG-HDR-010")
def cut_name(script: Script) -> bytes:
    return script.before(configuration(script), 7)


@row("machine-name-differs-same-length", "LEG-HDR-011")
def other_machine(script: Script) -> Script:
    place = configuration(script)
    return script.change(place, machine="X" + script.record(place).machine[1:])


@row("configuration-machine-name-a-prefix", "LEG-HDR-012")
def prefix(script: Script) -> Script:
    return script.change(configuration(script), machine="pc-")


@row("config-length-0", "LEG-HDR-012")
def length_0(script: Script) -> Script:
    return _named(script, 0)


@row("config-length-300", "LEG-HDR-012")
def length_300(script: Script) -> Script:
    return _named(script, 300)


@row("config-length-0x7fffffff", "LEG-HDR-012")
def length_2_31(script: Script) -> Script:
    return _named(script, 0x7FFFFFFF)


@row("config-length-0xffffffff", "LEG-HDR-012")
def length_max(script: Script) -> Script:
    return _named(script, 0xFFFFFFFF)


@row("config-length-0xffffffff-stays-open", "LEG-HDR-012", end=False)
def length_max_open(script: Script) -> Script:
    return _named(script, 0xFFFFFFFF)


@row("configuration-sent-twice", "LEG-HDR-014", "LEG-HDR-015")
def twice(script: Script) -> Script:
    return script.put(behind(script), script[configuration(script)].data)


@row("configuration-unknown-subsection", "LEG-HDR-023", "LEG-HDR-010")
def unknown_subsection(script: Script) -> Script:
    return script.put(behind(script), *subsection("configuration/lab-unknown"))


@row("configuration-subsection-of-foreign-prefix", "LEG-HDR-014")
def foreign_subsection(script: Script) -> Script:
    return script.put(behind(script), *subsection("other/x"))


@row("configuration-own-subsection-of-version-9", "LEG-HDR-022")
def newer_subsection(script: Script) -> Script:
    return script.put(behind(script), *subsection("configuration/uuid", bytes(16), version=9))


@row("page-size-differs-target-page-bits-14", "LEG-HDR-020", "LEG-HDR-028")
def page_bits(script: Script) -> Script:
    bits = ConfigurationPageBits(target_page_bits=14)
    return script.put(behind(script), *subsection("configuration/target-page-bits", bits))


def _capabilities(script: Script, *names: str) -> Script:
    listed = ConfigurationCapabilities(capabilities=names)
    return script.put(behind(script), *subsection("configuration/capabilities", listed))


@row("capability-in-config-the-destination-has-off", "LEG-HDR-021")
def capability_off(script: Script) -> Script:
    return _capabilities(script, "x-ignore-shared")


@row("unknown-capability-in-config", "LEG-HDR-021", "LEG-HDR-026")
def unknown_capability(script: Script) -> Script:
    return _capabilities(script, "lab-unknown-capability")


@row("configuration-capability-list-count-0", "LEG-HDR-024")
def no_capabilities(script: Script) -> Script:
    return _capabilities(script)


@row("configuration-capability-known-not-validated-xbzrle", "LEG-HDR-026", "LEG-HDR-025")
def not_validated(script: Script) -> Script:
    return _capabilities(script, "xbzrle")


@row("configuration-capability-count-0xffffffff", "LEG-HDR-021")
def endless_capabilities(script: Script) -> Script:
    body = b"\xff\xff\xff\xff\x06xbzrle"
    return script.put(behind(script), *subsection("configuration/capabilities", body))


@row("uuid-received-local-unset", "LEG-HDR-027")
def uuid(script: Script) -> Script:
    given = ConfigurationUuid(uuid=b"\x11" * 16)
    return script.put(behind(script), *subsection("configuration/uuid", given))


def _ignoring_shared(good: Good) -> Play:
    return alone(with_capabilities(good.settings, x_ignore_shared=True), good.channels["main"])


TABLE.add("x-ignore-shared-on-at-the-destination-only", _ignoring_shared, "LEG-HDR-021")
