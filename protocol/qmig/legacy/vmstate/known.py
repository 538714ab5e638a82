"""What is known of device state beside what descriptions say.

Two packaged files, both made from the descriptions that real builds of QEMU 5.2 to 11.1 sent
(`tools/vmstate_layouts.py` writes them):

`encodings.json`  VMSD -> field -> encoding, for the fields of a `-dump-vmstate` file
`layouts.json`    a vmdesc with the VMSDs that no such file has: cpu, apic, timer, globalstate, …

This module is the only one here that reads files, and only those two.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from qmig.legacy.vmstate.vmdesc import VmDescription, parse_vmdesc

if TYPE_CHECKING:
    from importlib.abc import FileLoader

_ENCODING: Final = re.compile(
    r"(?P<type>[^*:~@?!]+)(?::(?P<size>\d+))?(?P<array>\*(?:(?P<count>\d+)(?P<usual>[+=])?)?)?(?P<open>~)?"
    r"(?:@(?P<length>[^?!]+))?(?:\?(?P<condition>[^!]+))?(?P<usual_there>!)?"
)
#: the encoding of a conditional field that no build was seen to send
_NEVER: Final = "-"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a field is written.

    `size` in bytes if it is not that of the C member. `count` of an array of fixed length; with
    `array` the number of elements is found at run time, and `count` is what it always was so
    far, or most of the time (`mostly`). `open`: of any length. `length` names the field in
    front that has the number of elements or bytes, `condition` the one that is not 0 if and
    only if this one is there. `there`: whether a conditional field always was, or never; `type`
    is "" where it never was.
    """

    type: str
    size: int | None = None
    count: int | None = None
    array: bool = False
    open: bool = False
    mostly: bool = False
    length: str | None = None
    condition: str | None = None
    there: bool | None = None


def parse_encoding(text: str) -> Encoding:
    """`uint32`, `buffer:512`, `struct*6`, `uint8*` (any count), `uint8*9+` (always 9 so far),
    `uint8*9=` (mostly 9), `virtio~` (any length), `buffer~@size`, `struct*@num`,
    `buffer?identify_set`, `bool!` (conditional, but always there), `-` (never there)."""
    if text == _NEVER:
        return Encoding("", there=False)
    found = _ENCODING.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no encoding")
    size, count = found["size"], found["count"]
    return Encoding(
        found["type"],
        int(size) if size else None,
        int(count) if count else None,
        array=bool(found["array"]) and (not count or bool(found["usual"])),
        open=bool(found["open"]),
        mostly=found["usual"] == "=",
        length=found["length"],
        condition=found["condition"],
        there=True if found["usual_there"] else None,
    )


def _packaged(name: str) -> bytes:
    """A file beside this module. `importlib.resources` would do, but costs 6 ms to import."""
    folder = __file__.removesuffix("known.py")
    return cast("FileLoader", __spec__.loader).get_data(folder + name)


@functools.cache
def encodings() -> dict[str, dict[str, str]]:
    """VMSD name -> field name -> encoding, as text."""
    found: dict[str, dict[str, str]] = json.loads(_packaged("encodings.json"))
    return found


@functools.cache
def layouts() -> VmDescription:
    """The VMSDs that `-dump-vmstate` files lack."""
    return parse_vmdesc(_packaged("layouts.json"))


def encoding_of(vmsd_name: str, field: str) -> Encoding | None:
    """What is known of one field."""
    text = encodings().get(vmsd_name, {}).get(field)
    return None if text is None else parse_encoding(text)
