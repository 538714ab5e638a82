"""Commands between sections, and what is asked of a return path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qmig import Record
from qmig.legacy import commands as cmd
from qmig_conformance.hostile import ram, sections
from qmig_conformance.hostile.plays import alone, with_capabilities
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

TABLE: Final = Table("commands", ram.SETTINGS)
PAGE: Final = ram.PAGE

Items = Sequence[bytes | Record]


def command(number: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A command with any payload, or with a length that is not the payload's."""
    size = len(payload) if length is None else length
    return cmd.CommandHeader(command=number, length=size).encode() + payload


def add(
    value: str,
    items: Items,
    *violates: str,
    place: Callable[[Script], int] = ram.first_part,
    postcopy: bool = False,
) -> None:
    """Declares items that stand before the first PART; `postcopy`: the destination's capability."""

    def make(good: Good) -> Play:
        script = Script.main(good.channels["main"])
        settings = with_capabilities(good.settings, postcopy_ram=True) if postcopy else good.settings
        return alone(settings, script.put(place(script), *items).data())

    TABLE.add(value, make, *violates)


OPEN: Final = cmd.OpenReturnPath()
ADVISE: Final = cmd.PostcopyAdvise(page_sizes=PAGE, target_page_size=PAGE)
FIRST: Final = sections.first_items
BLOCK: Final = ram.BLOCK.encode()


def discard(name: bytes = BLOCK, *, version: int = 0, end: bytes = b"\0", ranges: bytes = b"") -> bytes:
    """POSTCOPY_RAM_DISCARD with this payload."""
    return command(6, bytes([version, len(name)]) + name + end + ranges)


def span(start: int, length: int) -> bytes:
    """One range."""
    return start.to_bytes(8, "big") + length.to_bytes(8, "big")


def packaged(content: bytes) -> bytes:
    """A package."""
    return cmd.Packaged(size_of_package=len(content)).encode() + content


# -- numbers and lengths ---------------------------------------------------------------------------------

add("command-0", [command(0)], "LEG-CMD-002", place=FIRST)
add("command-unknown-255", [command(255)], "LEG-CMD-002", place=FIRST)
add("command-12", [command(12)], "LEG-CMD-002")
add("command-with-wrong-length", [command(2, b"", 3)], "LEG-CMD-003", "LEG-CMD-001", place=FIRST)
add("command-open-return-path-with-payload", [command(1, bytes(4))], "LEG-CMD-003", "LEG-CMD-010")
add("command-ping-without-payload", [OPEN, command(2)], "LEG-CMD-003", "LEG-CMD-011")
add("packaged-with-payload-of-3-bytes", [command(7, bytes(3))], "LEG-CMD-003", "LEG-CMD-016")
add("switchover-start-with-payload", [command(11, b"\0")], "LEG-CMD-003", "LEG-CMD-020")

# -- return path -----------------------------------------------------------------------------------------

add("command-ping-without-return-path", [cmd.Ping(value=7)], "LEG-CMD-011", place=FIRST)
add(
    "command-open-return-path-twice-ping",
    [OPEN, OPEN, cmd.Ping(value=7)],
    "LEG-CMD-010",
    place=FIRST,
)
add("command-postcopy-resume-unasked", [cmd.PostcopyResume()], "LEG-CMD-018", place=FIRST)
add("resume-return-path-open", [OPEN, cmd.PostcopyResume()], "LEG-CMD-018")
add(
    "command-recv-bitmap-unasked",
    [cmd.RecvBitmap(length=1 + len(BLOCK), block=ram.BLOCK)],
    "LEG-CMD-019",
    place=FIRST,
)
add("recv-bitmap-of-unknown-block", [OPEN, cmd.RecvBitmap(length=4, block="zzz")], "LEG-CMD-019")
add(
    "recv-bitmap-with-wrong-length",
    [OPEN, command(10, bytes([len(BLOCK)]) + BLOCK + b"X")],
    "LEG-CMD-019",
    "LEG-CMD-003",
)

