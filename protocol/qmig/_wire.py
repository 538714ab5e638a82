"""Records declared once, in construct's vocabulary.

    @record... class SectionFooter(Record):
        section_id: int = wire(Int32ub)

One declaration gives the typed immutable value, the codec, the `construct.Struct`
(`SectionFooter.construct()`), the byte layout shown in the spec, and a row in the
generic tests.

Rule 1: `Int32ub`, `Bytes`, `Prefixed`… here are descriptions with construct's names
and meaning. The codec derived from them is plain `struct`; construct itself is
imported when `construct()` is first called, because its import (25 ms) costs more
than decoding a stream's device state. `test_wire.py` holds both to the same result.
Rule 2: `decode` says exactly how many bytes are known to be missing (`NeedBytes`),
so an incremental reader never asks for a byte of the next record.
Rule 3: names on the wire become `str` by UTF-8 with surrogate escapes: every byte
string has exactly one such spelling, so nothing is lost on the way back.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, cast, dataclass_transform

from qmig.errors import LocalProtocolError

T = TypeVar("T")
#: bytes that may be a view of somebody else's buffer
Raw: TypeAlias = bytes | memoryview
NOTHING: Collection[str] = frozenset()


class NeedBytes(Exception):
    """The record is at least `size` bytes long; fewer were given."""

    def __init__(self, size: int) -> None:
        self.size = size


class Subcon(Generic[T]):
    """One field's encoding; `name` is the construct expression of the same meaning."""

    #: struct code of a fixed-size scalar, "" otherwise
    code: str = ""
    minimum: int = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def decode(self, view: memoryview, at: int) -> tuple[T, int]:
        """The value at `at` and the position behind it."""
        raise NotImplementedError(self.name)

    def encode(self, value: T) -> bytes:
        raise NotImplementedError(self.name)

    def construct(self) -> Any:
        """The construct object that `name` spells."""
        import construct

        return getattr(construct, self.name)

    def size_text(self) -> str:
        return str(self.minimum)


class Scalar(Subcon[int]):
    """An integer of fixed size: `code` is its struct code, `order` its byte order."""

    def __init__(self, name: str, code: str, order: str = ">") -> None:
        super().__init__(name)
        self._struct = struct.Struct(order + code)
        self.code = code if order == ">" else ""
        self.minimum = self._struct.size

    def decode(self, view: memoryview, at: int) -> tuple[int, int]:
        end = at + self.minimum
        if len(view) < end:
            raise NeedBytes(end)
        return cast(int, self._struct.unpack_from(view, at)[0]), end

    def encode(self, value: int) -> bytes:
        return self._struct.pack(value)


class Bytes(Subcon[bytes]):
    """Exactly `length` raw bytes."""

    def __init__(self, length: int) -> None:
        super().__init__(f"Bytes({length})")
        self.minimum = length

    def construct(self) -> Any:
        import construct

        return construct.Bytes(self.minimum)

    def decode(self, view: memoryview, at: int) -> tuple[bytes, int]:
        end = at + self.minimum
        if len(view) < end:
            raise NeedBytes(end)
        return bytes(view[at:end]), end

    def encode(self, value: bytes) -> bytes:
        if len(value) != self.minimum:
            raise ValueError(f"{len(value)} bytes where exactly {self.minimum} go")
        return bytes(value)


class _GreedyBytes(Subcon[Raw]):
    """All bytes up to an end that only the reader knows; kept as they came, uncopied."""

    def decode(self, view: memoryview, at: int) -> tuple[Raw, int]:
        return view[at:], len(view)

    def encode(self, value: Raw) -> bytes:
        return bytes(value)

    def size_text(self) -> str:
        return "n"


