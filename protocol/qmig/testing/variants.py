"""Every way to make one field of a record wrong, out of the record's own declaration.

    for name in variant_names(SectionFooter):            # "section_type.zero", …, "section_id.max"
        wrong = variant(footer, name)                    # bytes, or None: this footer cannot have it

The names depend on the declaration only, so they can be listed without a stream, and stay what they are as
long as the field keeps its name. What a name stands for:

* integers: `zero`, `one`, `max`, `sign-bit` (the highest bit alone), `plus-1`, `minus-1`, `double`; words
  and fields of flags also `bit-N`, that bit turned over
* what has a length or a count before it: the same of that number, `length-zero` and so on, with the content
  as it was; and with a number that fits: `empty`, `other` (first byte differs), `longest` (255 bytes)
* raw bytes of a fixed length: `zeros`, `ones`, `other`
* bytes to the end: `short` (one less), `long` (one more)
* arrays to the end: `empty`, `half` (an element and a half), `first-…` and `second-…` of the first element
* page offsets of a multifd packet: the integers' of the first
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from qmig._wire import (
    Bytes,
    GreedyArray,
    LayoutRow,
    Pair,
    Prefixed,
    PrefixedArray,
    PrefixedString,
    Record,
    Scalar,
    Subcon,
)

Change = Callable[[bytes], bytes | None]

#: bits turned over one by one in words and flags: those where flags are
FLAG_BITS: Final = 12


def _number(at: int, size: int, order: Any, work: Callable[[int, int], int]) -> Change:
    """Gives the `size` bytes from `at` on another value; `work` gets the value and the number of values."""

    def change(raw: bytes) -> bytes | None:
        if len(raw) < at + size:
            return None
        top = 1 << 8 * size
        value = int.from_bytes(raw[at : at + size], order)
        return raw[:at] + (work(value, top) % top).to_bytes(size, order) + raw[at + size :]

    return change


_NUMBERS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "zero": lambda value, top: 0,
    "one": lambda value, top: 1,
    "max": lambda value, top: top - 1,
    "sign-bit": lambda value, top: top >> 1,
    "plus-1": lambda value, top: value + 1,
    "minus-1": lambda value, top: value - 1,
    "double": lambda value, top: 2 * value,
}


def _numbers(at: int, size: int, order: str = "big", prefix: str = "") -> dict[str, Change]:
    return {prefix + name: _number(at, size, order, work) for name, work in _NUMBERS.items()}


def _bits(size: int) -> dict[str, Change]:
    def turned(bit: int) -> Change:
        return _number(0, size, "big", lambda value, top: value ^ 1 << bit)

    return {f"bit-{bit}": turned(bit) for bit in range(min(FLAG_BITS, 8 * size))}


def _other(raw: bytes, at: int) -> bytes | None:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] if len(raw) > at else None


def _counted(size: int) -> dict[str, Change]:
    """What has a number of `size` bytes before it."""
    found = _numbers(0, size, prefix="length-")
    found["empty"] = lambda raw: bytes(size)
    found["other"] = lambda raw: _other(raw, size)
    if size == 1:
        found["longest"] = lambda raw: b"\xff" + raw[1:].ljust(255, b"A")
    return found


def _fixed(size: int) -> dict[str, Change]:
    return {
        "zeros": lambda raw: bytes(size),
        "ones": lambda raw: b"\xff" * size,
        "other": lambda raw: _other(raw, 0),
    }


def _to_the_end() -> dict[str, Change]:
    return {"short": lambda raw: raw[:-1] if raw else None, "long": lambda raw: raw + b"\0"}


def _array(element: Subcon[Any]) -> dict[str, Change]:
    size = element.minimum
    found: dict[str, Change] = {
        "empty": lambda raw: b"",
        "half": lambda raw: (
            raw[: size + size // 2] if len(raw) > size + size // 2 else raw + raw[: size // 2]
        ),
    }
    if isinstance(element, Pair):
        found |= _numbers(0, element.first.minimum, prefix="first-")
        found |= _numbers(element.first.minimum, element.second.minimum, prefix="second-")
    return found


def _changes(row: LayoutRow) -> dict[str, Change]:
    subcon = row.subcon
    match subcon:
        case Scalar():
            order = "big" if subcon.code else "little"
            flags = row.name in {"word", "flags", "start_flags"}
            return _numbers(0, subcon.minimum, order) | (_bits(subcon.minimum) if flags else {})
        case Prefixed() | PrefixedString() | PrefixedArray():
            return _counted(subcon.minimum)
        case Bytes():
            return _fixed(subcon.minimum)
        case GreedyArray():
            return _array(subcon.element)
        case _ if row.size == "8×n":
            return _numbers(0, 8)
    return _to_the_end()


def parts(record: Record) -> list[tuple[str, bytes]]:
    """The record's fields on the wire: name, bytes."""
    found = []
    for row in record.fields_layout():
        value = getattr(record, row.name) if row.value is None else row.value
        if value is not None:
            found.append((row.name, row.subcon.encode(value)))
    return found


def variant_names(kind: type[Record]) -> Iterator[str]:
    """`field.what` for every change that a record of this kind may suffer, none of a constant twice."""
    for row in kind.fields_layout():
        seen: set[bytes | None] = {row.subcon.encode(row.value)} if row.value is not None else set()
        for what, change in _changes(row).items():
            if row.value is not None:  # what a constant becomes is known
                new = change(row.subcon.encode(row.value))
                if new in seen:
                    continue
                seen.add(new)
            yield f"{row.name}.{what}"


def variant(record: Record, name: str) -> bytes | None:
    """The record's bytes with that change; None where it would change nothing, or the field is not there."""
    field, _, what = name.partition(".")
    change = next(_changes(row)[what] for row in record.fields_layout() if row.name == field)
    found = parts(record)
    for place, (own, raw) in enumerate(found):
        if own == field:
            new = change(raw)
            if new is None or new == raw:
                return None
            return b"".join([*(data for _, data in found[:place]), new, *(d for _, d in found[place + 1 :])])
    return None
