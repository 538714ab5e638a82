"""Decoded device state: a tree of named, typed fields with their place in the stream."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Final

from qmig.legacy.vmstate.types import Value, VMStateType, decode_value, text_of


class NoteKind(enum.StrEnum):
    """Why something was not decoded, or what a reader should know of it."""

    #: more than one reading fits the bytes
    AMBIGUOUS = "ambiguous"
    #: no reading of the schema fits the bytes
    MISFIT = "misfit"
    #: the schema does not describe it
    UNDESCRIBED = "undescribed"
    #: the bytes end before the schema does
    SHORT = "short"
    #: bytes behind what the schema describes
    EXCESS = "excess"
    #: the search for a reading was given up at its bound
    BUDGET = "budget"
    #: decoded, but by a rule that the stream itself does not confirm
    INFERRED = "inferred"


class Note:
    """A statement on some bytes: `offset` absolute, `size` in bytes, `requirement` a spec id."""

    __slots__ = ("kind", "message", "offset", "requirement", "size")

    def __init__(self, kind: NoteKind, message: str, offset: int, size: int, requirement: str) -> None:
        self.kind = kind
        self.message = message
        self.offset = offset
        self.size = size
        self.requirement = requirement

    def __repr__(self) -> str:
        return f"Note({self.kind}, {self.message!r}, {self.offset:#x}+{self.size} [{self.requirement}])"


#: `Field.type` of bytes that could not be decoded; `Field.note` says why.
OPAQUE: Final = "opaque"
#: `Field.type` of a subsection; its name is the full one, such as "cpu/xsave".
SUBSECTION_TYPE: Final = "subsection"


class Field:
    """One field, array, structure, list or subsection.

    `offset` is absolute, `size` the bytes it takes with everything in it. `count` is the
    number of elements of an array or list, None for anything else. Numbers in arrays have
    no fields of their own (`value` is a tuple); elements that are structures are children,
    with `index`. `vmsd_name` and `version` are those of the nested description.
    """

    __slots__ = (
        "_data",
        "children",
        "count",
        "index",
        "name",
        "note",
        "offset",
        "size",
        "type",
        "version",
        "vmsd_name",
    )

    def __init__(
        self,
        name: str,
        type_: str,
        offset: int,
        data: memoryview,
        count: int | None = None,
        children: Sequence[Field] | None = None,
    ) -> None:
        self.name = name
        self.type = type_
        self.offset = offset
        self.size = len(data)
        self.count = count
        self.children = children
        self._data = data
        self.index: int | None = None
        self.note: Note | None = None
        self.vmsd_name: str | None = None
        self.version: int | None = None

    @property
    def raw(self) -> memoryview:
        """The bytes as they came."""
        return self._data

    @property
    def value(self) -> Value:
        """See `types.decode_value`; None for what has children, bytes for what is opaque."""
        if self.children is not None:
            return None
        return decode_value(self.type, self._data, self.count)

    @property
    def text(self) -> str | None:
        """What a buffer says, where it evidently is text."""
        if self.children is None and self.type == VMStateType.BUFFER:
            return text_of(bytes(self._data))
        return None

    def walk(self, path: str = "") -> Iterator[tuple[str, Field]]:
        """This field and all below, depth first in stream order, with their paths."""
        waiting = [(path, self)]
        while waiting:
            path, field = waiting.pop()
            path += field.step(bare=not path)
            yield path, field
            if field.children:
                waiting += [(path, child) for child in reversed(field.children)]

    def step(self, *, bare: bool) -> str:
        """What this field adds to a path: `.name`, `[index]` or `{subsection}`."""
        if self.index is not None:
            return f"[{self.index}]"
        if self.type == SUBSECTION_TYPE:
            return f"{{{self.name}}}"
        return self.name if bare else f".{self.name}"

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.type!r}, {self.offset:#x}+{self.size})"


class DeviceState:
    """The state of one device.

    `basis` says what it was decoded by: "vmdesc" (the stream's own), "schema" (a
    description from another stream), "dump-vmstate", "built-in", or "" if by nothing.
    `consumed` counts the bytes that fields cover, opaque ones too; `notes` has every
    statement on what is not as the schema says, in stream order. `loosened` counts how often
    the schema had to be taken less literally to fit.
    """

    __slots__ = (
        "_opaque",
        "basis",
        "consumed",
        "fields",
        "idstr",
        "instance_id",
        "loosened",
        "notes",
        "offset",
        "size",
        "version_id",
        "vmsd_name",
    )

    def __init__(
        self,
        *,
        idstr: str,
        instance_id: int,
        vmsd_name: str | None,
        version_id: int | None,
        offset: int,
        size: int,
        basis: str,
        fields: Sequence[Field],
        notes: Sequence[Note],
        loosened: int = 0,
    ) -> None:
        self.idstr = idstr
        self.instance_id = instance_id
        self.vmsd_name = vmsd_name
        self.version_id = version_id
        self.offset = offset
        self.size = size
        self.basis = basis
        self.fields = fields
        self.notes = notes
        self.loosened = loosened
        self._opaque: int | None = None
        self.consumed = sum(field.size for field in fields)

    def walk(self) -> Iterator[tuple[str, Field]]:
        """Every field of every depth with its path."""
        for field in self.fields:
            yield from field.walk()

    def opaque_bytes(self) -> int:
        """Bytes that have no name."""
        if self._opaque is None:
            waiting = list(self.fields)
            self._opaque = 0
            while waiting:
                field = waiting.pop()
                if field.children:
                    waiting += field.children
                elif field.type == OPAQUE:
                    self._opaque += field.size
        return self._opaque

    def __repr__(self) -> str:
        return f"DeviceState({self.idstr!r}, {self.instance_id}, {self.offset:#x}+{self.size})"