class Prefixed(Subcon[bytes]):
    """A length, then that many bytes; at most `limit`, whatever the length says."""

    def __init__(self, length: Scalar, limit: int) -> None:
        super().__init__(f"Prefixed({length.name}, GreedyBytes)")
        self.length = length
        self.limit = limit
        self.minimum = length.minimum

    def construct(self) -> Any:
        import construct

        return construct.Prefixed(self.length.construct(), construct.GreedyBytes)

    def decode(self, view: memoryview, at: int) -> tuple[bytes, int]:
        size, start = self.length.decode(view, at)
        if size > self.limit:
            raise OverflowError(f"length {size} is over the limit of {self.limit} bytes")
        end = start + size
        if len(view) < end:
            raise NeedBytes(end)
        return bytes(view[start:end]), end

    def encode(self, value: bytes) -> bytes:
        return self.length.encode(len(value)) + value

    def size_text(self) -> str:
        return f"{self.minimum}+n"


class PrefixedString(Subcon[str]):
    """A counted string without terminator (`put_counted_string` has a u8 count)."""

    def __init__(self, length: Scalar, limit: int) -> None:
        self._raw = Prefixed(length, limit)
        super().__init__(self._raw.name)
        self.minimum = self._raw.minimum

    def construct(self) -> Any:
        return self._raw.construct()

    def decode(self, view: memoryview, at: int) -> tuple[str, int]:
        raw, end = self._raw.decode(view, at)
        return raw.decode("utf-8", "surrogateescape"), end

    def encode(self, value: str) -> bytes:
        return self._raw.encode(value.encode("utf-8", "surrogateescape"))

    def size_text(self) -> str:
        return self._raw.size_text()


class PrefixedArray(Subcon[tuple[T, ...]]):
    """A count, then that many elements; at most `limit`, whatever the count says."""

    def __init__(self, count: Scalar, element: Subcon[T], limit: int) -> None:
        super().__init__(f"PrefixedArray({count.name}, {element.name})")
        self.count = count
        self.element = element
        self.limit = limit
        self.minimum = count.minimum

    def construct(self) -> Any:
        import construct

        return construct.PrefixedArray(self.count.construct(), self.element.construct())

    def decode(self, view: memoryview, at: int) -> tuple[tuple[T, ...], int]:
        count, at = self.count.decode(view, at)
        if count > self.limit:
            raise OverflowError(f"count {count} is over the limit of {self.limit}")
        if len(view) < at + count * self.element.minimum:
            raise NeedBytes(at + count * self.element.minimum)
        values = []
        for left in range(count - 1, -1, -1):
            try:
                value, at = self.element.decode(view, at)
            except NeedBytes as need:
                raise NeedBytes(need.size + left * self.element.minimum) from None
            values.append(value)
        return tuple(values), at

    def encode(self, value: tuple[T, ...]) -> bytes:
        return self.count.encode(len(value)) + b"".join(map(self.element.encode, value))

    def size_text(self) -> str:
        return f"{self.minimum}+…"


class Pair(Subcon[tuple[int, int]]):
    """Two scalars that belong together."""

    def __init__(self, first: Scalar, second: Scalar) -> None:
        super().__init__(f"Sequence({first.name}, {second.name})")
        self.first = first
        self.second = second
        self.minimum = first.minimum + second.minimum

    def construct(self) -> Any:
        import construct

        return construct.Sequence(self.first.construct(), self.second.construct())

    def decode(self, view: memoryview, at: int) -> tuple[tuple[int, int], int]:
        a, at = self.first.decode(view, at)
        b, at = self.second.decode(view, at)
        return (a, b), at

    def encode(self, value: tuple[int, int]) -> bytes:
        return self.first.encode(value[0]) + self.second.encode(value[1])


class GreedyArray(Subcon[tuple[T, ...]]):
    """Elements of fixed size up to the end that the reader determined."""

    def __init__(self, element: Subcon[T]) -> None:
        super().__init__(f"GreedyRange({element.name})")
        self.element = element

    def construct(self) -> Any:
        import construct

        return construct.GreedyRange(self.element.construct())

    def decode(self, view: memoryview, at: int) -> tuple[tuple[T, ...], int]:
        values = []
        while at + self.element.minimum <= len(view):
            value, at = self.element.decode(view, at)
            values.append(value)
        return tuple(values), at

    def encode(self, value: tuple[T, ...]) -> bytes:
        return b"".join(map(self.element.encode, value))

    def size_text(self) -> str:
        return f"n×{self.element.minimum}"


