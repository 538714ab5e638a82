"""JSON from a stream or a file, strict and bounded.

Duplicate keys are kept: a list of keys and values in order stands for an object, because
QEMU writes the elements of a list as repeated keys of one object (LEG-VMS-060).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from qmig import limits
from qmig.errors import LimitExceeded, RemoteProtocolError

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_VALUE_MARKS: Final = (b",", b"{", b"[")
#: escapes, of which a surrogate without its other half (the group) stands for no character
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object: its keys and values in order, repeated keys included."""

    __slots__ = ()

    def first(self, key: str) -> Any:
        """The first value of `key`, None without one."""
        for name, value in self:
            if name == key:
                return value
        return None


class Wrong(Exception):
    """A value is not what it must be; `path` leads to it, innermost step first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[int] = []

    def at(self, step: int) -> Wrong:
        self.path.append(step)
        return self


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a value that QEMU writes")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=Pairs, parse_float=_refuse, parse_constant=_refuse)


class JsonText:
    """A JSON document: `root` is its value; `wrong` turns a complaint on a part into an error."""

    __slots__ = ("_base", "_record", "_requirement", "_text", "root")

    def __init__(self, data: bytes | memoryview, *, base: int, record: str, requirement: str) -> None:
        """Raises `LimitExceeded` for more than `limits.VMDESC` bytes or `limits.JSON_VALUES`
        values or for nesting that is too deep, `RemoteProtocolError` for what is no JSON or has a
        number that is no integer. `base` is the absolute offset of the document."""
        self._base = base
        self._record = record
        self._requirement = requirement
        self._text = ""
        raw = bytes(data)
        if len(raw) > limits.VMDESC:
            raise self._limit(f"{len(raw)} bytes of JSON, over the limit of {limits.VMDESC}")
        if sum(raw.count(mark) for mark in _VALUE_MARKS) > limits.JSON_VALUES:
            raise self._limit(f"more than {limits.JSON_VALUES} values")
        try:
            self._text = raw.decode()
        except UnicodeDecodeError as problem:
            raise self._error(f"no UTF-8: {problem.reason}", problem.start) from None
        for escape in _ESCAPE.finditer(self._text):
            if escape[1]:
                place = len(self._text[: escape.start()].encode())
                raise self._error("no UTF-8: half of a surrogate pair", place)
        try:
            self.root: Any = _DECODER.decode(self._text)
        except json.JSONDecodeError as problem:
            place = len(self._text[: problem.pos].encode())
            raise self._error(f"no JSON: {problem.msg}", place) from None
        except ValueError as problem:
            raise self._error(str(problem), 0) from None
        except RecursionError:
            raise self._limit("nested too deep") from None

    def wrong(self, problem: Wrong) -> RemoteProtocolError:
        """The error for `problem`, with the offset of the part that it is about."""
        index = self._skip_blank(0)
        for step in reversed(problem.path):
            index = self._child(index, step)
        return self._error(problem.message, len(self._text[:index].encode()))

    def _limit(self, message: str) -> LimitExceeded:
        return LimitExceeded(message, requirement="LEG-VMS-062", offset=self._base, record=self._record)

    def _error(self, message: str, place: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            message, requirement=self._requirement, offset=self._base + place, record=self._record
        )

    def _skip_blank(self, index: int) -> int:
        found = _BLANK.match(self._text, index)
        return found.end() if found else index

    def _child(self, index: int, step: int) -> int:
        """Where value `step` of the array or object at `index` begins."""
        keyed = self._text[index] == "{"
        index = self._skip_blank(index + 1)
        while True:
            if keyed:
                _, index = _DECODER.raw_decode(self._text, index)
                index = self._skip_blank(self._skip_blank(index) + 1)
            if not step:
                return index
            _, index = _DECODER.raw_decode(self._text, index)
            index = self._skip_blank(self._skip_blank(index) + 1)
            step -= 1


def integer(value: Any, low: int, high: int, what: str) -> int:
    """`value`, which must be an integer of that range (true and false are none)."""
    if type(value) is not int:
        raise Wrong(f"{what} is no integer")
    if not low <= value <= high:
        raise Wrong(f"{what} {value if abs(value) < 1 << 64 else 'of over 64 bits'} is not {low} to {high}")
    return value


def string(value: Any, what: str, longest: int = 4096) -> str:
    """`value`, which must be a string."""
    if type(value) is not str:
        raise Wrong(f"{what} is no string")
    if len(value) > longest:
        raise Wrong(f"{what} is longer than {longest} characters")
    return value


def require(condition: bool, message: str) -> None:
    """Raises `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(message)


def pairs(value: Any, what: str) -> Pairs:
    """`value`, which must be an object."""
    if type(value) is not Pairs:
        raise Wrong(f"{what} is no object")
    return value


def items(value: Any, what: str) -> Iterable[tuple[int, Pairs]]:
    """The objects of an array, numbered."""
    if type(value) is not list:
        raise Wrong(f"{what} is no array")
    for index, item in enumerate(value):
        if type(item) is not Pairs:
            raise Wrong(f"{what}: an item is no object").at(index)
        yield index, item
