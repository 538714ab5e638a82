"""Deterministic CBOR, as strict as a hash over it needs: one value has one spelling.

The profile (HS-ENC): unsigned and negative integers of 64 bits (-2^63 to 2^64-1), byte strings, UTF-8 text,
arrays, maps, false, true, null; shortest heads, definite lengths; the keys of a map are all unsigned (up to
65535) or all text, in ascending order of their encodings, none twice. RFC 8949 4.2.1 and the older
length-first order of RFC 7049 coincide on such keys.

Rule 1: `decode` checks head, order, counts, depth and what is left before it makes anything.
Rule 2: cbor2 spells single items (`encode`); it never sees bytes of a peer, and what it spelled is read back
by `decode`, which alone knows the profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

from qmig.errors import LocalProtocolError

Value: TypeAlias = Any  # int, bytes, str, bool, None, list and dict of these
Raw: TypeAlias = bytes | memoryview

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLES: Final = {20: False, 21: True, 22: None}
#: the smallest number that needs a head argument of so many bytes
_SHORTEST: Final = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}
HIGHEST_KEY: Final = 65_535


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one item may hold. `items` counts all values and keys: with the bytes, it bounds memory."""

    depth: int = 16
    map_entries: int = 4_096
    array_items: int = 65_536
    text: int = 4_096
    items: int = 131_072


class CborError(Exception):
    """The bytes are not in the profile, at offset `at`; `limit` tells whether they exceed a bound."""

    def __init__(self, message: str, at: int, *, limit: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.limit = limit


def decode(data: Raw, bounds: Bounds = Bounds()) -> Value:
    """The one item that `data` is. Raises CborError for anything else, trailing bytes included."""
    reader = _Reader(bytes(data), bounds)
    value = reader.item(0)
    if reader.at != len(reader.data):
        raise CborError(f"{len(reader.data) - reader.at} bytes behind the item", reader.at)
    return value


def encode(value: Value, bounds: Bounds = Bounds()) -> bytes:
    """The spelling of `value`. Raises LocalProtocolError if the profile has none."""
    import cbor2

    try:
        spelled: bytes = cbor2.dumps(value, canonical=True)
        decode(spelled, bounds)
    except (cbor2.CBOREncodeError, UnicodeEncodeError, CborError) as problem:
        raise LocalProtocolError(f"cannot be encoded: {problem}", requirement="HS-ENC-001") from problem
    return spelled


class _Reader:
    def __init__(self, data: bytes, bounds: Bounds) -> None:
        self.data = data
        self.at = 0
        self._bounds = bounds
        self._left = bounds.items

    def item(self, depth: int) -> Value:
        start = self.at
        major, number = self._head()
        self._left -= 1
        if self._left < 0:
            self._over(f"more than {self._bounds.items} values", start)
        match major:
            case 0:
                return number
            case 1:
                if number >= 1 << 63:
                    raise CborError("a negative number below -2^63", start)
                return -1 - number
            case 2:
                return self._string(number, start)
            case 3:
                return self._text(number, start)
            case 4:
                return self._array(number, depth + 1, start)
            case 5:
                return self._map(number, depth + 1, start)
            case 6:
                raise CborError(f"tag {number}", start)
            case _:
                return self._simple(number, start)

    def _head(self) -> tuple[int, int]:
        """Major type and argument; a simple value's or float's argument is its additional information."""
        start = self.at
        if start >= len(self.data):
            raise CborError("an item is missing", start)
        first = self.data[start]
        major, info = first >> 5, first & 31
        self.at += 1
        if info < 24 or major == _SIMPLE:
            return major, info
        if info > 27:
            what = "an indefinite length" if info == 31 else f"the reserved head {first:#04x}"
            raise CborError(what, start)
        size = 1 << (info - 24)
        if start + 1 + size > len(self.data):
            raise CborError("a head is cut", start)
        number = int.from_bytes(self.data[start + 1 : start + 1 + size], "big")
        if number < _SHORTEST[size]:
            raise CborError(f"{number} is not in its shortest form", start)
        self.at += size
        return major, number

    def _string(self, size: int, start: int) -> bytes:
        if size > len(self.data) - self.at:
            raise CborError(f"a string of {size} bytes with {len(self.data) - self.at} left", start)
        self.at += size
        return self.data[self.at - size : self.at]

    def _text(self, size: int, start: int) -> str:
        if size > self._bounds.text:
            self._over(f"a text of {size} bytes, more than {self._bounds.text}", start)
        try:
            return self._string(size, start).decode("utf-8")
        except UnicodeDecodeError:
            raise CborError("a text that is not UTF-8", start) from None

    def _array(self, count: int, depth: int, start: int) -> list[Value]:
        self._enter(count, self._bounds.array_items, depth, start)
        return [self.item(depth) for _ in range(count)]

    def _map(self, count: int, depth: int, start: int) -> dict[int | str, Value]:
        self._enter(2 * count, 2 * self._bounds.map_entries, depth, start)
        found: dict[int | str, Value] = {}
        before = b""
        for _ in range(count):
            place = self.at
            key = self._key()
            spelled = self.data[place : self.at]
            if found and type(key) is not type(next(iter(found))):
                raise CborError("a map with both numbers and texts as keys", place)
            if spelled <= before:
                what = "twice" if key in found else "out of order"
                raise CborError(f"key {key!a} {what}", place)
            before = spelled
            found[key] = self.item(depth)
        return found

    def _key(self) -> int | str:
        start = self.at
        key = self.item(self._bounds.depth)
        if isinstance(key, str) or (type(key) is int and 0 <= key <= HIGHEST_KEY):
            return key
        raise CborError(f"a key that is neither text nor a number from 0 to {HIGHEST_KEY}", start)

    def _enter(self, count: int, most: int, depth: int, start: int) -> None:
        if depth > self._bounds.depth:
            self._over(f"nested deeper than {self._bounds.depth}", start)
        if count > most:
            self._over(f"{count} values in one array or map, more than {most}", start)
        if count > len(self.data) - self.at:
            raise CborError(f"{count} values with {len(self.data) - self.at} bytes left", start)

    def _simple(self, info: int, start: int) -> bool | None:
        if info not in _SIMPLES:
            raise CborError("a float" if 25 <= info <= 27 else f"the simple value or break {info}", start)
        return _SIMPLES[info]

    def _over(self, message: str, at: int) -> NoReturn:
        raise CborError(message, at, limit=True)