Int8ub = Scalar("Int8ub", "B")
Int16ub = Scalar("Int16ub", "H")
Int32ub = Scalar("Int32ub", "I")
Int64ub = Scalar("Int64ub", "Q")
Int32sb = Scalar("Int32sb", "i")
Int64sb = Scalar("Int64sb", "q")
Int32ul = Scalar("Int32ul", "I", "<")
Int64ul = Scalar("Int64ul", "Q", "<")
GreedyBytes = _GreedyBytes("GreedyBytes")
#: QEMU's counted string: one length byte, at most 255 bytes, no terminator.
CountedString = PrefixedString(Int8ub, 255)


_NOT_WIRE: Subcon[Any] = Subcon("Pass")


class Field:
    """Where a subcon stands in a record."""

    __slots__ = ("const", "default", "doc", "name", "subcon", "when")

    def __init__(self, subcon: Subcon[Any], const: object, when: str, doc: str) -> None:
        self.name = ""
        self.subcon = subcon
        self.const = const
        self.when = when
        self.doc = doc
        self.default: object = ...


def wire(subcon: Subcon[T], *, doc: str = "") -> T:
    """Declares a field."""
    return cast(T, Field(subcon, None, "", doc))


def wire_if(when: str, subcon: Subcon[T], *, default: None = None, doc: str = "") -> T | None:
    """Declares a field that is on the wire iff the reader's context has the word `when`;
    a writer writes it iff it is not None."""
    field = Field(subcon, None, when, doc)
    field.default = default
    return cast(T, field)


def attr(kind: type[T], *, doc: str = "") -> T:
    """Declares a value that a reader adds and that is not on the wire."""
    return cast(T, Field(_NOT_WIRE, None, "", doc))


def const(subcon: Subcon[T], value: T, *, doc: str = "") -> T:
    """Declares bytes that are always the same; they are no argument of the record."""
    return cast(T, Field(subcon, value, "", doc))


class LayoutRow:
    """One line of a record's table in the spec. `offset` counts from the record's first byte."""

    __slots__ = ("doc", "name", "offset", "size", "subcon", "type", "value", "when")

    def __init__(self, offset: int | None, field: Field) -> None:
        self.offset = offset
        self.subcon = field.subcon
        self.size = field.subcon.size_text()
        self.name = field.name
        self.type = field.subcon.name
        self.value = field.const
        self.when = field.when
        self.doc = field.doc


class _RecordType(type):
    """Collects the declared fields and gives the class slots for them."""

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _RecordType:
        fields = {key: value for key, value in space.items() if isinstance(value, Field)}
        for key, field in fields.items():
            if any(key in vars(base) for parent in bases for base in parent.__mro__):
                raise TypeError(f"{name}.{key} hides what every record has")
            field.name = key
            del space[key]
        own = tuple(key for key, field in fields.items() if field.const is None)
        space["__slots__"] = (*space.get("__slots__", ()), *own)
        cls = super().__new__(mcs, name, bases, space)
        whole = (*getattr(cls, "_fields", ()), *fields.values())
        cls._fields = whole  # type: ignore[attr-defined]
        cls._layout = tuple(f for f in whole if f.subcon is not _NOT_WIRE)  # type: ignore[attr-defined]
        for key, field in fields.items():
            if field.const is not None:
                setattr(cls, key, field.const)
        return cls


