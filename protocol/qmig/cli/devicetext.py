"""The fields of one device: as lines of text, as JSON."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qmig.legacy.sections import DeviceState as Body
    from qmig.legacy.sections import SectionFull
    from qmig.legacy.state import StreamState
    from qmig.legacy.vmstate.model import DeviceState, Field
    from qmig.legacy.vmstate.schema import DeviceSchema

#: elements and bytes of a value shown without -v
ELEMENTS: Final = 16
BYTES: Final = 32


def decoded(state: StreamState, section: SectionFull, body: Body) -> DeviceState:
    """The fields of a FULL section's body; where nothing describes them, one opaque field."""
    from qmig.legacy.vmstate.schema import DeviceSchema

    schema = state.schema if isinstance(state.schema, DeviceSchema) else _builtin()
    return schema.decode(section, memoryview(body.data), body.offset)


@functools.cache
def _builtin() -> DeviceSchema:
    from qmig.legacy.vmstate.schema import BuiltinSchema

    return BuiltinSchema()


def device_lines(device: DeviceState, *, verbose: bool) -> Iterator[str]:
    """One line for each field, indented by depth; then what could not be decoded."""
    for field in device.fields:
        yield from _field(field, device.offset, 0, verbose)
    for note in device.notes:
        yield f"! {note.message} ({note.offset:#x}, {note.size} bytes) [{note.requirement}]"


def _field(field: Field, base: int, depth: int, verbose: bool) -> Iterator[str]:
    name = field.name if field.index is None else f"{field.name}[{field.index}]"
    count = f"[{field.count}]" if field.count is not None else ""
    head = f"+{field.offset - base:<5x} {'  ' * depth}{name}: {field.type}{count}"
    if field.children is None:
        yield f"{head} = {_text(field, verbose)}"
        return
    what = f" {field.vmsd_name} v{field.version}" if field.vmsd_name and field.vmsd_name != field.name else ""
    yield head + what
    for child in field.children:
        yield from _field(child, base, depth + 1, verbose)


def _text(field: Field, verbose: bool) -> str:
    text = field.text
    if text is not None:
        return ascii(text)
    value = field.value
    if isinstance(value, tuple):
        shown = value if verbose else value[:ELEMENTS]
        more = f", … {len(value)} in all" if len(shown) < len(value) else ""
        return ", ".join(_number(number, field.type) for number in shown) + more
    if isinstance(value, bytes):
        if not any(value):
            return f"{len(value)} zero bytes"
        shown_bytes = value if verbose else value[:BYTES]
        more = f"… {len(value)} bytes" if len(shown_bytes) < len(value) else ""
        return shown_bytes.hex() + more
    return _number(value, field.type)


def _number(value: object, type_: str) -> str:
    """Signed numbers in decimal, the others in hexadecimal."""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return str(value) if value < 10 or type_.startswith("int") else f"{value:#x}"


def device_json(device: DeviceState) -> dict[str, Any]:
    """`device` as in `spec/schema/decode.json`; bytes are hexadecimal."""
    return {
        "basis": device.basis,
        "vmsd_name": device.vmsd_name,
        "fields": [_field_json(field, device.offset) for field in device.fields],
        "notes": [
            {
                "kind": str(note.kind),
                "message": note.message,
                "offset": note.offset,
                "size": note.size,
                "requirement": note.requirement,
            }
            for note in device.notes
        ],
    }


def _field_json(field: Field, base: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": field.name,
        "type": field.type,
        "offset": field.offset - base,
        "size": field.size,
    }
    for key in ("count", "index", "vmsd_name", "version"):
        value = getattr(field, key)
        if value is not None:
            found[key] = value
    if field.children is not None:
        found["fields"] = [_field_json(child, base) for child in field.children]
        return found
    value = field.value
    if isinstance(value, bytes):
        found["hex"] = value.hex()
        text = field.text
        if text is not None:
            found["text"] = text
    elif isinstance(value, tuple):
        found["value"] = [_finite(number) for number in value]
    else:
        found["value"] = _finite(value)
    return found


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity: these are spelled as text."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
