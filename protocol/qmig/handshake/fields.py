"""Bodies of messages declared once: a class per map, a shape per key.

    @body
    class Ready(Body):
        hash: bytes = key(1, Blob(32))

The declaration gives the typed immutable value, both directions of the encoding, and the CDDL in `spec/`.

Rule 1: an unknown unsigned key is kept and written back, so that a body re-encodes to the bytes it came from
(HS-ENC-012); private keys live in the text map under key 15.
Rule 2: a value that must not be seen (`secret=True`) is left out of every repr.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar, cast, dataclass_transform

from qmig._cbor import Value
from qmig.handshake import limits

T = TypeVar("T")
B = TypeVar("B", bound="Body")

#: key of the map of private extensions, in any body
EXT = 15


class FieldError(Exception):
    """A value has not the shape that its place demands; `path` names the place."""

    def __init__(self, path: str, message: str, *, limit: bool = False) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
        self.limit = limit


class Shape(abc.ABC, Generic[T]):
    """What may stand in one place. `cddl` is the same in CDDL (RFC 8610)."""

    def __init__(self, cddl: str) -> None:
        self.cddl = cddl

    @abc.abstractmethod
    def read(self, value: Value, path: str) -> T:
        """The value as the field holds it. Raises FieldError."""

    def write(self, value: T) -> Value:
        """The value as it is encoded."""
        return value


class UInt(Shape[int]):
    """An unsigned number up to `most`."""

    def __init__(self, most: int = (1 << 64) - 1, *, least: int = 0) -> None:
        super().__init__(f"{least}..{most}" if most < (1 << 64) - 1 or least else "uint")
        self.least = least
        self.most = most

    def read(self, value: Value, path: str) -> int:
        if type(value) is not int or value < 0:
            raise FieldError(path, "no unsigned number")
        if not self.least <= value <= self.most:
            raise FieldError(path, f"{value} is not from {self.least} to {self.most}", limit=True)
        return value


class _Flag(Shape[bool]):
    def read(self, value: Value, path: str) -> bool:
        if type(value) is not bool:
            raise FieldError(path, "neither true nor false")
        return value


class Blob(Shape[bytes]):
    """A byte string of exactly `size` bytes, or of at most `most`."""

    def __init__(self, size: int | None = None, *, most: int = 0) -> None:
        super().__init__(f"bstr .size {size}" if size is not None else f"bstr .size (0..{most})")
        self.size = size
        self.most = most

    def read(self, value: Value, path: str) -> bytes:
        if not isinstance(value, bytes):
            raise FieldError(path, "no byte string")
        if self.size is not None and len(value) != self.size:
            raise FieldError(path, f"{len(value)} bytes where {self.size} stand")
        if self.size is None and len(value) > self.most:
            raise FieldError(path, f"{len(value)} bytes, more than {self.most}", limit=True)
        return value


class Text(Shape[str]):
    """A text of at most `most` bytes of UTF-8."""

    def __init__(self, most: int) -> None:
        super().__init__(f"tstr .size (0..{most})")
        self.most = most

    def read(self, value: Value, path: str) -> str:
        if not isinstance(value, str):
            raise FieldError(path, "no text")
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > self.most:
            raise FieldError(path, f"a text of {size} bytes, more than {self.most}", limit=True)
        return value


class _Name(Text):
    """A registered or private name, compared as bytes."""

    def __init__(self) -> None:
        super().__init__(limits.NAME)
        self.cddl = "name"

    def read(self, value: Value, path: str) -> str:
        name = super().read(value, path)
        if not is_name(name):
            raise FieldError(path, f"{name!a} is no name")
        return name


class _Any(Shape[Any]):
    def read(self, value: Value, path: str) -> Value:
        return value


class OneOf(Shape[T]):
    """Any of several shapes, the first that fits."""

    def __init__(self, *shapes: Shape[Any]) -> None:
        super().__init__(" / ".join(shape.cddl for shape in shapes))
        self.shapes = shapes

    def read(self, value: Value, path: str) -> T:
        for shape in self.shapes[:-1]:
            try:
                return cast(T, shape.read(value, path))
            except FieldError:
                continue
        return cast(T, self.shapes[-1].read(value, path))


class ListOf(Shape[tuple[T, ...]]):
    """At most `most` values of one shape."""

    def __init__(self, item: Shape[T], most: int) -> None:
        super().__init__(f"[0*{most} {item.cddl}]")
        self.item = item
        self.most = most

    def read(self, value: Value, path: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise FieldError(path, "no array")
        if len(value) > self.most:
            raise FieldError(path, f"{len(value)} values, more than {self.most}", limit=True)
        return tuple(self.item.read(item, f"{path}[{at}]") for at, item in enumerate(value))

    def write(self, value: tuple[T, ...]) -> Value:
        return [self.item.write(item) for item in value]


class Tuple(Shape[tuple[Any, ...]]):
    """One value for each shape. What a later revision puts behind them is kept."""

    def __init__(self, *items: Shape[Any], optional: int = 0) -> None:
        parts = [("? " if at >= len(items) - optional else "") + item.cddl for at, item in enumerate(items)]
        super().__init__(f"[{', '.join(parts)}, * any]")
        self.items = items
        self.least = len(items) - optional

    def read(self, value: Value, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < self.least:
            raise FieldError(path, f"no array of at least {self.least} values")
        read = [
            item.read(part, f"{path}[{at}]")
            for at, (item, part) in enumerate(zip(self.items, value, strict=False))
        ]
        return (*read, *value[len(self.items) :])

    def write(self, value: tuple[Any, ...]) -> Value:
        written = [item.write(part) for item, part in zip(self.items, value, strict=False)]
        return [*written, *value[len(self.items) :]]


class MapOf(Shape[Mapping[str, T]]):
    """Names to values of one shape."""

    def __init__(self, item: Shape[T], most: int, names: Shape[str] | None = None) -> None:
        self.names = names or Name
        super().__init__(f"{{0*{most} {self.names.cddl} => {item.cddl}}}")
        self.item = item
        self.most = most

    def read(self, value: Value, path: str) -> Mapping[str, T]:
        if not isinstance(value, dict):
            raise FieldError(path, "no map")
        if len(value) > self.most:
            raise FieldError(path, f"{len(value)} entries, more than {self.most}", limit=True)
        return {
            self.names.read(name, path): self.item.read(item, f"{path}.{name}")
            for name, item in value.items()
        }

    def write(self, value: Mapping[str, T]) -> Value:
        return {name: self.item.write(item) for name, item in value.items()}


class Group(Shape[B]):
    """A body inside a body."""

    def __init__(self, kind: type[B]) -> None:
        super().__init__(kind.cddl_name())
        self.kind = kind

    def read(self, value: Value, path: str) -> B:
        return self.kind.read(value, path)

    def write(self, value: B) -> Value:
        return value.write()


Flag = _Flag("bool")
Name = _Name()
Anything = _Any("any")


def is_name(text: str) -> bool:
    """Whether `text` can be a name: `[a-z0-9][a-z0-9._/-]{0,254}` (HS-ENC-008)."""
    return (
        0 < len(text) <= limits.NAME
        and text[0] not in "._/-"
        and all(c.isascii() and (c.islower() or c.isdigit() or c in "._/-") for c in text)
    )


def key(number: int, shape: Shape[T], *, secret: bool = False) -> T:
    """Declares a key that is always there."""
    return cast(T, dataclasses.field(metadata={"key": number, "shape": shape}, repr=not secret))


def maybe(number: int, shape: Shape[T], *, default: None = None, secret: bool = False) -> T | None:
    """Declares a key that may be absent."""
    metadata = {"key": number, "shape": shape}
    return cast("T | None", dataclasses.field(default=default, metadata=metadata, repr=not secret))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(key, maybe))
def body(cls: type[B]) -> type[B]:
    """Makes the class an immutable value and checks its declaration."""
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    numbers = [field.metadata["key"] for field in _keyed(made)]
    if len(set(numbers)) != len(numbers) or EXT in numbers:
        raise TypeError(f"{cls.__name__} declares a key twice")
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
    """A map with unsigned keys. `extra` holds the keys that this revision does not know, 15 among them."""

    extra: Mapping[int, Value] = dataclasses.field(default_factory=dict)

    @classmethod
    def cddl_name(cls) -> str:
        """The name of its CDDL rule."""
        name = cls.__name__
        return "".join("-" + c.lower() if c.isupper() and at else c.lower() for at, c in enumerate(name))

    @classmethod
    def rows(cls) -> Sequence[dataclasses.Field[Any]]:
        """The declared fields, by their keys."""
        return sorted(_keyed(cls), key=lambda field: cast(int, field.metadata["key"]))

    @classmethod
    def read(cls, value: Value, path: str) -> Self:
        """The body that a decoded map is. Raises FieldError."""
        if not isinstance(value, dict) or not all(isinstance(number, int) for number in value):
            raise FieldError(path, "no map with unsigned keys")
        left = dict(value)
        found: dict[str, Any] = {}
        for field in cls.rows():
            number = field.metadata["key"]
            if number in left:
                found[field.name] = field.metadata["shape"].read(left.pop(number), f"{path}.{field.name}")
            elif field.default is dataclasses.MISSING:
                raise FieldError(f"{path}.{field.name}", f"key {number} is missing")
        if EXT in left:
            _ext.read(left[EXT], f"{path}.ext")
        return cls(**found, extra=left)

    def write(self) -> Value:
        """The map to be encoded."""
        written = {
            field.metadata["key"]: field.metadata["shape"].write(getattr(self, field.name))
            for field in self.rows()
            if getattr(self, field.name) is not None
        }
        if clash := set(written) & set(self.extra):
            raise ValueError(f"{type(self).__name__} has key {min(clash)} already")
        return {**written, **self.extra}


_ext = MapOf(Anything, limits.MAP)


def _keyed(cls: type[Body]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if "key" in field.metadata]


def cddl_rule(cls: type[Body]) -> str:
    """The CDDL rule of a body."""
    rows = [
        f"  {'' if field.default is dataclasses.MISSING else '? '}{field.metadata['key']}: "
        f"{field.metadata['shape'].cddl}, ; {field.name}"
        for field in cls.rows()
    ]
    return "\n".join([f"{cls.cddl_name()} = {{", *rows, "  extensions,", "}"])
