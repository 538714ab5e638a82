"""The names that two sides agree on, and how.

Repeats the rows of `spec/registries/v2-names.toml` whose party is `wire`, `file` or `reserved`; a test
compares both ways. Names of QEMU's capabilities and parameters are QAPI's own.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qmig._cbor import Value
from qmig.handshake.fields import is_name


class Result(enum.StrEnum):
    """How D's answer follows from S's offer (HS-NEG-010)."""

    AND = "and"
    MIN = "min"
    FIRST_COMMON = "first-common"
    INTERSECT = "intersect"
    EXACT = "exact"
    DECLARE_SRC = "declare-src"
    DECLARE_DST = "declare-dst"


class Party(enum.StrEnum):
    """Who has to do with a name (HS-NAM-006); the other parties of the registry are never on the wire."""

    WIRE = "wire"
    FILE = "file"
    RESERVED = "reserved"


class Kind(enum.StrEnum):
    """What a name's value is."""

    FLAG = "flag"  # true; "no" is said by not offering
    NUMBER = "number"
    WORDS = "words"  # offered as a list, agreed as one member
    SET = "set"  # of names or paths, sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name. `rank` orders names that compete: the lower one stays. `needs` are names that must be on."""

    name: str
    result: Result
    kind: Kind = Kind.FLAG
    rank: int = 50
    needs: tuple[str, ...] = ()
    least: int = 0
    most: int = 0
    words: tuple[str, ...] = ()
    party: Party = Party.WIRE


def _rows(*rows: Entry) -> Mapping[str, Entry]:
    return {row.name: row for row in rows}


NAMES: Final = _rows(
    # QEMU's capabilities and parameters
    Entry(name="multifd-channels", result=Result.MIN, kind=Kind.NUMBER, rank=10, least=1, most=255),
    Entry(
        name="multifd-compression",
        result=Result.FIRST_COMMON,
        kind=Kind.WORDS,
        rank=20,
        needs=("multifd-channels",),
        words=("none", "zlib", "zstd", "qpl", "uadk", "qatzip"),
    ),
    Entry(name="postcopy-ram", result=Result.AND, rank=30),
    Entry(name="postcopy-preempt", result=Result.AND, rank=31, needs=("postcopy-ram",)),
    Entry(name="dirty-bitmaps", result=Result.INTERSECT, kind=Kind.SET, rank=40),
    Entry(
        name="switchover-ack",
        result=Result.FIRST_COMMON,
        kind=Kind.WORDS,
        rank=40,
        words=("per-device", "single"),
    ),
    Entry(name="x-ignore-shared", result=Result.AND, rank=40),
    Entry(name="rdma-pin-all", result=Result.AND, rank=40),
    Entry(
        name="x-rdma-chunk-size",
        result=Result.EXACT,
        kind=Kind.NUMBER,
        rank=41,
        needs=("rdma-pin-all",),
        least=4_096,
        most=(1 << 63) - 1,
    ),
    Entry(name="x-colo", result=Result.EXACT, rank=40),
    Entry(name="backend-transfer", result=Result.INTERSECT, kind=Kind.SET, rank=40),
    Entry(
        name="x-migration-multifd-transfer",
        result=Result.INTERSECT,
        kind=Kind.SET,
        rank=40,
        needs=("multifd-channels",),
    ),
    Entry(name="mapped-ram", result=Result.EXACT, rank=40, party=Party.FILE),
    Entry(name="announce-initial", result=Result.DECLARE_SRC, kind=Kind.NUMBER, most=100_000),
    Entry(name="announce-max", result=Result.DECLARE_SRC, kind=Kind.NUMBER, most=100_000),
    Entry(name="announce-rounds", result=Result.DECLARE_SRC, kind=Kind.NUMBER, most=1_000),
    Entry(name="announce-step", result=Result.DECLARE_SRC, kind=Kind.NUMBER, least=1, most=10_000),
    # of this protocol
    Entry(name="channel.mux", result=Result.AND, rank=1),
    Entry(name="channel.tls-exporter", result=Result.AND, rank=1),
    Entry(name="description.peer", result=Result.AND, rank=1),
    Entry(name="handover.v1", result=Result.AND, rank=2),
    Entry(name="resume.v1", result=Result.AND, rank=3),
    Entry(name="recheck.v1", result=Result.AND, rank=3),
    Entry(name="auth.psk", result=Result.AND, party=Party.RESERVED),
    Entry(name="cpr.v1", result=Result.AND, party=Party.RESERVED),
    Entry(name="endpoints.v1", result=Result.AND, party=Party.RESERVED),
)

#: begins the names with which a sender tests that unknown names are tolerated
GREASE: Final = "grease."


def fits(entry: Entry, value: Value) -> bool:
    """Whether `value` can be the agreed value of a name."""
    match entry.kind:
        case Kind.FLAG:
            return value is True
        case Kind.NUMBER:
            return type(value) is int and entry.least <= value <= entry.most
        case Kind.WORDS:
            return isinstance(value, str) and is_name(value)
        case _:
            return is_set(value) and bool(value)


def is_set(value: Value) -> bool:
    """Whether `value` is a list of texts in ascending order of their bytes, none twice."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return False
    spelled = [item.encode("utf-8", "surrogatepass") for item in value]
    return all(a < b for a, b in itertools.pairwise(spelled))