@dataclass_transform(
    eq_default=True, kw_only_default=True, frozen_default=True, field_specifiers=(wire, wire_if, attr)
)
class Record(metaclass=_RecordType):
    """An immutable value with a wire form.

    `offset` and `size` say where a reader found it (bytes, absolute in its channel);
    they take no part in equality. `requirement` is the statement that defines it.
    """

    requirement: ClassVar[str] = "LEG-GEN-001"
    _fields: ClassVar[tuple[Field, ...]]
    _layout: ClassVar[tuple[Field, ...]]  # those on the wire
    __slots__ = ("offset", "size")
    if TYPE_CHECKING:
        offset: int
        size: int

    def __init__(self, **values: Any) -> None:
        put = object.__setattr__
        for field in self._fields:
            if field.const is None:
                if field.name in values:
                    put(self, field.name, values.pop(field.name))
                elif field.default is not ...:
                    put(self, field.name, field.default)
                else:
                    raise TypeError(f"{type(self).__name__} needs {field.name}")
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")
        put(self, "offset", 0)
        put(self, "size", 0)
        self.validate()

    def validate(self) -> None:
        """Raises `LocalProtocolError` for values that the format forbids."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in cls._fields if field.const is None)

    @classmethod
    def fields_layout(cls) -> list[LayoutRow]:
        rows: list[LayoutRow] = []
        at: int | None = 0
        for field in cls._layout:
            rows.append(LayoutRow(at, field))
            fixed = not field.when and field.subcon.size_text().isdigit()
            at = at + field.subcon.minimum if at is not None and fixed else None
        return rows

    @classmethod
    def minimum(cls, context: Collection[str] = NOTHING) -> int:
        """Fewest bytes that a record can have."""
        return sum(f.subcon.minimum for f in cls._layout if not f.when or f.when in context)

    @classmethod
    def decode(cls, view: memoryview, context: Collection[str] = NOTHING, **extra: Any) -> tuple[Self, int]:
        """The record at the start of `view` and its length in bytes; `extra` are its `attr`s.

        Raises `NeedBytes` when `view` is too short, `LocalProtocolError` for a value that
        the format forbids, `OverflowError` for a length over its limit."""
        present = [f for f in cls._layout if not f.when or f.when in context]
        rest = sum(f.subcon.minimum for f in present)
        if len(view) < rest:
            raise NeedBytes(rest)
        values: dict[str, Any] = {}
        at = 0
        for field in present:
            rest -= field.subcon.minimum
            try:
                value, at = field.subcon.decode(view, at)
            except NeedBytes as need:
                raise NeedBytes(need.size + rest) from None
            if field.const is None:
                values[field.name] = value
            elif value != field.const:
                raise LocalProtocolError(
                    f"{field.name} is {_show(value)}, expected {_show(field.const)}",
                    requirement=cls.requirement,
                )
        values.update(extra)
        return cls(**values), at

    def encode(self) -> bytes:
        """The record's bytes. Raises `LocalProtocolError` for a value that does not fit."""
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        for field in self._layout:
            value = field.const if field.const is not None else getattr(self, field.name)
            if value is None:
                continue
            try:
                yield field.subcon.encode(value)
            except (struct.error, ValueError, OverflowError, TypeError) as problem:
                raise LocalProtocolError(
                    f"{type(self).__name__}.{field.name} = {_show(value)} does not fit: {problem}",
                    requirement=self.requirement,
                ) from None

    @classmethod
    def construct(cls, context: Collection[str] = NOTHING) -> Any:
        """The same layout as a `construct.Struct` (names stay bytes there)."""
        import construct

        members = []
        for field in cls._layout:
            if field.when and field.when not in context:
                continue
            subcon = field.subcon.construct()
            if field.const is not None:
                subcon = construct.Const(field.const, subcon)
            members.append(construct.Renamed(subcon, newname=field.name))
        return construct.Struct(*members)

    def place(self, offset: int, size: int) -> Self:
        """Says where the record was found; only readers call this."""
        object.__setattr__(self, "offset", offset)
        object.__setattr__(self, "size", size)
        return self

    def values(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in self.names()}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.values().values())))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={_show(value)}" for name, value in self.values().items())
        return f"{type(self).__name__}({inner})"


def _show(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if -10 < value < 10 else hex(value)
    text = ascii(value)
    return text if len(text) < 80 else text[:60] + f"… ({len(text)} characters)"