# -- postcopy, asked for or not --------------------------------------------------------------------------

add("command-postcopy-advise-capability-off", [ADVISE], "LEG-PCP-002", "LEG-CMD-012", place=FIRST)
add("command-postcopy-listen-unasked", [cmd.PostcopyListen()], "LEG-CMD-013", "LEG-PCP-020", place=FIRST)
add("command-postcopy-run-unasked", [cmd.PostcopyRun()], "LEG-CMD-014", "LEG-PCP-020", place=FIRST)
add("postcopy-ram-off-discard", [discard(ranges=span(0, PAGE))], "LEG-CMD-015")
add("advise-of-0-bytes-postcopy-ram-off", [cmd.PostcopyAdviseEmpty()], "LEG-PCP-002")
for _name, _payload in {
    "0-bytes": b"",
    "1-byte": b"\0",
    "15-bytes": bytes(15),
    "page-size-8192": span(2 * PAGE, 2 * PAGE),
    "target-page-size-8192": span(PAGE, 2 * PAGE),
    "good": span(PAGE, PAGE),
}.items():
    _violates = ("LEG-CMD-012", "LEG-PCP-003") if "size" in _name else ("LEG-CMD-012", "LEG-PCP-002")
    add(
        f"postcopy-ram-on-advise-{_name}",
        [command(3, _payload)],
        *(() if _name == "good" else _violates),
        postcopy=True,
    )
add("postcopy-ram-on-advise-twice", [ADVISE, ADVISE], "LEG-PCP-001", postcopy=True)
add("advised-run", [ADVISE, cmd.PostcopyRun()], "LEG-CMD-014", "LEG-PCP-020", postcopy=True)
add(
    "advised-listen-behind-advise-then-precopy-goes-on",
    [ADVISE, cmd.PostcopyListen()],
    "LEG-PCP-020",
    postcopy=True,
)
for _name, _item in {
    "advised-discard-good": discard(ranges=span(0, PAGE)),
    "advised-discard-version-1": discard(version=1, ranges=span(0, PAGE)),
    "advised-discard-no-nul": discard(end=b"X", ranges=span(0, PAGE)),
    "advised-discard-length-19": discard(ranges=bytes(10)),
    "advised-discard-no-ranges": discard(),
    "advised-discard-unknown-block": discard(b"qc.ram", ranges=span(0, PAGE)),
    "advised-discard-range-beyond-the-block": discard(ranges=span(1 << 40, PAGE)),
    "advised-discard-unaligned-range": discard(ranges=span(1, 5)),
    "discard-name-longer-than-the-payload": command(6, b"\0\x13" + b"A" * 19 + b"\0", 20),
}.items():
    _broken = "LEG-PCP-011" if "range" in _name else "LEG-CMD-015"
    add(_name, [ADVISE, _item], _broken, "LEG-PCP-010", postcopy=True)

# -- packages --------------------------------------------------------------------------------------------

add("packaged-of-0-bytes", [packaged(b"")], "LEG-CMD-016", "LEG-PCP-020")
add("packaged-in-packaged", [packaged(packaged(b""))], "LEG-PCP-022")
add("packaged-with-an-unknown-command", [packaged(command(99))], "LEG-CMD-002", "LEG-PCP-022")
add("packaged-with-half-a-section", [packaged(b"\x04\0\0")], "LEG-SEC-013", "LEG-PCP-023")
add("command-packaged-length-0xffffffff", [command(7, b"\xff" * 4)], "LEG-CMD-016", place=FIRST)

# -- others ----------------------------------------------------------------------------------------------

add("command-enable-colo", [cmd.EnableColo()], "LEG-CMD-017", place=FIRST)
add("command-switchover-start-11", [cmd.SwitchoverStart()], "LEG-CMD-020", place=FIRST)
add("switchover-start-twice", [cmd.SwitchoverStart(), cmd.SwitchoverStart()], "LEG-CMD-020")
