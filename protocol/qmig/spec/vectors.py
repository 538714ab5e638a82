"""Test vectors: `spec/vectors/AREA/NAME.json` with bytes as hex or in blobs beside it.

The format is fixed by `spec/schema/vectors.json` and explained in `spec/vectors/README.md`.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmig.errors import QmigError

SCHEMA = "qmig/vectors/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """The bytes of one channel: inline, or in a blob that is read when asked for."""

    name: str
    inline: bytes | None
    #: blob (absolute); ".xz" is decompressed
    path: Path | None
    #: of the bytes, decompressed; None for inline bytes
    size: int | None
    sha256: str | None

    def read(self) -> bytes:
        """The bytes. Raises `QmigError` if the blob is not what the vector says it is."""
        if self.inline is not None:
            return self.inline
        assert self.path is not None
        assert self.size is not None
        try:
            packed = self.path.read_bytes()
            data = _unpack(packed, self.size) if self.path.suffix == ".xz" else packed
        except (OSError, lzma.LZMAError) as problem:
            raise QmigError(f"{self.path}: {problem}") from None
        if len(data) != self.size:
            raise QmigError(f"{self.path}: {len(data)} bytes, the vector says {self.size}")
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise QmigError(f"{self.path}: sha256 differs from the vector's")
        return data


def _unpack(packed: bytes, size: int) -> bytes:
    """At most one byte more than `size`, whatever the file unpacks to."""
    reader = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    return reader.decompress(packed, max_length=size + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One test. `result` is "valid", "invalid" or "acceptable" (the flags say what is left open)."""

    #: path of the file under `spec/vectors`, and the vector's name in it: "legacy/sections#footer-drift"
    id: str
    comment: str
    #: which reader the bytes are for: "stream", "record", "return-path", "multifd", …
    reader: str
    channels: Mapping[str, Channel]
    result: str
    flags: tuple[str, ...]
    #: `{"decoding": …}` or `{"error": class name, "offset": …, "requirement": …, "record": …}`
    expect: Mapping[str, Any]
    source: Mapping[str, Any]
    #: JSON in .xz beside the file, with what is too long to stand in `expect`; None if there is none
    facts: Path | None = None

    def read_facts(self) -> Any:
        assert self.facts is not None
        return json.loads(lzma.decompress(self.facts.read_bytes()))

    def data(self, channel: str = "main") -> bytes:
        return self.channels[channel].read()


def vector_files(root: Path) -> list[Path]:
    return sorted((root / "vectors").glob("*/*.json"))


def load_file(root: Path, path: Path) -> Iterator[Vector]:
    """The vectors of one file. Raises `QmigError` when the file is not of the schema."""
    area = path.relative_to(root / "vectors").with_suffix("").as_posix()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = raw["schema"] == SCHEMA
        for item in raw["vectors"] if known else ():
            yield Vector(
                id=f"{area}#{item['name']}",
                comment=item["comment"],
                reader=item["reader"],
                channels={name: _channel(name, spec, path.parent) for name, spec in item["channels"].items()},
                result=item["result"],
                flags=tuple(item.get("flags", ())),
                expect=item["expect"],
                source=item.get("source", raw["source"]),
                facts=_facts(item["expect"], path.parent),
            )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise QmigError(f"{path}: {type(problem).__name__}: {problem}") from None
    if not known:
        raise QmigError(f"{path}: schema {raw['schema']!r}, expected {SCHEMA!r}")


def _facts(expect: Mapping[str, Any], folder: Path) -> Path | None:
    decoding = expect.get("decoding")
    name = decoding.get("facts") if isinstance(decoding, dict) else None
    return folder / name if isinstance(name, str) else None


def _channel(name: str, spec: Mapping[str, Any], folder: Path) -> Channel:
    if "hex" in spec:
        return Channel(name=name, inline=bytes.fromhex(spec["hex"]), path=None, size=None, sha256=None)
    return Channel(
        name=name, inline=None, path=folder / spec["file"], size=spec["size"], sha256=spec["sha256"]
    )
