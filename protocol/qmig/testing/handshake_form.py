"""The form of the vectors of protocol v2 (`spec/schema/vectors.json`), and CBOR as people write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from qmig._cbor import Value

SCHEMA: Final = "qmig/vectors/1"
BASIS: Final = "the statements named; made by tools/v2_vectors.py, checked against cbor2 and handshake.cddl"
NOTES: Final = {
    "unknown-key": "a key that this revision does not know, kept",
    "unknown-message": "a message that may be ignored",
    "later-revision": "what a later revision may put there",
    "grease": "has GREASE, as every session",
}


def diagnostic(value: Value) -> str:
    """CBOR's diagnostic notation (RFC 8949, section 8)."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case int():
            return str(value)
        case bytes():
            return f"h'{value.hex()}'"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = (f"{diagnostic(key)}: {diagnostic(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case _:
            return "[" + ", ".join(map(diagnostic, value)) + "]"


def file_of(title: str, vectors: list[dict[str, Any]]) -> dict[str, Any]:
    used = {flag for vector in vectors for flag in vector.get("flags", ())}
    document = {
        "schema": SCHEMA,
        "title": title,
        "source": {"kind": "hand-made", "basis": BASIS},
        "vectors": vectors,
    }
    if used:
        document["notes"] = {flag: NOTES[flag] for flag in sorted(used)}
    return document


def vector(
    name: str,
    comment: str,
    reader: str,
    channels: Mapping[str, bytes],
    expect: Mapping[str, Any],
    flags: tuple[str, ...] = (),
) -> dict[str, Any]:
    result = "invalid" if "error" in expect else "acceptable" if "later-revision" in flags else "valid"
    made: dict[str, Any] = {
        "name": name,
        "comment": comment,
        "reader": reader,
        "channels": {channel: {"hex": data.hex()} for channel, data in channels.items()},
        "result": result,
    }
    if flags:
        made["flags"] = list(flags)
    return {**made, "expect": dict(expect)}


def failed(code: str, offset: int, requirement: str, record: str) -> dict[str, Any]:
    return {
        "error": "RemoteProtocolError",
        "offset": offset,
        "requirement": requirement,
        "record": record,
        "code": code,
    }
